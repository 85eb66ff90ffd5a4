"""What computes: the device, and how many CPU threads."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch

from rl_runner.types import UserError

ALL_THREADS = torch.get_num_threads()  # as torch finds the machine, before any run says otherwise


def device(name: str) -> torch.device:
    """Give the device of that name; "auto" is the GPU where there is one.

    Raises:
        UserError: it is not here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError) as e:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise UserError(f"device: {name!r} is not here; there is {', '.join(there)}, or auto") from e
    return found


def set_threads(wanted: int | str, space: gym.Space[Any]) -> int:
    """Set the number of CPU threads and give it; it is part of exact resume.

    Args:
        wanted: a number, or "auto": small networks are fastest on one thread, convolutions use all cores.
        space: of the observations.
    """
    image = space.shape is not None and len(space.shape) == 3
    threads = int(wanted) if wanted != "auto" else ALL_THREADS if image else 1
    torch.set_num_threads(threads)
    return threads
