"""An episode's seed and actions are enough to draw it again."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from rl_runner.envs.atari import AtariBackend
from rl_runner.envs.gym import GymBackend
from rl_runner.screen.playback import Shown, playback
from rl_runner.types import Array


def play(backend: Any, seed: int) -> list[int]:
    """Play an episode at random and give its actions."""
    rng = np.random.default_rng(0)
    backend.reset(np.ones(1, dtype=np.bool_), [seed])
    actions: list[int] = []
    while True:
        actions.append(int(rng.integers(backend.action_space.n)))
        backend.send(np.array(actions[-1:]))
        step = backend.recv()
        if step.terminated[0] or step.truncated[0]:
            return actions


def seen(shown: Iterable[Shown]) -> list[Array]:
    return [frame for step in shown for frame in step.frames]


def test_playback_gives_every_frame_of_the_emulator() -> None:
    actions = play(AtariBackend("pong", sticky=0.25, max_frames=400), seed=7)
    backend = AtariBackend("pong", sticky=0.25, max_frames=400, render=True)
    frames = seen(playback(backend, 7, actions))
    assert 1 + 4 * (len(actions) - 1) < len(frames) <= 1 + 4 * len(actions)  # the last step may be cut short
    assert {(f.shape, f.dtype) for f in frames} == {((210, 160, 3), np.dtype(np.uint8))}
    moved = [not np.array_equal(a, b) for a, b in itertools.pairwise(frames[200:])]
    assert np.mean(moved) > 0.4  # each is a frame of its own, not one shown four times

    played_again = seen(playback(backend, 7, actions))
    np.testing.assert_array_equal(frames, played_again)
    assert not np.array_equal(frames[-1], seen(playback(backend, 8, actions))[-1])


def test_playback_of_an_abandoned_episode_begins_anew() -> None:
    actions = play(AtariBackend("pong", max_frames=200), seed=7)
    backend = AtariBackend("pong", max_frames=200, render=True)
    frames = seen(playback(backend, 7, actions))
    half = playback(backend, 3, actions)
    for _ in range(20):
        next(half)
    np.testing.assert_array_equal(seen(playback(backend, 7, actions)), frames)


def test_playback_of_cartpole() -> None:
    actions = play(GymBackend("CartPole-v1"), seed=5)
    backend = GymBackend("CartPole-v1", render=True)
    frames = seen(playback(backend, 5, actions))
    assert len(frames) == len(actions) + 1  # one a step, and the one after the reset
    assert frames[0].shape == (400, 600, 3)
    assert not np.array_equal(frames[0], frames[-1])
    np.testing.assert_array_equal(frames, seen(playback(backend, 5, actions)))


def test_playback_gives_rewards_and_the_end() -> None:
    actions = play(GymBackend("CartPole-v1"), seed=5)
    backend = GymBackend("CartPole-v1", render=True)
    shown = list(playback(backend, 5, actions))
    assert [step.reward for step in shown] == [0.0] + [1.0] * len(actions)  # CartPole pays 1 a step
    assert [step.ended for step in shown] == [False] * len(actions) + [True]
    assert not list(playback(backend, 5, actions[:-1]))[-1].ended


def test_playback_stops_where_the_episode_ends() -> None:
    actions = play(GymBackend("CartPole-v1"), seed=5)
    assert len(list(playback(GymBackend("CartPole-v1", render=True), 5, [*actions, 0, 1, 0]))) == len(actions) + 1


def test_playback_wants_one_environment() -> None:
    with pytest.raises(ValueError, match="one environment"):
        next(playback(GymBackend("CartPole-v1", num_envs=2, render=True), 0, [0]))
