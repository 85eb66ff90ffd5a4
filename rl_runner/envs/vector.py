"""N environments stepped together, with the bookkeeping that makes an episode a pure function of (seed, actions).

A *backend* (`gym.py`, `atari.py`) knows how to reset with seeds, to step and to draw. `EpisodicVectorEnv` is the same
for all: it deals out the seeds, logs the actions, sums the rewards, and from its log of a few bytes a step it can put
any environment back into the middle of its episode, which is what makes exact resume cheap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from rl_runner import rng
from rl_runner.mdp import MDP
from rl_runner.types import Array, BoolArray, Episode, FloatArray, State, Transition, UserError


class Step(NamedTuple):
    """What a backend's step gives, before it becomes a `Transition`."""

    obs: Array  # (N, *O) newly allocated: it is kept
    reward: FloatArray  # (N,)
    terminated: BoolArray  # (N,)
    truncated: BoolArray  # (N,)
    life_lost: BoolArray  # (N,)


class Backend(Protocol):
    """N environments as a library offers them. Ended ones are always reset before the next send."""

    name: str
    num_envs: int
    observation_space: Any  # of one environment
    action_space: Any  # of one environment
    stack: int  # how many frames are stacked along the first axis of an observation; 1: no stacking
    fps: float  # of `frames`
    protocol: dict[str, Any]  # what a reader of a score must know, e.g. sticky actions and frame skip

    def reset(self, mask: BoolArray, seeds: Sequence[int]) -> Array: ...  # seeds: one per environment, used where mask
    def send(self, action: Array) -> None: ...
    def recv(self) -> Step: ...
    def frames(self) -> list[Array]: ...  # colour frames (H, W, 3) of environment 0 since the last call
    def mdp(self) -> MDP | None: ...  # the dynamics of one environment, where they are known; UserError: they are wrong
    def close(self) -> None: ...


class EpisodicVectorEnv:
    """The environments of a run: seeded episode by episode, logged, restorable.

    The seed of episode k of environment i depends on (run seed, stream, i, k) alone. Training and evaluation use
    different streams, so neither can touch the other.
    """

    def __init__(self, backend: Backend, seed: int, stream: str) -> None:
        self.backend, self.seed, self.stream = backend, seed, stream
        self.num_envs = backend.num_envs
        self.observation_space, self.action_space = backend.observation_space, backend.action_space
        self.stack = backend.stack
        self.finished: list[Episode] = []  # the episodes that ended in the last step
        self.lost = np.zeros(self.num_envs, dtype=np.bool_)  # could not be put back by load_state_dict
        self._episode = np.full(self.num_envs, -1, dtype=np.int64)
        self._return = np.zeros(self.num_envs, dtype=np.float64)
        self._log: list[list[Any]] = [[] for _ in range(self.num_envs)]
        self._obs: Array = np.empty(0)
        self._action: Array = np.empty(0)

    def reset(self, mask: BoolArray | None = None) -> Array:
        """Start the next episode of the environments in `mask` (N,), of all without one.

        Returns:
            (N, *O) the current observations of all environments.
        """
        if mask is None:
            mask = np.ones(self.num_envs, dtype=np.bool_)
        self._episode += mask
        self._return[mask] = 0.0
        for i in np.flatnonzero(mask):
            self._log[i] = []
        self._obs = self.backend.reset(mask, self._seeds())
        return self._obs

    def send(self, action: Array) -> None:
        """Begin a step with actions (N, *D). No environment may stand at the end of an episode."""
        self._action = action
        for log, a in zip(self._log, action.tolist(), strict=True):
            log.append(a)
        self.backend.send(action)

    def recv(self) -> Transition:
        """Finish the step that `send` began. Episodes that it ended stand in `finished`."""
        step = self.backend.recv()
        self._return += step.reward
        tr = Transition(self._obs, self._action, step.reward, step.terminated, step.truncated, step.life_lost, step.obs)
        self._obs = step.obs
        ended = tr.ended
        self.finished = [self._finished(int(i)) for i in np.flatnonzero(ended)] if ended.any() else []
        return tr

    def close(self) -> None:
        """Free what the environments hold."""
        self.backend.close()

    def state_dict(self) -> State:
        """Give, for each environment, which episode it is in, its actions since, and a digest of what it shows."""
        return {
            "episode": self._episode.copy(),
            "return": self._return.copy(),
            "length": np.array([len(log) for log in self._log], dtype=np.int64),
            "actions": np.array([a for log in self._log for a in log]),
            "digest": [_digest(o) for o in self._obs],
        }

    def load_state_dict(self, state: State) -> Array:
        """Play the logged episodes again, up to where they stood. Environments that differ then are `lost`.

        Returns:
            (N, *O) the current observations.

        Raises:
            UserError: if the state is of another number of environments.
        """
        if len(state["episode"]) != self.num_envs:
            raise UserError(
                f"env.num_envs: the checkpoint has {len(state['episode'])} environments, "
                f"the configuration {self.num_envs}"
            )
        self._episode = state["episode"].copy()
        ends = np.cumsum(state["length"])
        self._log = [state["actions"][end - n : end].tolist() for n, end in zip(state["length"], ends, strict=True)]
        self._obs, self._return = self._play_again()
        same = [_digest(o) == d for o, d in zip(self._obs, state["digest"], strict=True)]
        self.lost = ~np.array(same) | (self._return != state["return"])
        return self._obs

    def _play_again(self) -> tuple[Array, npt.NDArray[np.float64]]:
        """Step all environments together so that all logs end at the same time; earlier steps are idle ones."""
        length = np.array([len(log) for log in self._log])
        total, seeds = int(length.max()), self._seeds()
        idle_action = np.zeros(self.action_space.shape, dtype=self.action_space.dtype).tolist()
        obs = self.backend.reset(np.ones(self.num_envs, dtype=np.bool_), seeds)
        returns = np.zeros(self.num_envs, dtype=np.float64)
        ended = np.zeros(self.num_envs, dtype=np.bool_)
        for t in range(total + 1):
            behind = total - t  # steps still to come; an environment begins when just its log is left
            restart = (length == behind) | ended
            if t > 0 and restart.any():
                obs = self.backend.reset(restart, seeds)
                returns[restart] = 0.0
            if behind == 0:
                break
            actions = [log[-behind] if behind <= len(log) else idle_action for log in self._log]
            self.backend.send(np.array(actions, dtype=self.action_space.dtype))
            step = self.backend.recv()
            obs, ended = step.obs, step.terminated | step.truncated
            returns += step.reward
        return obs, returns

    def _seeds(self) -> list[int]:
        return [rng.integer(self.seed, self.stream, i, max(int(k), 0)) for i, k in enumerate(self._episode)]

    def _finished(self, i: int) -> Episode:
        seed = rng.integer(self.seed, self.stream, i, int(self._episode[i]))
        return Episode(i, seed, float(self._return[i]), len(self._log[i]), self._log[i])


def _digest(obs: Array) -> str:
    return hashlib.blake2b(np.ascontiguousarray(obs).tobytes(), digest_size=8).hexdigest()
