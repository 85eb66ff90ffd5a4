"""Random streams. One run seed gives many streams that have nothing to do with each other, each known by its name."""

from __future__ import annotations

import zlib

import numpy as np
import torch

from rl_runner.types import State


def sequence(seed: int, name: str, *index: int) -> np.random.SeedSequence:
    """Return the seed sequence of the stream `name` (and index) of a run. Different arguments, independent streams."""
    return np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()), *index))


def generator(seed: int, name: str) -> np.random.Generator:
    """Return a fresh random generator for the stream `name` of a run."""
    return np.random.default_rng(sequence(seed, name))


def integer(seed: int, name: str, *index: int) -> int:
    """Return a seed in [0, 2^31) for something that wants an int (an environment's reset, torch)."""
    return int(sequence(seed, name, *index).generate_state(1)[0] >> 1)


def generator_state(rng: np.random.Generator) -> State:
    """Return the generator's state as plain numbers (its 128-bit integers as strings, for JSON's sake)."""
    state = dict(rng.bit_generator.state)
    state["state"] = {k: str(v) for k, v in state["state"].items()}
    return state


def load_generator_state(rng: np.random.Generator, state: State) -> None:
    """Restore what `generator_state` returned."""
    rng.bit_generator.state = {**state, "state": {k: int(v) for k, v in state["state"].items()}}


def torch_state() -> State:
    """Return the state of torch's global generators, which noisy layers draw from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda, "mps": mps}


def load_torch_state(state: State) -> None:
    """Restore what `torch_state` returned, CUDA states as far as there are devices."""
    torch.set_rng_state(state["cpu"])
    for device, cuda in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(cuda, device)
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
