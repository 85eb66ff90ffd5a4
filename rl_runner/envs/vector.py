"""N environments stepped together, with the bookkeeping that makes an episode a pure function of (seed, actions).

A *backend* (`gym.py`, `atari.py`) knows how to reset with seeds, to step and to draw. `EpisodicVectorEnv` is the same
for all: it assigns the seeds, logs the actions and sums the rewards. From its log of a few bytes per step it can
restore any environment in the middle of its episode, which makes exact resume cheap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from gymnasium.spaces import Box

from rl_runner import masks, rng
from rl_runner.envs.spaces import state_outside
from rl_runner.exact.mdp import MDP
from rl_runner.types import Array, BoolArray, DoubleArray, Episode, Goals, State, Transition, UserError, described

LARGEST = float(np.finfo(np.float32).max)  # networks learn in single precision
Answer = TypeVar("Answer")


class Step(NamedTuple):
    """The result of a backend's step, before it becomes a `Transition`."""

    obs: Array  # (N, *O) newly allocated: the caller keeps it
    reward: DoubleArray  # (N,)
    terminated: BoolArray  # (N,)
    truncated: BoolArray  # (N,)
    no_bootstrap: BoolArray  # (N,)
    info: Sequence[Mapping[str, float]] = ()  # N, numbers that the environments report; empty: none does


class Backend(Protocol):
    """N environments of a library. Environments whose episode ended are reset before the next `send`."""

    name: str
    num_envs: int
    observation_space: Any  # of one environment
    action_space: Any  # of one environment
    stack: int  # how many frames are stacked along the first axis of an observation; 1: no stacking
    action_mask: BoolArray | None  # (N, A) actions allowed in the current observations; None: all, always
    normalized: bool  # the agent must normalise observations
    notes: list[str]  # lines to show to the user
    fps: float  # of `frames`
    protocol: dict[str, Any]  # what scores depend on, e.g. sticky actions and frame skip

    def reset(self, mask: BoolArray, seeds: Sequence[int]) -> Array: ...  # seeds: one per environment, used where mask
    def send(self, action: Array) -> None: ...
    def recv(self) -> Step: ...
    def frames(self) -> list[Array]: ...  # colour frames (H, W, 3) of environment 0 since the last call
    def mdp(self) -> MDP | None: ...  # the dynamics of one environment if known; UserError: they are wrong
    def goals(self) -> Goals | None: ...  # of one environment, if it has some; UserError: they are wrong
    def close(self) -> None: ...


class Died(Exception):
    """The process of an environment has died."""

    def __init__(self, env: int, exit_code: int | None) -> None:
        super().__init__(env, exit_code)
        self.env, self.exit_code = env, exit_code


