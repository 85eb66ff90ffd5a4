"""Devices and threads."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from rl_runner import compute
from rl_runner.types import UserError

VECTOR, IMAGE = gym.spaces.Box(0, 1, (4,)), gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)


@pytest.mark.parametrize(
    ("wanted", "space", "threads"), [("auto", VECTOR, 1), ("auto", IMAGE, compute.ALL_THREADS), (2, VECTOR, 2)]
)
def test_threads_follow_the_observations_unless_told_otherwise(wanted, space, threads):
    assert compute.set_threads(wanted, space) == torch.get_num_threads() == threads


def test_devices():
    assert compute.device("cpu") == torch.device("cpu")
    here = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert compute.device("auto").type == here
    for name in ("cuda:99", "gpu", "meta", ""):
        with pytest.raises(UserError, match=r"device: .* is not here; there is cpu"):
            compute.device(name)
