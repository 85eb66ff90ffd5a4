"""Some random steps of an environment, and the same steps again: what they show."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env

from rl_runner import masks, rng
from rl_runner.envs.spaces import first_action
from rl_runner.envs.vector import Backend, Step
from rl_runner.networks.inputs import looks_like_image
from rl_runner.run.terminal import counted
from rl_runner.types import Array, State, UserError, one_line

STEPS = 1_000
LEFT_OUT = (  # advice of Gymnasium's checker that does not hold here, or is about drawing
    "we recommend using a symmetric and normalized space",  # rlrun scales continuous actions itself
    "we recommend using a symmetric and normalized Box action space",
    "A Box observation space maximum and minimum values are equal",
    "value is infinity",  # ±inf is a bound as good as others; what is really seen is checked below
    "value is -infinity",
    "render",
    "not have a spec",
    "is not in the observation space",  # said below, with the number
    "is not within the observation space",
)


@dataclass
class Probe:
    """What some random steps of an environment have shown.

    Attributes:
        name: of the environment.
        cfg: the configuration of the run.
        dtype: of the environment's own observations, before rlrun stores them.
        stored: type in which they are stored.
        scaled: the network knows the observations' scale: they are images, or it normalises them.
        low, high: smallest and largest number of each component; empty before the first observation.
        rewards: one per step.
        lengths: of the episodes that ended.
        limited: the environment has a time limit of its own, or env.max_steps is set.
        infinite: where an observation or a reward was not finite, in words.
        outside: where an observation left its space, in words.
        differs: where the same seed and actions gave something else, in words.
        stopped: what rlrun's own checks would stop training with.
        wrong: what Gymnasium's checker found.
    """

    name: str
    cfg: State
    dtype: str = ""
    stored: str = ""
    scaled: bool = False
    low: Array = field(default_factory=lambda: np.empty(0))
    high: Array = field(default_factory=lambda: np.empty(0))
    rewards: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    limited: bool = True
    infinite: str = ""
    outside: str = ""
    differs: str = ""
    stopped: str = ""
    wrong: list[str] = field(default_factory=list)

    def facts(self) -> list[tuple[str, str]]:
        """Return what was seen, as rows of a table."""
        rewards = [reward for reward in self.rewards if np.isfinite(reward)] or [0.0]
        seen = self.dtype if self.dtype == self.stored else f"{self.dtype}, stored as {self.stored},"
        if self.low.size:
            seen += f" in [{self.low.min():.4g}, {self.high.max():.4g}]"
        zeros = sum(reward == 0 for reward in rewards) / len(rewards)
        ended = f"{counted(len(self.lengths), 'episode')} ended" if self.lengths else "no episode ended"
        mean = f", after {sum(self.lengths) / len(self.lengths):.0f} steps on average" if self.lengths else ""
        return [
            ("probed", f"{counted(len(self.rewards), 'random step')}: {ended}{mean}"),
            ("", f"observations {seen}"),
            ("", f"rewards in [{min(rewards):.4g}, {max(rewards):.4g}], {zeros:.0%} of them 0"),
        ]


def probe(make: Callable[[], Backend], raw: Callable[[], gym.Env[Any, Any]] | None, cfg: State) -> Probe:
    """Take random steps in an environment, and the same ones again in another one.

    The episodes are played again in the opposite order. So it is seen whether an episode depends on its seed and
    actions alone, or on what was before it.

    Args:
        make: makes one environment as training has it.
        raw: makes it as Gymnasium has it, for Gymnasium's own checker; None: it has no such form.
        cfg: the configuration of the run.
    """
    found = Probe("", cfg)
    if raw:
        _ask_gymnasium(raw, found)
    try:
        backend = make()
        found.name = backend.name
        episodes = _play(backend, found)
        backend.close()
        again = make()
        found.differs = _compare(again, episodes)
        again.close()
    except UserError as e:  # what training would stop with
        found.stopped = str(e)
    return found


def _ask_gymnasium(raw: Callable[[], gym.Env[Any, Any]], found: Probe) -> None:
    """Note what Gymnasium's checker says."""
    env = raw()
    found.dtype = str(env.observation_space.dtype or type(env.observation_space).__name__)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_env(env.unwrapped, skip_render_check=True, skip_close_check=True)
        except Exception as e:  # it raises many kinds, and so may the environment
            found.wrong.append(one_line(e) or type(e).__name__)
    for text in dict.fromkeys(" ".join(_bare(str(warning.message)).split()) for warning in caught):
        if not any(part in text for part in LEFT_OUT):
            found.wrong.append(text)
    env.close()


