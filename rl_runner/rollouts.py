"""How agents that learn from rollouts read them: as rows on the device, with the values of the true successors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rl_runner.compute import on_device
from rl_runner.distributions import mask_on
from rl_runner.types import Array, BoolArray, Carry, DoubleArray, Rollout


class Rows(NamedTuple):
    """The B = T N rows of a rollout, on the device, in the order of steps, and of environments within a step."""

    obs: Tensor  # (B, *O)
    action: Tensor  # (B, *D)
    action_mask: Tensor | None  # (B, A)
    memory: Tensor | None = None  # (B, S) what the agent remembered before each row
    begins: Tensor | None = None  # (B,) an episode begins with the row
    sequences: int = 0  # C, of an agent that remembers: then the rows are L steps of C sequences, B = L C

    def of(self, index: Tensor) -> Rows:
        """Return the rows of an index: (B,), or (L, C) for L steps of C sequences."""
        rows = index.flatten()
        mask, memory, begins = (None if x is None else x[rows] for x in (self.action_mask, self.memory, self.begins))
        return Rows(self.obs[rows], self.action[rows], mask, memory, begins, self.sequences and index.shape[-1])


def rows_of(rollout: Rollout, device: torch.device) -> Rows:
    """Return a rollout's rows on a device."""
    mask = None if rollout.action_mask is None else _flat(rollout.action_mask)
    return Rows(on_device(_flat(rollout.obs), device), on_device(_flat(rollout.action), device), mask_on(mask, device))


def ends_of(rollout: Rollout, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return the observations (N + K, *O) that no row holds, on a device, and their masks (N + K, A).

    These are the successors of the last row, then those at episodes that were cut short.
    """
    obs = np.concatenate([rollout.last_obs, rollout.cut_obs])
    return on_device(obs, device), mask_on(rollout.end_mask, device)


def memories(carries: Sequence[Carry | None], num_envs: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what an agent remembered at each of T steps (T, N, S), and where an episode began (T, N), on a device.

    Args:
        carries: T of them, with the tensor (N, S) under "memory"; None: every environment begins an episode.
        num_envs: N.
        size: S.
        device: of both.
    """
    nothing = torch.zeros(num_envs, size, device=device)
    memory = [nothing if carry is None else carry.state["memory"].to(device) for carry in carries]
    begins = [np.ones(num_envs, dtype=np.bool_) if carry is None else carry.reset for carry in carries]
    return torch.stack(memory), on_device(np.stack(begins), device)


def next_values(rollout: Rollout, value: DoubleArray, of_ends: DoubleArray) -> DoubleArray:
    """Return the values (T, N) of the true successors.

    Args:
        rollout: of T steps.
        value: (T, N) of its observations.
        of_ends: (N + K,) of the observations that `ends_of` returns.
    """
    num_envs = value.shape[1]
    after = np.concatenate([value[1:], of_ends[None, :num_envs]])
    after[tuple(rollout.cut.T)] = of_ends[num_envs:]
    return after


def minibatches(rows: int, size: int, epochs: int, device: torch.device, least: int = 2) -> Iterator[Tensor]:
    """Yield the rows of each gradient step, shuffled anew in each epoch.

    If fewer than `least` rows are left over, they join the batch before it: PPO's normalised advantage of one row would
    be 0.
    """
    for _ in range(epochs):
        *first, last = torch.randperm(rows, device=device).split(size)
        if first and len(last) < least:
            last = torch.cat([first.pop(), last])
        yield from [*first, last]


def sequences(steps: int, num_envs: int, length: int, size: int, epochs: int, device: torch.device) -> Iterator[Tensor]:
    """Yield the rows (L, C) of each gradient step: C sequences of L steps, shuffled anew in each epoch.

    Args:
        steps: T of each environment, a multiple of `length`.
        num_envs: N.
        length: L.
        size: rows of a gradient step, at least L, rounded down to whole sequences; the last one of an epoch may be
            smaller.
        epochs: passes over the rollout.
        device: of the rows.
    """
    within = torch.arange(length, device=device)[:, None] * num_envs
    least = 2 if length == 1 else 1
    for index in minibatches(steps // length * num_envs, size // length, epochs, device, least):
        part, env = index.div(num_envs, rounding_mode="floor"), index % num_envs
        yield part * length * num_envs + env + within


def on_rows(numbers: DoubleArray, device: torch.device) -> Tensor:
    """Return numbers (T, N) as floats (B,), on a device."""
    return torch.from_numpy(numbers.reshape(-1)).float().to(device)


def on_host(values: Tensor) -> DoubleArray:
    """Return values as an array in double precision. Apple's GPUs have none."""
    array: DoubleArray = values.detach().cpu().double().numpy()
    return array


def _flat(array: Array | BoolArray) -> Array:
    return array.reshape(-1, *array.shape[2:])
