"""Storage of transitions in rows, with each frame once.

Each environment has a ring of rows, written in the order of its steps. An episode of L steps takes L + 1 rows: one per
observation. A row holds the observation's newest frame and, once it is known, what happened next:

    row            0      1      2      3            4      5   <- newest
    frame          o0     o1     o2     o3 (final)   o0'    o1'
    action,reward  a0,r0  a1,r1  a2,r2  -            a0'    -
    age            0      1      2      3            0      1

A row without an action is either an episode's final observation or the newest row. A window that stops at such rows
crosses neither the end of an episode nor the write pointer. The age of a row limits how far back its frame stack
reaches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rl_runner import memory
from rl_runner.replay.frames import DeviceFrames, HostFrames
from rl_runner.types import Array, BoolArray, FloatArray, IntArray, State, Transition, UserError

LOOKAHEAD = 64  # rows that are read at once to find an episode's end; twice as many each time it is not among them


class Window(NamedTuple):
    """Up to n steps from each of B rows."""

    reward: FloatArray  # (B, n) raw, 0 beyond the window's end
    length: IntArray  # (B,) m <= n, the number of steps in the window
    terminal: BoolArray  # (B,) the last step is terminal: no bootstrapping
    next_ids: IntArray  # (B,) the row after the last step


class RowStorage:
    """Rings of rows, one per environment, with each frame once.

    A row's id is `position * num_envs + env`, so that ids [0, `id_bound`) cover the rows written so far.

    Args:
        capacity: total number of rows (rounded down to a multiple of num_envs).
        num_envs: number of rings.
        obs_shape: O, of one observation.
        obs_dtype: as stored.
        action_shape: D, of one action; () for discrete ones.
        action_dtype: as stored.
        stack: frames stacked along the observation's first axis; only the newest is stored. 1: store it whole.
        device: of the frames; everything else is small and stays on the host.

    Raises:
        UserError: the capacity is so small that there may be no row at which a window can start, or far too large.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        obs_shape: tuple[int, ...],
        obs_dtype: npt.DTypeLike,
        action_shape: tuple[int, ...] = (),
        action_dtype: npt.DTypeLike = np.int64,
        stack: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.rows = capacity // num_envs  # of each ring
        self.num_envs, self.stack = num_envs, stack
        if self.rows < stack + 1:  # a stack of frames, and the row after it
            raise UserError(f"replay.capacity: must be at least {num_envs * (stack + 1)} here, got {capacity}")
        try:
            self._allocate(obs_shape, obs_dtype, action_shape, action_dtype, device)
        except (MemoryError, OverflowError, ValueError) as e:
            raise UserError(f"replay.capacity: {capacity:,} rows are more than can be addressed; use fewer") from e
        self.action_mask: BoolArray | None = None  # (rows, N, A) allowed actions of each row; None: all
        self.written = np.zeros(num_envs, dtype=np.int64)  # rows ever written to each ring
        self.episode_over = np.ones(num_envs, dtype=np.bool_)  # the newest row is final: a first row comes next

    def _allocate(
        self,
        obs_shape: tuple[int, ...],
        obs_dtype: npt.DTypeLike,
        action_shape: tuple[int, ...],
        action_dtype: npt.DTypeLike,
        device: torch.device | None,
    ) -> None:
        shape = (self.rows, self.num_envs)
        frame_shape = obs_shape[1:] if self.stack > 1 else obs_shape
        self.frames: HostFrames | DeviceFrames = (
            HostFrames(shape + frame_shape, obs_dtype)
            if device is None or device.type == "cpu"
            else DeviceFrames(shape + frame_shape, obs_dtype, device)
        )
        self.action = np.zeros(shape + action_shape, dtype=action_dtype)
        self.reward = np.zeros(shape, dtype=np.float32)
        self.has_action = np.zeros(shape, dtype=np.bool_)
        self.terminal = np.zeros(shape, dtype=np.bool_)
        self.age = np.zeros(shape, dtype=np.int32)  # steps since the episode's first row

    @property
    def id_bound(self) -> int:
        """All rows written so far have ids below this."""
        return int(min(self.written.max(), self.rows)) * self.num_envs

    @property
    def newest(self) -> IntArray:
        """Ids (N,) of the newest row of each ring, which has no action yet."""
        return (self.written - 1) % self.rows * self.num_envs + np.arange(self.num_envs)

    @property
    def nbytes(self) -> int:
        """Memory of the rows in bytes."""
        return self.frames.nbytes + sum(a.nbytes for a in self._arrays().values())

    def add(self, tr: Transition) -> IntArray:
        """Store one step of every environment.

        Returns:
            (N,) ids of the rows that hold the actions.
        """
        env = np.arange(self.num_envs)
        if self.action_mask is None and tr.next_action_mask is not None:
            what = f"replay.capacity: the masks of {tr.next_action_mask.shape[1]:,} actions, for each row,"
            memory.require(what, self.rows * tr.next_action_mask.size, "choose a smaller one")
            self.action_mask = np.ones((self.rows, *tr.next_action_mask.shape), dtype=np.bool_)
        if self.episode_over.any():
            first = np.flatnonzero(self.episode_over)
            self._write(first, tr.obs[first], np.zeros(len(first), dtype=np.int32), tr.action_mask)
        row = (self.written - 1) % self.rows
        self.action[row, env] = tr.action
        self.reward[row, env] = tr.reward
        self.terminal[row, env] = tr.terminal
        self.has_action[row, env] = True
        self._write(env, tr.next_obs, self.age[row, env] + 1, tr.next_action_mask)
        self.episode_over = tr.ended.copy()
        return row * self.num_envs + env

    def cut(self, mask: BoolArray) -> None:
        """End the episodes of the environments in `mask` (N,) at their newest row, as a truncation does."""
        self.episode_over |= mask

    def startable(self, ids: IntArray) -> BoolArray:
        """Return (B,) whether a window can start at rows: they have an action, and their frame stack is complete."""
        row, env = np.divmod(ids, self.num_envs)
        written = self.written[env]
        oldest = np.where(written > self.rows, written % self.rows, 0)
        behind = (row - oldest) % self.rows  # number of older rows in this ring
        needed = np.minimum(self.age[row, env], self.stack - 1)
        return self.has_action[row, env] & (behind >= needed)

    def obs(self, ids: IntArray) -> Array | Tensor:
        """Gather observations (B, *O) and rebuild frame stacks; frames before the start of an episode are zero."""
        row, env = np.divmod(ids, self.num_envs)
        if self.stack == 1:
            return self.frames.take(row, env)
        back = np.arange(self.stack - 1, -1, -1)  # oldest frame first
        rows = (row[:, None] - back) % self.rows  # (B, stack)
        return self.frames.take_stacks(rows, env[:, None], blank=back > self.age[row, env][:, None])

    def window(self, ids: IntArray, n: int) -> Window:
        """Gather up to n steps from rows that are `startable`.

        A window ends early at a terminal step, at the final row of an episode and at the newest row.
        """
        row, env = np.divmod(ids, self.num_envs)
        rows = (row[:, None] + np.arange(n)) % self.rows  # (B, n)
        column = env[:, None]
        # Step k > 0 is in the window if step k-1 is and did not end in a terminal state, and row k has an action.
        goes_on = self.has_action[rows[:, 1:], column] & ~self.terminal[rows[:, :-1], column]
        inside = np.ones(rows.shape, dtype=np.bool_)
        inside[:, 1:] = np.logical_and.accumulate(goes_on, axis=1)
        length = inside.sum(axis=1)
        reward = np.where(inside, self.reward[rows, column], np.float32(0))
        last = (row + length - 1) % self.rows
        next_ids = (row + length) % self.rows * self.num_envs + env
        return Window(reward, length, self.terminal[last, env], next_ids)

    def after(self, ids: IntArray, steps: int | IntArray) -> IntArray:
        """Return the ids (B,) of the rows that were written `steps` steps after rows `ids` (B,)."""
        row, env = np.divmod(ids, self.num_envs)
        return np.asarray((row + steps) % self.rows * self.num_envs + env)

    def steps_left(self, ids: IntArray) -> IntArray:
        """Return (B,) the number of steps from rows to the last row of their episodes that is stored."""
        row, env = np.divmod(ids, self.num_envs)
        left, going = np.zeros(len(ids), dtype=np.int64), np.arange(len(ids))
        block = LOOKAHEAD
        while going.size:
            rows = (row[going] + left[going])[:, None] + np.arange(block)
            acts = np.logical_and.accumulate(self.has_action[rows % self.rows, env[going, None]], axis=1)
            left[going] += acts.sum(axis=1)
            going, block = going[acts[:, -1]], 2 * block
        return left

    def allowed(self, ids: IntArray) -> BoolArray | None:
        """Gather the masks of allowed actions (B, A); None: all actions are allowed everywhere."""
        return None if self.action_mask is None else self.action_mask[np.divmod(ids, self.num_envs)]

    def _write(self, env: IntArray, obs: Array, age: npt.NDArray[np.int32], action_mask: BoolArray | None) -> None:
        row = self.written[env] % self.rows
        self.frames.put(row, env, obs[:, -1] if self.stack > 1 else obs)
        self.age[row, env] = age
        self.has_action[row, env] = False
        if self.action_mask is not None:
            self.action_mask[row, env] = True if action_mask is None else action_mask[env]
        self.written[env] += 1

    def _arrays(self) -> dict[str, Array]:
        names = ("action", "reward", "has_action", "terminal", "age", "action_mask")
        return {name: array for name in names if (array := getattr(self, name)) is not None}

    def state_dict(self) -> State:
        """Return the rows written so far (views where they are on the host) and where each ring stands."""
        filled = self.id_bound // self.num_envs
        rows = {"frame": self.frames.first(filled), **{k: array[:filled] for k, array in self._arrays().items()}}
        return {"rows": rows, "written": self.written.copy(), "episode_over": self.episode_over.copy()}

    def load_state_dict(self, state: State) -> None:
        """Restore the rows. Raise ValueError if they do not fit.

        A larger capacity is allowed only if the saved rings had not wrapped: wrapped positions depend on the capacity.
        """
        wrapped = state["written"].max() > len(state["rows"]["frame"])
        masks = state["rows"].get("action_mask")
        self.action_mask = None if masks is None else np.ones((self.rows, *masks.shape[1:]), dtype=np.bool_)
        arrays = self._arrays()
        for name, own in {"frame": self.frames, **arrays}.items():
            saved = state["rows"][name]
            same_kind = saved.shape[1:] == own.shape[1:] and saved.dtype == own.dtype
            if not same_kind or len(saved) > self.rows or (wrapped and len(saved) != self.rows):
                raise ValueError(
                    f"replay {name}: saved {saved.shape} {saved.dtype}, configured {own.shape} {own.dtype}"
                )
        self.frames.load(state["rows"]["frame"])
        for name, array in arrays.items():
            array[: len(state["rows"][name])] = state["rows"][name]
        self.has_action[len(state["rows"]["has_action"]) :] = False
        self.written, self.episode_over = state["written"].copy(), state["episode_over"].copy()