def _bare(message: str) -> str:
    """Return a warning of Gymnasium without its colour and its "WARN: "."""
    return message.replace("\x1b[33m", "").replace("\x1b[0m", "").removeprefix("WARN: ")


Played = tuple[int, list[Any], list[str]]  # an episode: its seed, its actions, what each step gave


def _play(backend: Backend, found: Probe) -> list[Played]:
    """Take random steps; note what they show. Return the episodes."""
    stream, all_of_it = rng.generator(0, "doctor"), np.ones(1, dtype=np.bool_)
    backend.action_space.seed(0)
    offset = first_action(backend.action_space)
    first = 0 if offset is None else offset  # agents count actions from 0
    space = backend.observation_space
    found.stored, found.scaled = str(space.dtype), looks_like_image(space) or backend.normalized
    found.dtype = found.dtype or found.stored
    found.limited = backend.protocol.get("max_steps") is None or found.cfg["env"].get("max_steps") is not None
    episodes: list[Played] = []
    ended = True
    for step in range(STEPS):
        if ended:
            seed = rng.integer(0, "doctor", len(episodes))
            episodes.append((seed, [], []))
            _observe(backend.reset(all_of_it, [seed]), space, found, step)
        mask = backend.action_mask
        if mask is None:
            action = backend.action_space.sample() - first
        else:
            action = masks.draw(mask[0], backend.action_space, stream)
        taken = _step(backend, action)
        _observe(taken.obs, space, found, step + 1)
        reward, ended = float(taken.reward[0]), bool(taken.terminated[0] or taken.truncated[0])
        if not np.isfinite(reward) and not found.infinite:
            found.infinite = f"the reward {reward} at step {step + 1:,}"
        found.rewards.append(reward)
        episodes[-1][1].append(action)
        episodes[-1][2].append(_digest(taken))
        if ended:
            found.lengths.append(len(episodes[-1][1]))
    return episodes


def _compare(backend: Backend, episodes: list[Played]) -> str:
    """Play episodes again, the last one first; return where one goes another way, in words."""
    for number, (seed, actions, digests) in reversed(list(enumerate(episodes, 1))):
        backend.reset(np.ones(1, dtype=np.bool_), [seed])
        for step, (action, digest) in enumerate(zip(actions, digests, strict=True), 1):
            if _digest(_step(backend, action)) != digest:
                return f"step {step:,} of episode {number:,}"
    return ""


def _step(backend: Backend, action: Any) -> Step:
    backend.send(np.asarray(action, dtype=backend.action_space.dtype)[None])
    return backend.recv()


def _digest(step: Step) -> str:
    parts = (step.obs, step.reward, step.terminated, step.truncated)
    return hashlib.blake2b(b"".join(np.ascontiguousarray(part).tobytes() for part in parts), digest_size=8).hexdigest()


def _observe(obs: Array, space: Any, found: Probe, step: int) -> None:
    """Note the range of an observation (1, *O), and whether it is finite and in its space."""
    one = np.asarray(obs[0], dtype=np.float64)
    if not np.isfinite(one).all():
        found.infinite = found.infinite or f"an observation with {one[~np.isfinite(one)].flat[0]} at step {step:,}"
        return
    found.low = np.minimum(found.low, one) if found.low.size else one
    found.high = np.maximum(found.high, one) if found.high.size else one
    if isinstance(space, gym.spaces.Box) and not found.outside:
        slack = 1e-5 * np.maximum(np.abs(one), 1.0)  # float32 rounds
        beyond = (one < space.low - slack) | (one > space.high + slack)
        if beyond.any():
            where = tuple(int(i) for i in np.argwhere(beyond)[0])
            bounds = f"[{space.low[where]:g}, {space.high[where]:g}]"
            found.outside = f"{one[where]:.4g} at step {step:,}, where its observation_space has {bounds}"
