"""What is stored of each observation space, and what is made of Dicts, masks and normalising wrappers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from gymnasium.wrappers import (
    NormalizeObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
    TimeLimit,
    TransformObservation,
    TransformReward,
)

from rl_runner.envs.spaces import about_wrappers, readable, refuse_actions, state_outside, stored, without_normalization
from rl_runner.types import UserError

STORED = [  # space, type that is stored
    (Box(-1, 1, (2,), np.float64), np.float32),
    (Box(-1, 1, (2,), np.float16), np.float32),
    (Box(-1, 1, (2,), np.dtype(">f4")), np.float32),
    (Box(0, 255, (2,), np.dtype(">i8")), np.uint8),  # as small as its bounds allow
    (Box(-5, 5, (2,), np.dtype(">i8")), np.int64),
    (Box(0, 1, (2,), np.int64), np.uint8),
    (Box(0, 1000, (2,), np.uint16), np.int64),
    (Box(0, 1, (2,), np.bool_), np.bool_),
    (Box(0, 255, (2,), np.uint8), np.uint8),
]


@pytest.mark.parametrize(("space", "kind"), STORED, ids=repr)
def test_what_is_stored_has_the_same_bounds_and_a_type_that_torch_reads(space: Any, kind: Any) -> None:
    kept = stored("Mine-v0", space)
    assert kept.dtype == kind
    assert kept.dtype.isnative
    np.testing.assert_array_equal(kept.low, space.low.astype(kind))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(kept.high, space.high.astype(kind))  # type: ignore[attr-defined]


@pytest.mark.parametrize("space", [Discrete(4, start=2), MultiDiscrete([2, 3]), MultiBinary(3)], ids=repr)
def test_discrete_spaces_are_stored_as_they_are(space: gym.Space[Any]) -> None:
    assert stored("Mine-v0", space) is space


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint16, np.int32])
def test_a_single_state_is_stored_in_a_type_that_indexes_tables(dtype: Any) -> None:
    kept = stored("Mine-v0", Discrete(100, start=20, dtype=dtype))
    assert (kept, kept.dtype) == (Discrete(100, start=20), np.int64)


def test_a_space_that_nothing_reads_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"^env: Mine-v0 has observations of type Text.*env.wrappers"):
        stored("Mine-v0", Text(5))


OUTSIDE: list[tuple[gym.Space[Any], Any, Any]] = [
    (Discrete(5), [0, 4, 2], None),
    (Discrete(5), [0, -1, 2], -1),
    (Discrete(5), [0, 5], 5),
    (Discrete(3, start=2), [2, 4], None),
    (Discrete(3, start=2), [1], 1),
    (MultiDiscrete([2, 3]), [[1, 2], [0, 0]], None),
    (MultiDiscrete([2, 3]), [[1, 2], [0, 3]], 3),
    (MultiBinary(2), [[0, 1]], None),
    (MultiBinary(2), [[0, 2]], 2),
    (Box(0, 1, (1,), np.float32), [[7.0]], None),  # bounds of numbers are often wrong and do no harm
]


@pytest.mark.parametrize(("space", "obs", "wrong"), OUTSIDE, ids=repr)
def test_states_outside_of_their_space_are_found(space: gym.Space[Any], obs: Any, wrong: Any) -> None:
    assert state_outside(space, np.array(obs)) == wrong


class Shows(gym.Env[Any, Any]):
    """Shows samples of a space."""

    action_space: gym.Space[Any] = Discrete(3)

    def __init__(self, space: gym.Space[Any]) -> None:
        self.observation_space = space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self.observation_space.sample(), {"given": 1}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 0.0, False, False, {"given": 1}


def test_a_dict_of_several_parts_becomes_one_vector_and_says_which() -> None:
    space = Dict({"position": Box(-1, 1, (2,), np.float32), "near": Tuple([Discrete(3), MultiBinary(2)])})
    env, made = readable(Shows(space), "Mine-v0")
    assert env.observation_space.shape == (7,)
    assert env.reset()[0].shape == (7,)
    assert made == "'near.0', 'near.1', 'position' in one vector"


def test_a_dict_of_one_part_is_that_part() -> None:
    env, made = readable(Shows(Dict({"image": Box(0, 255, (7, 7, 3), np.uint8)})), "Mine-v0")
    assert env.observation_space == Box(0, 255, (7, 7, 3), np.uint8)
    assert env.reset()[0].shape == env.step(0)[0].shape == (7, 7, 3)
    assert made == "its 'image'"


def test_a_mask_in_a_dict_goes_to_info_and_is_no_input() -> None:
    space = Dict({"observation": Box(-1, 1, (4,), np.float32), "action_mask": MultiBinary(3)})
    env, made = readable(Shows(space), "Mine-v0")
    assert env.observation_space == Box(-1, 1, (4,), np.float32)
    for obs, info in (env.reset(), env.step(0)[::4]):
        assert obs.shape == (4,)
        assert info["action_mask"].shape == (3,)
        assert info["given"] == 1
    assert made == "its action_mask marks the allowed actions; its 'observation'"


def test_a_plain_space_is_left_alone() -> None:
    env = Shows(Discrete(4))
    assert readable(env, "Mine-v0") == (env, None)


@pytest.mark.parametrize(
    ("space", "line"),
    [
        (Dict({"image": Box(0, 255, (7, 7, 3), np.uint8), "mission": Text(9)}), r"'mission' .*filter_keys: \[image\]"),
        (Dict({"a": Dict({"b": Text(9), "c": Discrete(2)})}), r"'a.b' .*remove it by a wrapper"),
        (Tuple([Discrete(2), Text(9)]), r"'1' .*remove it by a wrapper"),
    ],
    ids=["Dict", "nested", "Tuple"],
)
def test_a_part_that_cannot_be_read_is_named(space: gym.Space[Any], line: str) -> None:
    with pytest.raises(UserError, match=rf"^env: Mine-v0: the part {line}") as e:
        readable(Shows(space), "Mine-v0")
    assert "\n" not in str(e.value)


class Gives(Shows):
    """Shows what it is told to."""

    def __init__(self, space: gym.Space[Any], obs: Any) -> None:
        super().__init__(space)
        self.obs = obs

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self.obs, {}


def test_names_of_parts_may_have_dots_and_a_mask_that_is_not_there_is_named() -> None:
    space = Dict({"robot.arm": Box(0, 1, (2,), np.float32), "a": Discrete(2), "action_mask": MultiBinary(3)})
    right = {"robot.arm": np.zeros(2, np.float32), "a": 1, "action_mask": np.ones(3, np.int8)}
    obs, info = readable(Gives(space, right), "Mine-v0")[0].reset()
    assert (obs.tolist(), info["action_mask"].tolist()) == ([0, 1, 0, 0], [1, 1, 1])
    with pytest.raises(UserError, match=r"^env: Mine-v0: the part 'action_mask' of its observation is missing"):
        readable(Gives(space, {"robot.arm": np.zeros(2), "a": 1}), "Mine-v0")[0].reset()


PARTS = Dict({"s": Discrete(4, start=1), "t": Tuple([MultiDiscrete([3, 3]), Box(0, 9, (2,), np.uint8)])})
RIGHT = {"s": 2, "t": (np.array([2, 0]), np.array([0, 9]))}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"s": 0}, "'s' of its observation is the state 0, which is not in its space"),
        ({"s": 7}, "'s' of its observation is the state 7, which is not in its space"),
        ({"s": 1.5}, "'s' of its observation is of type float64"),
        (
            {"t": (np.array([4, 1]), np.array([0, 9]))},
            "'t.0' of its observation is the state 4, which is not in",
        ),
        ({"t": (np.array([1]), np.array([0, 9]))}, r"'t.0' of its observation is of shape \(1,\)"),
        ({"t": (np.array([2, 0]), np.array([0, 300]))}, "'t.1' of its observation is with 300, outside"),
        ({"t": (np.array([2, 0]),)}, "'t.1' of its observation is missing"),
    ],
    ids=str,
)
def test_a_wrong_part_of_an_observation_is_named(change: dict[str, Any], line: str) -> None:
    readable(Gives(PARTS, RIGHT), "Mine-v0")[0].reset()
    with pytest.raises(UserError, match=f"^env: Mine-v0: the part {line}"):
        readable(Gives(PARTS, {**RIGHT, **change}), "Mine-v0")[0].reset()


@pytest.mark.parametrize("actions", [MultiDiscrete([2, 3]), MultiBinary(5)], ids=repr)
def test_a_mask_of_several_choices_is_no_observation(actions: gym.Space[Any]) -> None:
    env = Shows(Dict({"observation": Box(-1, 1, (4,), np.float32), "action_mask": MultiBinary(5)}))
    env.action_space = actions
    assert readable(env, "Mine-v0")[0].observation_space.shape == (4,)


@pytest.mark.parametrize("space", [Dict({}), Dict({"action_mask": MultiBinary(3)})], ids=str)
def test_a_dict_without_observations_is_refused(space: gym.Space[Any]) -> None:
    with pytest.raises(UserError, match=r"^env: Mine-v0 has no observations"):
        readable(Shows(space), "Mine-v0")


def test_large_unsigned_numbers_become_floats() -> None:
    assert stored("Mine-v0", Box(0, 2**64 - 1, (2,), np.uint64)).dtype == np.float32


NUMBERS = Box(-1, 1, (3,), np.float32)


def test_normalisation_is_taken_out_wherever_nothing_works_on_what_it_gives() -> None:
    bare = Shows(NUMBERS)
    assert without_normalization(NormalizeObservation(bare), "Mine-v0") == (bare, True)
    limited = TimeLimit(NormalizeObservation(bare), 5)
    env, found = without_normalization(limited, "Mine-v0")
    assert (env, found) == (limited, True)
    assert limited.env is bare
    assert env.observation_space == NUMBERS
    assert without_normalization(limited, "Mine-v0") == (limited, False)
    recorded = RecordEpisodeStatistics(NormalizeObservation(bare))
    assert without_normalization(recorded, "Mine-v0") == (recorded, True)


def test_normalisation_that_something_works_on_is_refused() -> None:
    env = TransformObservation(NormalizeObservation(Shows(NUMBERS)), np.tanh, NUMBERS)
    with pytest.raises(UserError, match=r"TransformObservation uses the output of NormalizeObservation"):
        without_normalization(env, "Mine-v0")


def test_statistics_that_nobody_saves_are_named() -> None:
    kept, changed = about_wrappers(TimeLimit(NormalizeReward(Shows(NUMBERS)), 5))
    assert kept.startswith("its NormalizeReward keeps statistics that are not saved")
    assert changed.startswith("its NormalizeReward changes rewards: all returns, those of evaluations too, are of its")
    (line,) = about_wrappers(TimeLimit(TransformReward(Shows(NUMBERS), np.sign), 5))
    assert line.startswith("its TransformReward changes rewards")
    assert about_wrappers(TimeLimit(Shows(NUMBERS), 5)) == []


@pytest.mark.parametrize("space", [Box(-1, 1, (0,)), Box(-1, 1, (2, 0))], ids=str)
def test_actions_without_a_number_are_refused(space: gym.Space[Any]) -> None:
    with pytest.raises(UserError, match=r"^env: Empty-v0 has an empty action space, .*0.*$"):
        refuse_actions("Empty-v0", space)
