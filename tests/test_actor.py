"""The actor: observations in, actions out, with a random stream of its own."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rl_runner.actor import Actor
from rl_runner.exploration import EpsilonGreedy, Greedy

CPU = torch.device("cpu")


def policy(obs: Tensor) -> Tensor:
    return torch.stack([obs.float(), 10 - obs.float()], dim=1)  # action 0 where obs > 5


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_actions_are_the_best_ones(dtype: type) -> None:
    actor = Actor(policy, Greedy(), np.random.default_rng(0), CPU)
    obs = np.array([9, 1, 6, 4], dtype=dtype)
    assert actor(obs, 0).tolist() == [0, 1, 0, 1]
    assert obs.tolist() == [9, 1, 6, 4]


def test_half_precision_values_are_read() -> None:
    actor = Actor(lambda obs: policy(obs).bfloat16(), Greedy(), np.random.default_rng(0), CPU)
    assert actor(np.array([9.0, 1.0]), 0).tolist() == [0, 1]


def test_the_rule_is_told_values_step_and_stream() -> None:
    seen = []

    class Rule:
        def __call__(self, q: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
            seen.append((q.tolist(), step, rng))
            return np.array([7])

        def metrics(self, step: int) -> dict[str, float]:
            return {"heat": step / 2}

    rng = np.random.default_rng(0)
    actor = Actor(policy, Rule(), rng, CPU)
    assert actor(np.array([3.0]), 42).tolist() == [7]
    assert seen == [([[3.0, 7.0]], 42, rng)]
    assert actor.metrics(3) == {"heat": 1.5}


def test_a_restored_actor_goes_on_as_it_would_have() -> None:
    obs = np.zeros(64, dtype=np.float32)
    actor, fresh = (Actor(policy, EpsilonGreedy(1, 1, 0), np.random.default_rng(seed), CPU) for seed in (1, 2))
    actor(obs, 0)
    state = actor.state_dict()
    wanted = [actor(obs, 0).tolist() for _ in range(3)]
    fresh.load_state_dict(state)
    assert [fresh(obs, 0).tolist() for _ in range(3)] == wanted
    assert wanted[0] != wanted[1]


def test_actions_that_the_mask_does_not_allow_are_not_taken() -> None:
    actor = Actor(policy, Greedy(), np.random.default_rng(0), CPU)
    obs, mask = np.array([9.0, 9.0, 1.0]), np.array([[True, True], [False, True], [True, False]])
    assert actor(obs, 0, mask).tolist() == [0, 1, 0]
    explorer = Actor(policy, EpsilonGreedy(1, 1, 0), np.random.default_rng(0), CPU)
    actions = np.array([explorer(obs, 0, mask) for _ in range(50)])
    assert set(actions[:, 0].tolist()) == {0, 1}
    assert set(actions[:, 1].tolist()) == {1}
    assert set(actions[:, 2].tolist()) == {0}
