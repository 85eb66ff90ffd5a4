"""Goals of environments: where they are, and that what is computed agrees with what was stepped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from rl_runner.envs.goals import copy_of, known
from rl_runner.envs.gym import GymBackend
from rl_runner.envs.making import make_env
from rl_runner.types import UserError


class Line(gym.Env[Any, Any]):
    """Walks on a line to a goal; it ends there. `wrong` names what does not agree with its steps."""

    action_space = Discrete(2)

    def __init__(self, wrong: str = "", part: Any = None, achieved: Any = None) -> None:
        goal = Box(-9, 9, (1,), np.float64) if part is None else part
        parts = {"observation": Box(-9, 9, (2,), np.float64), "desired_goal": goal, "achieved_goal": achieved or goal}
        self.observation_space, self.wrong = Dict(parts), wrong

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.at, self.goal = 0, int(self.np_random.integers(1, 5))
        return self._obs(), {}

    def step(self, action: int) -> Any:
        self.at = max(self.at + 2 * action - 1, -8)
        over = self.at == self.goal
        return self._obs(), float(not over) * -0.1, over, False, {}

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        if self.wrong == "raises":
            raise ValueError("no")
        distance = np.linalg.norm(achieved - desired, axis=None if self.wrong == "shape" else -1)
        return (distance > (1.5 if self.wrong == "reward" else 0.5)) * -0.1 + 0.0

    def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> Any:
        return bool(abs(achieved - desired)[0] < (1.5 if self.wrong == "terminated" else 0.5))

    def _obs(self) -> Any:
        at = np.array([float(self.at)])
        return {"observation": np.array([7.0, 8.0]), "desired_goal": np.array([float(self.goal)]), "achieved_goal": at}


gym.register("RlrunLine-v0", Line, max_episode_steps=20)


def made(wrappers: Any = (), **kwargs: Any) -> Callable[[], gym.Env[Any, Any]]:
    return partial(make_env, "RlrunLine-v0", "Line", kwargs, wrappers)


def test_positions_and_what_another_goal_would_have_paid() -> None:
    goals = known(made()(), "Line")
    assert goals is not None
    env = made()()
    obs, _ = env.reset(seed=0)
    assert obs[goals.achieved] == [0]
    assert obs[goals.desired] == env.unwrapped.goal
    achieved, desired = np.array([[1.0], [2.0]]), np.array([[1.0], [4.0]])
    assert goals.reward(achieved, desired).tolist() == [0, -0.1]
    assert goals.terminated is not None
    assert goals.terminated(achieved, desired).tolist() == [True, False]


def test_an_environment_need_not_tell_which_goals_end_an_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Line, "compute_terminated")
    goals = known(made()(), "Line")
    assert goals is not None
    assert goals.terminated is None


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ("reward", "Line: its compute_reward returns 0 where a step paid -0.1, in "),
        (
            "shape",
            "Line: its compute_reward must take arrays of goals (B, G) and return rewards (B,), here (100,), got ()",
        ),
        ("terminated", "Line: its compute_terminated differs from "),
        ("raises", "Line: its compute_reward or compute_terminated raised ValueError: no"),
    ],
)
def test_what_does_not_agree_with_the_steps_is_refused(wrong: str, line: str) -> None:
    with pytest.raises(UserError) as e:
        known(made(wrong=wrong)(), "Line")
    assert str(e.value).startswith(line)


class Twice(gym.Wrapper[Any, Any, Any, Any]):
    """Doubles rewards, without saying so."""

    def step(self, action: Any) -> Any:
        obs, reward, *rest = self.env.step(action)
        return obs, 2 * reward, *rest


def test_wrappers_that_change_rewards_are_noticed() -> None:
    double = partial(gym.wrappers.TransformReward, func=lambda reward: 2 * reward)
    with pytest.raises(
        UserError, match=r"^Line: its TransformReward changes rewards, which compute_reward does not know$"
    ):
        known(made([double])(), "Line")
    with pytest.raises(UserError, match=r"^Line: its compute_reward returns -0.1 where a step paid -0.2"):
        known(made([Twice])(), "Line")


def test_an_environment_that_can_be_made_once_is_refused() -> None:
    def fail() -> gym.Env[Any, Any]:
        raise RuntimeError("the port is in use")

    with pytest.raises(UserError, match=r"^Line cannot be made a second time: RuntimeError: the port is in use"):
        copy_of(fail, "Line")


def test_the_copy_is_closed_with_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(Line, "close", lambda self: closed.append(self))
    backend = GymBackend("RlrunLine-v0")
    assert backend.goals() is not None
    backend.goals()
    assert not closed
    backend.close()
    assert len(closed) == 2


class Counted(Line):
    """A line of whole numbers, and rewards that overflow if they are computed with bytes."""

    def __init__(self) -> None:
        super().__init__(part=Box(0, 9, (1,), np.int64))

    def step(self, action: int) -> Any:
        obs, _, over, truncated, info = super().step(action)
        return obs, float(-abs(self.at - self.goal)), over, truncated, info

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        achieved -= desired  # its arguments are its own
        return -np.abs(achieved).sum(axis=-1)

    def _obs(self) -> Any:
        self.at = max(self.at, 0)
        parts = {"desired_goal": np.array([self.goal]), "achieved_goal": np.array([self.at])}
        return {"observation": np.array([7.0, 8.0]), **parts}


def test_goals_are_computed_in_the_type_of_the_environment() -> None:
    gym.register("RlrunCounted-v0", Counted, max_episode_steps=20)
    goals = GymBackend("RlrunCounted-v0").goals()
    assert goals is not None
    one, two = np.array([[1]], np.uint8), np.array([[2]], np.uint8)
    assert goals.reward(one, two).tolist() == [-1]
    assert one.tolist() == [[1]]


class Picky(Line):
    """Allows one action in each state, and raises where the other one is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Dict({**self.observation_space.spaces, "action_mask": MultiBinary(2)})

    def step(self, action: int) -> Any:
        assert self._obs()["action_mask"][action]
        return super().step(action)

    def _obs(self) -> Any:
        allowed = int(self.at < 3)
        return {**super()._obs(), "action_mask": np.eye(2, dtype=np.int8)[allowed]}


