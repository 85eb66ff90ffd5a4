"""Atari games on ale-py's native vector environment: the preprocessing of Mnih et al. 2015 at emulator speed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
from ale_py import Action, roms
from ale_py.vector_env import AtariVectorEnv

from rl_runner.envs.vector import Step
from rl_runner.types import Array, BoolArray, UserError

FRAMES_PER_SECOND = 60


class AtariBackend:
    """N copies of an Atari game. Observations are (stack, size, size) uint8 of max-pooled grayscale frames.

    Rewards are not clipped. A lost life sets `no_bootstrap`, it does not end the episode.

    Args:
        game: name of the ROM in ale-py, for example "ms_pacman".
        num_envs: number of environments.
        sticky: probability that the emulator repeats the previous action on a frame (Machado et al. 2018: 0.25).
        frame_skip: frames per step.
        screen_size: height and width of an observation.
        stack: frames in an observation.
        noop_max: up to this many no-op frames at the start of an episode.
        fire_reset: press FIRE at the start if the game has it.
        fire_each_life: press FIRE after each lost life too, in place of the agent's next action. Otherwise the agent
            must learn to start each life, and a policy gradient may learn that alone: FIRE in every state.
        life_loss: set `no_bootstrap` when a life is lost.
        point_ends: set `no_bootstrap` in each step with a reward. In games like Pong, where each point is a separate
            rally, the rewards after a point do not depend on the actions before it.
        full_action_space: all 18 actions instead of the game's own.
        max_frames: an episode is truncated after this many frames, in whole steps (108,000 = 30 minutes).
        threads: emulator threads; 0 lets ale-py choose.
        render: run a second emulator that draws colour frames, for `frames`.

    Raises:
        UserError: the game is unknown, or a number is out of range.
    """

    def __init__(
        self,
        game: str,
        num_envs: int = 1,
        sticky: float = 0.0,
        frame_skip: int = 4,
        screen_size: int = 84,
        stack: int = 4,
        noop_max: int = 30,
        fire_reset: bool = True,
        fire_each_life: bool = False,
        life_loss: bool = True,
        point_ends: bool = False,
        full_action_space: bool = False,
        max_frames: int = 108_000,
        threads: int = 0,
        render: bool = False,
    ) -> None:
        _check_game(game)
        if not 0.0 <= sticky < 1.0:
            raise UserError(f"env.sticky: must be a probability in [0, 1), got {sticky}")
        sizes = {"frame_skip": frame_skip, "screen_size": screen_size, "stack": stack, "max_frames": max_frames}
        for key, value in sizes.items():
            if value < 1:
                raise UserError(f"env.{key}: must be at least 1, got {value}")
        for key, value in [("noop_max", noop_max), ("threads", threads)]:
            if value < 0:
                raise UserError(f"env.{key}: must be 0 or more, got {value}")
        emulator: dict[str, Any] = {
            "repeat_action_probability": sticky,
            "full_action_space": full_action_space,
            # Never reached: at its own limit ale-py returns an older screen than the last, so `recv` truncates.
            "max_num_frames_per_episode": max_frames + frame_skip,
            "noop_max": noop_max,
            "use_fire_reset": fire_reset,
            "reward_clipping": False,
        }
        self._envs = AtariVectorEnv(
            game,
            num_envs,
            frameskip=frame_skip,
            stack_num=stack,
            img_height=screen_size,
            img_width=screen_size,
            num_threads=threads,
            **emulator,
        )
        self.name = game
        self.num_envs = num_envs
        self.observation_space = self._envs.single_observation_space
        self.action_space: Any = self._envs.single_action_space
        self.stack = stack
        self.action_mask, self.normalized, self.notes = None, False, list[str]()
        self.fps = float(FRAMES_PER_SECOND)
        self.protocol = {"sticky": sticky, "frame_skip": frame_skip, "noop_max": noop_max, "max_frames": max_frames}
        usual = {"fire_reset": True, "fire_each_life": False, "full_action_space": False}  # not in older results
        here = {"fire_reset": fire_reset, "fire_each_life": fire_each_life, "full_action_space": full_action_space}
        self.protocol |= {name: value for name, value in here.items() if value != usual[name]}
        self._frame_skip, self._life_loss, self._point_ends = frame_skip, life_loss, point_ends
        actions = list(self._envs.ale.get_action_set())
        self._fire = actions.index(Action.FIRE) if fire_each_life and Action.FIRE in actions else None
        self._lost = np.zeros(num_envs, dtype=np.bool_)  # a life, in the step before
        self._max_steps = -(-max_frames // frame_skip)
        self._steps = np.zeros(num_envs, dtype=np.int64)  # in the running episodes
        self._lives = np.zeros(num_envs, dtype=np.int32)
        # The second emulator draws every frame in colour. With the same seeds, and each action frame_skip times, it
        # stays equal to the first, sticky actions included.
        self._twin = _twin(game, emulator) if render else None
        self._action = np.zeros(num_envs, dtype=np.int64)
        self._frames: list[Array] = []

    def reset(self, mask: BoolArray, seeds: Sequence[int]) -> Array:
        """See `Backend`."""
        chosen = np.asarray(seeds, dtype=np.int64)[mask]
        obs, info = self._envs.reset(seed=chosen, options={"reset_mask": mask})
        self._lives = info["lives"]
        self._steps[mask], self._lost[mask] = 0, False
        if self._twin and mask[0]:
            self._frames.append(self._twin.reset(seed=chosen[:1])[0][0, 0])
        return np.asarray(obs)

    def send(self, action: Array) -> None:
        """See `Backend`.

        Raises:
            ValueError: the game does not have the action (the emulator would hang).
        """
        if action.min() < 0 or action.max() >= self.action_space.n:
            raise ValueError(f"actions must be in [0, {self.action_space.n}), got {action}")
        self._action = action if self._fire is None else np.where(self._lost, self._fire, action)
        self._envs.send(self._action)

    def recv(self) -> Step:
        """See `Backend`."""
        obs, reward, terminated, _, info = self._envs.recv()
        self._steps += 1
        truncated = (self._steps >= self._max_steps) & ~terminated
        lives = info["lives"]
        self._lost = lives < self._lives
        no_bootstrap = (self._lost & self._life_loss) | ((reward != 0) & self._point_ends)
        self._lives = lives
        if self._twin:
            self._follow(self._twin)
        return Step(obs, reward.astype(np.float64), terminated, truncated, no_bootstrap)

    def frames(self) -> list[Array]:
        """See `Backend`: every emulator frame, so `frame_skip` of them a step."""
        frames, self._frames = self._frames, []
        return frames

    def mdp(self) -> None:
        """See `Backend`: they are not known."""

    def goals(self) -> None:
        """See `Backend`: there are none."""

    def close(self) -> None:
        """See `Backend`."""
        self._envs.close()
        if self._twin:
            self._twin.close()

    def _follow(self, twin: AtariVectorEnv) -> None:
        for _ in range(self._frame_skip):
            obs, _, terminated, _, _ = twin.step(self._action[:1])
            self._frames.append(obs[0, 0])
            if terminated[0]:
                break


def _twin(game: str, emulator: dict[str, Any]) -> AtariVectorEnv:
    return AtariVectorEnv(
        game, 1, frameskip=1, stack_num=1, maxpool=False, grayscale=False, img_height=210, img_width=160, **emulator
    )


def _check_game(game: str) -> None:
    known = roms.get_all_rom_ids()
    if game not in known:
        near = difflib.get_close_matches(game.lower().replace("-", "_"), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
        raise UserError(f"env.game: {game!r} is not a game of ale-py; {hint}")
