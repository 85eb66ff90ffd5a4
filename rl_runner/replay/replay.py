"""The replay memory: stored rows, a sampler that chooses from them, and reading them as a batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from rl_runner.compute import on_device
from rl_runner.replay.hindsight import Hindsight
from rl_runner.replay.storage import RowStorage
from rl_runner.rng import generator_state, load_generator_state
from rl_runner.types import Array, Batch, BoolArray, FloatArray, IntArray, Sampler, State, Transition, UserError

REDRAWS = 10_000  # of rows at which no window can start; a sampler that draws at random needs a few


class Replay:
    """Stores transitions and samples batches of n-step transitions.

    Args:
        storage: the rows.
        sampler: chooses the rows at which windows start.
        gamma: discount per step.
        n_step: largest number of steps per window.
        reward_clip: rewards are clipped to [-reward_clip, reward_clip] for learning; None: not clipped.
        rng: the random stream of sampling.
        device: of the batches.
        hindsight: replaces goals in part of each batch; None: nothing is replaced.
    """

    def __init__(
        self,
        storage: RowStorage,
        sampler: Sampler,
        gamma: float,
        n_step: int,
        reward_clip: float | None,
        rng: np.random.Generator,
        device: torch.device,
        hindsight: Hindsight | None = None,
    ) -> None:
        self.storage, self.sampler, self.hindsight = storage, sampler, hindsight
        self.n_step, self.reward_clip = n_step, reward_clip
        self.added = 0  # transitions stored since the memory was empty
        self.step_offset = 0  # steps of the run before a resume whose transitions were not saved
        self._rng, self._device = rng, device
        self._sampler_checked = False
        self._remove: Callable[[IntArray], None] | None = getattr(sampler, "remove", None)
        self._powers = np.power(gamma, np.arange(n_step + 1))  # gamma^k, float64

    @property
    def step(self) -> int:
        """The step of the run up to which transitions are stored. The sampler's schedules follow it."""
        return self.step_offset + self.added

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, and of their priorities where the sampler has some."""
        return self.storage.nbytes + int(getattr(self.sampler, "nbytes", 0))

    def add(self, tr: Transition) -> None:
        """Store one step of every environment."""
        self.sampler.add(self.storage.add(tr))
        if self._remove is not None:
            self._remove(self.storage.newest)  # the row may have held another transition, with a priority
        self.added += len(tr.reward)

    def cut(self, mask: BoolArray) -> None:
        """End the episodes of the environments in `mask` (N,) here, as a truncation does."""
        self.storage.cut(mask)

    def sample(self, batch_size: int) -> Batch:
        """Draw a batch. Rows at which no window can start, such as final rows, are drawn again.

        Raises:
            UserError: a sampler of the user's own returns no rows, or again and again none at which a window can start.
        """
        ids = self.sampler.sample(batch_size, self.step, self._rng)
        if not self._sampler_checked:
            self._check_sampled(ids, batch_size)
        bad = np.flatnonzero(~self.storage.startable(ids))
        for _ in range(REDRAWS):
            if not len(bad):
                break
            ids[bad] = self.sampler.sample(len(bad), self.step, self._rng)
            bad = bad[~self.storage.startable(ids[bad])]
        else:
            raise UserError(
                f"replay.sampler: {type(self.sampler).__name__}.sample returned rows at which no window can start, "
                f"such as an episode's last one, {REDRAWS:,} times in a row; each call must draw others"
            )
        weight = self.sampler.weight(ids, self.step)
        if not (isinstance(weight, np.ndarray) and weight.shape == ids.shape and weight.dtype.kind == "f"):
            name = type(self.sampler).__name__
            raise UserError(f"replay.sampler: {name}.weight must return an array of floats (B,), here ({len(ids)},)")
        return self.read(ids, weight)

    def _check_sampled(self, ids: IntArray, count: int) -> None:
        """Check the first rows that the sampler, which may be the user's own, has returned."""
        whole = isinstance(ids, np.ndarray) and ids.shape == (count,) and ids.dtype.kind in "iu"
        if not whole or ids.min() < 0 or ids.max() >= self.storage.id_bound:
            raise UserError(
                f"replay.sampler: {type(self.sampler).__name__}.sample must return ids of rows ({count},), an array of "
                f"whole numbers, here from 0 to {self.storage.id_bound - 1:,}"
            )
        self._sampler_checked = True

    def read(self, ids: IntArray, weight: FloatArray) -> Batch:
        """Return the n-step transitions that start at rows `ids` (B,), as tensors on the device."""
        window = self.storage.window(ids, self.n_step)
        if self.hindsight is not None:
            window, new_goals = self.hindsight(ids, window, self._rng)
        reward = window.reward
        if self.reward_clip is not None:
            reward = np.clip(reward, -self.reward_clip, self.reward_clip)
        total = (reward * self._powers[:-1]).sum(axis=1)  # (B,) sum over k < m of gamma^k r_k
        discount = np.where(window.terminal, 0.0, self._powers[window.length])  # gamma^m
        # Arrays are joined, because each transfer to the device takes time.
        both = self.storage.obs(np.concatenate([ids, window.next_ids]))
        if self.hindsight is not None:
            self.hindsight.write(both, new_goals)
        obs, next_obs = self._tensor(both).chunk(2)
        numbers = self._tensor(np.array([total, discount, weight], dtype=np.float32)).unbind()
        return Batch(
            obs=obs,
            action=self._tensor(self.storage.action[np.divmod(ids, self.storage.num_envs)]),
            reward=numbers[0],
            discount=numbers[1],
            next_obs=next_obs,
            weight=numbers[2],
            ids=ids,
            action_mask=self._mask(ids),
            next_action_mask=self._mask(window.next_ids),
        )

    def update(self, ids: IntArray, priority: Tensor | None) -> None:
        """Update the priorities of the rows `ids` (B,)."""
        self.sampler.update(ids, priority)

    def metrics(self) -> dict[str, float]:
        """Return what the sampler reports."""
        return self.sampler.metrics(self.step)

    def _mask(self, ids: IntArray) -> Tensor | None:
        mask = self.storage.allowed(ids)
        return None if mask is None else self._tensor(mask)

    def _tensor(self, array: Array | Tensor) -> Tensor:
        return on_device(array, self._device)

    def state_dict(self) -> State:
        """Return rows, sampler and random stream."""
        return {
            "storage": self.storage.state_dict(),
            "sampler": self.sampler.state_dict(),
            "added": self.added,
            "earlier": self.step_offset,
            "rng": generator_state(self._rng),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore rows, sampler and random stream. Raise ValueError if one of them does not fit."""
        self.storage.load_state_dict(state["storage"])
        try:
            self.sampler.load_state_dict(state["sampler"])
        except (KeyError, TypeError, AttributeError, IndexError) as e:  # of the user's own
            raise ValueError(f"replay.sampler: {type(self.sampler).__name__} cannot load its state: {e!r}") from e
        self.added, self.step_offset = state["added"], state.get("earlier", 0)  # missing in older checkpoints
        load_generator_state(self._rng, state["rng"])