def test_only_allowed_actions_are_tried() -> None:
    assert known(make_env("RlrunPicky-v0", "Picky", {}, ()), "Picky") is not None


class Broken(Line):
    """Raises in its third step."""

    def step(self, action: int) -> Any:
        if abs(self.at) == 2:
            raise RuntimeError("no power")
        return super().step(action)


def test_an_environment_that_raises_is_named() -> None:
    with pytest.raises(UserError, match=r"^Broken: a random step raised RuntimeError: no power$"):
        known(make_env("RlrunNoPower-v0", "Broken", {}, ()), "Broken")


gym.register("RlrunPicky-v0", Picky, max_episode_steps=20)
gym.register("RlrunNoPower-v0", Broken, max_episode_steps=20)


def test_environments_without_goals() -> None:
    assert GymBackend("CartPole-v1").goals() is None
    assert GymBackend("RlrunLine-v0", kwargs={"part": Box(-9, 9, (1, 1), np.float64)}).goals() is None
    assert GymBackend("RlrunLine-v0", kwargs={"achieved": Box(-9, 9, (3,), np.float64)}).goals() is None
    only = partial(gym.wrappers.FilterObservation, filter_keys=["observation", "desired_goal"])
    assert GymBackend("RlrunLine-v0", wrappers=[only]).goals() is None


def test_the_bits_to_flip_have_goals() -> None:
    goals = GymBackend("rlrun/BitFlip-v0", 2, kwargs={"bits": 5}).goals()
    assert goals is not None
    assert (goals.achieved, goals.desired) == (slice(0, 5), slice(5, 10))
