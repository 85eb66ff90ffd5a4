"""Bit flipping by hand, and as Gymnasium checks it."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rl_runner.envs.bitflip import BLUE, CELL, GREY, RED, WHITE, BitFlip
from rl_runner.envs.gym import GymBackend
from rl_runner.types import UserError


def test_gymnasium_has_nothing_to_say_against_it() -> None:
    check_env(gym.make("rlrun/BitFlip-v0", bits=4, render_mode="rgb_array").unwrapped)


def test_flipping_each_wrong_bit_reaches_the_goal() -> None:
    env = BitFlip(bits=9)
    obs, _ = env.reset(seed=3)
    wrong = np.flatnonzero(obs["achieved_goal"] != obs["desired_goal"])
    for bit in wrong[:-1]:
        obs, reward, terminated, truncated, info = env.step(int(bit))
        assert (reward, terminated, truncated, info) == (-1.0, False, False, {"is_success": 0.0})
    obs, reward, terminated, truncated, info = env.step(int(wrong[-1]))
    assert (reward, terminated, truncated, info) == (0.0, True, False, {"is_success": 1.0})
    np.testing.assert_array_equal(obs["observation"], obs["desired_goal"])


def test_after_as_many_steps_as_bits_it_is_cut_short() -> None:
    env = BitFlip(bits=6)
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(6)]
    assert ends == [(False, False)] * 5 + [(False, True)]


def test_no_episode_begins_at_its_goal() -> None:
    env = BitFlip(bits=1)
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        assert obs["observation"] != obs["desired_goal"]


def test_rewards_of_many_goals() -> None:
    achieved = np.array([[0, 1], [1, 1], [0, 0]], np.float32)
    assert BitFlip(2).compute_reward(achieved, np.array([0, 1], np.float32), {}).tolist() == [0, -1, -1]


def test_zero_bits_are_refused() -> None:
    with pytest.raises(UserError, match=r"^env.kwargs.bits: must be at least 1, got 0"):
        GymBackend("rlrun/BitFlip-v0", 1, kwargs={"bits": 0})


def test_pictures_show_the_goal_above_the_bits_and_mark_the_wrong_ones() -> None:
    env = BitFlip(bits=5, render_mode="rgb_array")
    obs, _ = env.reset(seed=1)
    picture = env.render()
    assert picture.shape == (2 * CELL, 5 * CELL, 3)
    assert tuple(picture[0, 0]) == tuple(picture[CELL, 7]) == GREY
    for bit in range(5):
        goal, state = obs["desired_goal"][bit], obs["observation"][bit]
        corner, middle = bit * CELL + 3, bit * CELL + CELL // 2
        assert tuple(picture[middle % CELL, middle]) == (BLUE if goal else WHITE)
        assert tuple(picture[CELL + 3, corner]) == (BLUE if state else WHITE)
        wrong = RED if goal != state else (BLUE if state else WHITE)
        assert tuple(picture[CELL + CELL // 2, middle]) == wrong
    assert BitFlip(bits=5).render() is None