class EpisodicVectorEnv:
    """The environments of a run: seeded episode by episode, logged, restorable.

    The seed of episode k of environment i depends only on (run seed, stream, i, k). Training and evaluation use
    different streams, so neither affects the other.

    Raises:
        UserError: from `reset`, `send` and `recv`, if an action, an observation or a reward is not finite, a state is
            not in its space, no action is allowed, or the process of an environment died.
    """

    def __init__(self, backend: Backend, seed: int, stream: str) -> None:
        self.backend, self.seed, self.stream = backend, seed, stream
        self.num_envs = backend.num_envs
        self.observation_space, self.action_space = backend.observation_space, backend.action_space
        self.stack, self.normalized = backend.stack, backend.normalized
        self.frame_skip: int | None = backend.protocol.get("frame_skip")  # emulator frames per step; None: no emulator
        self.action_mask: BoolArray | None = None  # (N, A) actions allowed in the current observations; None: all
        self._choices = masks.sizes_of(self.action_space)  # of the masks
        self._discrete = not isinstance(self.observation_space, Box)
        self.finished: list[Episode] = []  # the episodes that ended in the last step
        self.lost = np.zeros(self.num_envs, dtype=np.bool_)  # could not be restored by load_state_dict
        self._episode = np.full(self.num_envs, -1, dtype=np.int64)
        self._return = np.zeros(self.num_envs, dtype=np.float64)
        self._log: list[list[Any]] = [[] for _ in range(self.num_envs)]
        self._obs: Array = np.empty(0)
        self._action: Array = np.empty(0)

    def reset(self, mask: BoolArray | None = None) -> Array:
        """Start the next episode of the environments in `mask` (N,); of all if it is None.

        Returns:
            (N, *O) the current observations of all environments.
        """
        if mask is None:
            mask = np.ones(self.num_envs, dtype=np.bool_)
        self._episode += mask
        self._return[mask] = 0.0
        for i in np.flatnonzero(mask):
            self._log[i] = []
        self._obs = self._answer(lambda: self.backend.reset(mask, self._seeds()))
        self._check_observations(self._obs)
        self.action_mask = self._allowed(np.zeros(self.num_envs, dtype=np.bool_))
        return self._obs

    def send(self, action: Array) -> None:
        """Begin a step with actions (N, *D). No environment may be at the end of an episode."""
        self._check_actions(action)
        self._action = action
        for log, a in zip(self._log, action.tolist(), strict=True):
            log.append(a)
        self._answer(lambda: self.backend.send(action))

    def recv(self) -> Transition:
        """Finish the step that `send` began. Episodes that it ended are in `finished`."""
        step = self._answer(self.backend.recv)
        self._check_rewards(step.reward)
        self._check_observations(step.obs)
        self._return += step.reward
        ended = step.terminated | step.truncated
        no_bootstrap = step.no_bootstrap
        if self.backend.action_mask is not None:  # a truncation after which no action is allowed has no value either
            no_bootstrap = no_bootstrap | (step.truncated & ~masks.possible(self.backend.action_mask, self._choices))
        before, self.action_mask = self.action_mask, self._allowed(ended)
        flags = (step.terminated, step.truncated, no_bootstrap)
        tr = Transition(self._obs, self._action, step.reward, *flags, step.obs, before, self.action_mask)
        self._obs = step.obs
        self.finished = [self._finished(int(i), step.info) for i in np.flatnonzero(ended)] if ended.any() else []
        return tr

    def repeats(self, episode: Episode) -> bool:
        """Replay an episode in its environment; return whether rewards, length and last observation are the same.

        All environments must be reset before they are used again.
        """
        self._log = [[] for _ in range(self.num_envs)]
        return self._answer(lambda: self._repeats(episode))

    def _repeats(self, episode: Episode) -> bool:
        i = episode.env
        self.backend.reset(np.ones(self.num_envs, dtype=np.bool_), [episode.seed] * self.num_envs)
        total, ended = 0.0, np.zeros(self.num_envs, dtype=np.bool_)
        for action in episode.actions:
            if ended[i]:
                return False
            if ended.any():
                self.backend.reset(ended, [episode.seed] * self.num_envs)
            mask = self.backend.action_mask
            if mask is not None and not masks.permits(mask[i : i + 1], np.array([action]), self._choices)[0]:
                return False
            actions = self._idle_actions()
            actions[i] = action
            self.backend.send(np.array(actions, dtype=self.action_space.dtype))
            step = self.backend.recv()
            total, ended = total + float(step.reward[i]), step.terminated | step.truncated
        return bool(ended[i]) and total == episode.total_reward and _digest(step.obs[i]) == episode.digest

    def close(self) -> None:
        """Close the environments. One that cannot be closed, which may be the user's own, is named and ends nothing."""
        try:
            self.backend.close()
        except Exception as e:
            print(f"env: {self.backend.name} cannot be closed: {described(e)}")

    def state_dict(self) -> State:
        """Return, for each environment, its episode, the actions since its start, and a digest of its observation."""
        return {
            "episode": self._episode.copy(),
            "return": self._return.copy(),
            "length": np.array([len(log) for log in self._log], dtype=np.int64),
            "actions": np.array([a for log in self._log for a in log]),
            "digest": [_digest(o) for o in self._obs],
        }

    def load_state_dict(self, state: State) -> Array:
        """Replay the logged episodes up to their last step. Environments that differ then are marked in `lost`.

        Returns:
            (N, *O) the current observations.

        Raises:
            UserError: the state has another number of environments.
        """
        if len(state["episode"]) != self.num_envs:
            raise UserError(
                f"env.num_envs: the checkpoint has {len(state['episode'])} environments, "
                f"the configuration {self.num_envs}"
            )
        self._episode = state["episode"].copy()
        ends = np.cumsum(state["length"])
        self._log = [state["actions"][end - n : end].tolist() for n, end in zip(state["length"], ends, strict=True)]
        self._obs, self._return, forbidden = self._answer(self._play_again)
        self.action_mask = self._allowed(np.zeros(self.num_envs, dtype=np.bool_))
        same = [_digest(o) == d for o, d in zip(self._obs, state["digest"], strict=True)]
        self.lost = ~np.array(same) | (self._return != state["return"]) | forbidden
        return self._obs

    def _play_again(self) -> tuple[Array, DoubleArray, BoolArray]:
        """Step all environments together so that all logs end at the same time; shorter logs begin with idle steps.

        Returns:
            observations, returns, and where an action is not allowed now that was taken then: an environment that is
            not deterministic is in another state.
        """
        length = np.array([len(log) for log in self._log])
        total, seeds = int(length.max()), self._seeds()
        obs = self.backend.reset(np.ones(self.num_envs, dtype=np.bool_), seeds)
        returns = np.zeros(self.num_envs, dtype=np.float64)
        ended, forbidden = np.zeros(self.num_envs, dtype=np.bool_), np.zeros(self.num_envs, dtype=np.bool_)
        for t in range(total + 1):
            behind = total - t  # steps left; an environment starts its episode when this is the length of its log
            restart = (length == behind) | ended
            if t > 0 and restart.any():
                obs = self.backend.reset(restart, seeds)
                returns[restart] = 0.0
            if behind == 0:
                break
            idle = self._idle_actions()
            actions = [log[-behind] if behind <= len(log) else idle[i] for i, log in enumerate(self._log)]
            if (mask := self.backend.action_mask) is not None:
                wrong = ~masks.permits(mask, np.array(actions), self._choices)
                forbidden |= wrong
                actions = [idle[i] if wrong[i] else action for i, action in enumerate(actions)]
            self.backend.send(np.array(actions, dtype=self.action_space.dtype))
            step = self.backend.recv()
            obs, ended = step.obs, step.terminated | step.truncated
            returns += step.reward
        return obs, returns, forbidden

    def _idle_actions(self) -> list[Any]:
        """Return an allowed action for each environment."""
        if self.backend.action_mask is not None:
            return masks.first(self.backend.action_mask, self.action_space)
        one = np.zeros(self.action_space.shape, dtype=self.action_space.dtype)
        if isinstance(self.action_space, Box):  # which need not hold 0
            one = np.clip(one, self.action_space.low, self.action_space.high)
        return [one.tolist()] * self.num_envs

    def _allowed(self, ended: BoolArray) -> BoolArray | None:
        """Return the masks of allowed actions (N, A). Where an episode ended, all are allowed: none will be taken."""
        mask = self.backend.action_mask
        if mask is None:
            return None
        none: BoolArray = np.logical_not(masks.possible(mask, self._choices))
        if (wrong := np.flatnonzero(none & ~ended)).size:
            raise UserError(f"env: {self.backend.name} allows no action {self._where(int(wrong[0]))}")
        return mask | none[:, None]

    def _check_actions(self, action: Array) -> None:
        if action.dtype.kind != "f" or np.logical_and.reduce(np.isfinite(action), axis=None):
            return
        i = int(np.argwhere(~np.isfinite(action))[0][0])
        value = action[i][~np.isfinite(action[i])].flat[0]
        raise UserError(
            f"optimizer.lr: the network has diverged (its action is {value} {self._where(i)}); use a smaller one"
        )

    def _check_rewards(self, reward: DoubleArray) -> None:
        if sum(map(abs, reward.tolist())) < LARGEST:  # faster than array operations
            return
        if (wrong := np.flatnonzero(~(np.abs(reward) < LARGEST))).size:
            i = int(wrong[0])
            raise UserError(f"env: {self.backend.name} returned the reward {reward[i]} {self._where(i)}")

    def _check_observations(self, obs: Array) -> None:
        if obs.dtype.kind == "f":
            if np.logical_and.reduce(np.isfinite(obs), axis=None):
                return
            i = int(np.argwhere(~np.isfinite(obs))[0][0])
            value = obs[i][~np.isfinite(obs[i])].flat[0]
            raise UserError(f"env: {self.backend.name} returned an observation that holds {value} {self._where(i)}")
        if self._discrete and (outside := state_outside(self.observation_space, obs)) is not None:
            raise UserError(
                f"env: {self.backend.name} returned the state {outside}, which is not in its observation_space "
                f"{self.observation_space}"
            )

    def _answer(self, ask: Callable[[], Answer]) -> Answer:
        """Call the backend; if one of its processes died, raise a UserError with the step and the episode."""
        try:
            return ask()
        except Died as e:
            raise UserError(
                f"env: the process of {self.backend.name} died with exit code {e.exit_code} {self._where(e.env)}"
            ) from e

    def _where(self, i: int) -> str:
        """Return the current step, episode and environment in words, for messages."""
        which = f" of environment {i}" if self.num_envs > 1 else ""
        return f"at step {len(self._log[i])} of episode {max(int(self._episode[i]), 0)}{which}"

    def _seeds(self) -> list[int]:
        return [rng.integer(self.seed, self.stream, i, max(int(k), 0)) for i, k in enumerate(self._episode)]

    def _finished(self, i: int, info: Sequence[Mapping[str, float]]) -> Episode:
        seed = rng.integer(self.seed, self.stream, i, int(self._episode[i]))
        done = float(self._return[i]), len(self._log[i]), self._log[i], _digest(self._obs[i])
        return Episode(i, seed, *done, info[i] if info else {})


def _digest(obs: Array) -> str:
    return hashlib.blake2b(np.ascontiguousarray(obs).tobytes(), digest_size=8).hexdigest()
