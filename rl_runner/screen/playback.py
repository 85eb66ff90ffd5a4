"""Replaying an episode from its seed and its actions, to draw it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rl_runner.screen.frames import PICTURE, NoPicture, as_rgb
from rl_runner.types import Array, UserError

if TYPE_CHECKING:
    from rl_runner.envs.vector import Backend


class Shown(NamedTuple):
    """Frames and outcome of the start of an episode or of one step."""

    frames: list[Array]  # (H, W, 3) uint8
    reward: float  # 0 at the start
    ended: bool


def playback(backend: Backend, seed: int, actions: Sequence[Any]) -> Iterator[Shown]:
    """Replay an episode from its seed and its actions, until it ends or no action is left.

    If the environment is not deterministic, the replay may be a different episode; compare its rewards and its end.

    Args:
        backend: one environment (num_envs=1) that draws (render=True).
        seed: the episode's seed.
        actions: the episode's actions, one per step.

    Yields:
        The start, then each step.

    Raises:
        UserError: a rendered value is not a picture.
    """
    if backend.num_envs != 1:
        raise ValueError(f"playback needs a backend of one environment, got {backend.num_envs}")
    backend.frames()  # discard the frames of an earlier episode
    backend.reset(np.ones(1, dtype=np.bool_), [seed])
    yield Shown(drawn(backend), 0.0, False)
    for action in actions:
        backend.send(np.array([action], dtype=backend.action_space.dtype))
        step = backend.recv()
        ended = bool(step.terminated[0] or step.truncated[0])
        yield Shown(drawn(backend), float(step.reward[0]), ended)
        if ended:
            return


def drawn(backend: Backend) -> list[Array]:
    """Return the frames (H, W, 3) uint8 that the environment drew since the last call.

    Raises:
        UserError: a rendered value is not a picture.
    """
    try:
        return [as_rgb(frame) for frame in backend.frames()]
    except NoPicture as e:
        raise UserError(f"env: {backend.name}: its render returns {e}; it must return {PICTURE}") from e
