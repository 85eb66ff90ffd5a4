"""What environments may answer, and the one line for each answer that they may not."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from rl_runner import masks
from rl_runner.envs.checked import Checked
from rl_runner.types import UserError

OBS = np.zeros(3, np.float32)
STEP = (OBS, 1.0, False, False, {})


class Answers(gym.Env[Any, Any]):
    """Gives what it was told to give."""

    observation_space: gym.Space[Any] = Box(-1, 1, (3,), np.float32)
    action_space: gym.Space[Any] = Discrete(2)

    def __init__(self, reset: Any = (OBS, {}), step: Any = STEP, space: gym.Space[Any] | None = None) -> None:
        self.on_reset, self.on_step = reset, step
        self.observation_space = self.observation_space if space is None else space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self.on_reset

    def step(self, action: Any) -> Any:
        return self.on_step


def step_of(step: Any, **kwargs: Any) -> Any:
    env = Checked(Answers(step=step, **kwargs), "Mine-v0")
    env.reset(seed=0)
    return env.step(0)


@pytest.mark.parametrize(
    "reward",
    [2, 2.0, True + True, np.float32(2), np.int64(2), np.array(2.0), np.array([2.0]), [2], np.array([[2]])],
    ids=repr,
)
def test_one_number_in_any_wrapping_is_a_reward(reward: Any) -> None:
    _, got, _, _, _ = step_of((OBS, reward, False, False, {}))
    assert (type(got), got) == (float, 2.0)


def test_a_reward_keeps_all_digits_of_double_precision() -> None:
    assert step_of((OBS, 16777217, False, False, {}))[1] == 16777217.0


@pytest.mark.parametrize("flag", [True, 1, np.bool_(True), np.array([True]), np.array(1)], ids=repr)
def test_end_flags_become_bools(flag: Any) -> None:
    _, _, terminated, truncated, _ = step_of((OBS, 0.0, flag, flag, {}))
    assert (terminated, truncated) == (True, True)
    assert type(terminated) is type(truncated) is bool


def test_no_info_is_an_empty_one() -> None:
    env = Checked(Answers(reset=(OBS, None), step=(OBS, 0.0, False, False, None)), "Mine-v0")
    assert env.reset()[1] == env.step(0)[4] == {}


@pytest.mark.parametrize("mask", [[0, 1], [False, True], np.array([0, 1], np.int8), np.array([0.0, 1.0])], ids=repr)
def test_masks_of_actions_become_bools(mask: Any) -> None:
    *_, info = step_of((OBS, 0.0, False, False, {"action_mask": mask, "other": 5}))
    assert info["action_mask"].dtype == np.bool_
    assert info["action_mask"].tolist() == [False, True]


@pytest.mark.parametrize(
    ("space", "mask"),
    [
        (MultiDiscrete([2, 3]), [1, 1, 0, 1, 1]),
        (MultiDiscrete([2, 3]), (np.array([1, 1], np.int8), np.array([0, 1, 1], np.int8))),
        (MultiDiscrete([2, 3]), (1, 1, 0, 1, 1)),
        (MultiBinary(2), [1, 1, 0, 1]),
    ],
    ids=repr,
)
def test_masks_of_several_choices_are_their_flags_in_a_row(space: gym.Space[Any], mask: Any) -> None:
    masked = Answers(reset=(OBS, {"action_mask": mask}))
    masked.action_space = space
    assert (
        Checked(masked, "Mine-v0").reset()[1]["action_mask"].tolist()
        == [True, True, False, True, True][: sum(masks.sizes_of(space))]
    )


@pytest.mark.parametrize("mask", [[1, 1], [[1, 1], [1, 1, 1]], (1, 1, 1, 1), ([1, 1], [1, 1])], ids=repr)
def test_masks_of_several_choices_with_other_flags_are_refused(mask: Any) -> None:
    masked = Answers(reset=(OBS, {"action_mask": mask}))
    masked.action_space = MultiDiscrete([2, 3])
    with pytest.raises(UserError, match=r"it must be 5 flags, those of MultiDiscrete\(\[2 3\]\) in a row$"):
        Checked(masked, "Mine-v0").reset()


def test_numbers_of_an_episodes_end_are_passed_on() -> None:
    told = {"success": np.bool_(True), "score": np.float32(0.5), "laps": 3, "nan": np.nan, "two": np.zeros(2)}
    told |= {"name": "x", "a,b": 1.0, 7: 1.0, "more": {"deep": 1.0}}
    assert step_of((OBS, 0.0, False, False, told))[-1] == {}
    for ends in [(True, False), (False, True)]:
        assert step_of((OBS, 0.0, *ends, told))[-1] == {"success": 1.0, "score": 0.5, "laps": 3.0}


def test_of_info_only_the_mask_stays() -> None:
    """The rest may be what a vector of environments cannot stack, or what no process can send."""
    assert step_of((OBS, 0.0, False, False, {"winner": None, "path": [1, 2], "print": lambda: 1}))[4] == {}


def test_options_are_none_where_there_are_none() -> None:
    class Options(Answers):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            told.append(options)
            return OBS, {}

    told: list[dict[str, Any] | None] = []
    Checked(Options(), "Mine-v0").reset(seed=1, options={})
    Checked(Options(), "Mine-v0").reset(seed=1, options={"start": 5})
    assert told == [None, {"start": 5}]


WHOLE = [
    (Box(0, 10, (3,), np.int64), np.array([0, 10, 3], np.int32), None),
    (Box(0, 255, (3,), np.uint8), np.array([0, 255, 3]), None),
    (Box(0, 255, (3,), np.uint8), np.array([0, 300, 3]), 300),
    (Box(0, 255, (3,), np.uint8), np.array([0, -1, 3]), -1),
    (Box(0, 10, (3,), np.int64), np.array([0, 300, 3]), 300),
    (Box(-5, 5, (3,), np.int64), np.array([0, 6, 3]), 6),
    (Box(0, 1, (3,), np.uint8), np.array([0, 200, 1], np.uint8), 200),
    (Box(-5, 5, (3,), np.int8), np.array([0, 6, 3], np.int8), 6),
    (Box(0, 255, (3,), np.uint8), np.array([0, 255, 3], np.uint8), None),
    (Box(-128, 127, (3,), np.int8), np.array([0, -128, 127], np.int8), None),
]


@pytest.mark.parametrize(("space", "obs", "wrong"), WHOLE, ids=repr)
def test_whole_numbers_get_the_type_of_the_space_or_are_refused_where_they_would_wrap(
    space: gym.Space[Any], obs: Any, wrong: int | None
) -> None:
    env = Checked(Answers(reset=(obs, {}), space=space), "Mine-v0")
    if wrong is not None:
        with pytest.raises(UserError, match=rf"its reset returns an observation with {wrong}, outside its"):
            env.reset()
        return
    got, _ = env.reset()
    assert got.dtype == space.dtype
    assert got.tolist() == obs.tolist()


OTHER_TYPES = [  # what a space takes although it is not of its type
    (Box(-1, 1, (3,), np.float32), np.zeros(3)),
    (Box(-1, 1, (3,), np.float32), [0, 1, 0]),
    (Box(0, 255, (3,), np.uint8), np.array([1, 2, 3])),
    (Discrete(5), 3),
    (Discrete(5), np.int32(3)),
]


@pytest.mark.parametrize(("space", "obs"), OTHER_TYPES, ids=repr)
def test_observations_of_a_type_that_fits_pass(space: gym.Space[Any], obs: Any) -> None:
    Checked(Answers(reset=(obs, {}), space=space), "Mine-v0").reset()


WRONG_STEPS: list[tuple[Any, str]] = [
    ((OBS, 0.0, False, {}), "its step returns 4 values; it must be step"),
    (OBS, "its step returns one ndarray; it must be step"),
    ((OBS, None, False, False, {}), "its step returns the reward None; is a `return reward` missing?"),
    ((OBS, np.zeros(2), False, False, {}), "its step returns the reward array"),
    ((OBS, "much", False, False, {}), "its step returns the reward 'much'; it must be one number"),
    ((OBS, 0.0, None, False, {}), "its step returns terminated = None; it must be true or false"),
    ((OBS, 0.0, False, "no", {}), "its step returns truncated = 'no'; it must be true or false"),
    ((OBS, 0.0, False, False, [1]), r"its step returns the info \[1\]; it must be a dict"),
    ((np.zeros(4), 0.0, False, False, {}), r"its step returns an observation of shape \(4,\).* has shape \(3,\)"),
    (("north", 0.0, False, False, {}), r"its step returns an observation of shape \(\)"),
    ((["a", "b", "c"], 0.0, False, False, {}), "its step returns an observation of type <U1"),
    ((OBS, 0.0, False, False, {"action_mask": [1]}), "its step returns the action_mask .*; it must be 2 flags"),
]


@pytest.mark.parametrize(("step", "line"), WRONG_STEPS, ids=[line[:40] for _, line in WRONG_STEPS])
def test_a_wrong_step_is_one_line_with_the_name_of_the_environment(step: Any, line: str) -> None:
    with pytest.raises(UserError, match=rf"^env: Mine-v0: {line}") as e:
        step_of(step)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("answer", [OBS, (OBS, {}, 1), None], ids=["observation alone", "three values", "None"])
def test_a_reset_that_gives_something_else_is_one_line(answer: Any) -> None:
    with pytest.raises(UserError, match=r"^env: Mine-v0: its reset returns .*; it must be reset"):
        Checked(Answers(reset=answer), "Mine-v0").reset()


def test_fractions_where_the_space_has_whole_numbers_are_one_line() -> None:
    with pytest.raises(UserError, match=r"of type float64; its observation_space has type uint8"):
        Checked(Answers(reset=(np.array([0.5] * 3), {}), space=Box(0, 9, (3,), np.uint8)), "Mine-v0").reset()


def test_a_reset_without_a_seed_is_one_line_and_other_errors_are_the_environments_own() -> None:
    class Old(Answers):
        def reset(self) -> Any:  # type: ignore[override]
            return OBS

    class Broken(Answers):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            return len(5)  # type: ignore[arg-type]

    with pytest.raises(UserError, match=r"^env: Old-v0: its reset takes no seed= or options="):
        Checked(Old(), "Old-v0").reset(seed=1)
    with pytest.raises(TypeError, match=r"has no len"):
        Checked(Broken(), "Broken-v0").reset(seed=1)
