"""The grid by hand: its table, its pictures, and that its steps follow the table."""

from collections import Counter

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rl_runner import memory
from rl_runner.envs.gridworld import AGENT, CELL, EXIT, GridWorld
from rl_runner.envs.gym import GymBackend
from rl_runner.types import UserError

UP, RIGHT, DOWN, LEFT = range(4)


def test_gymnasium_has_nothing_to_say_against_it():
    check_env(gym.make("rlrun/GridWorld-v0", rows=3, columns=5, slip=0.2, render_mode="rgb_array").unwrapped)


def test_moves_by_hand():
    """Two rows of three: 0 1 2 over 3 4 5, with exits in 0 and 5."""
    table = GridWorld(rows=2, columns=3).P
    assert [table[1][a] for a in range(4)] == [
        [(1.0, 1, -1.0, False)],
        [(1.0, 2, -1.0, False)],
        [(1.0, 4, -1.0, False)],
        [(1.0, 0, -1.0, True)],
    ]
    assert [table[2][a][0][1] for a in range(4)] == [2, 2, 5, 1]
    assert [table[3][a][0][1] for a in range(4)] == [0, 4, 3, 3]
    assert table[2][DOWN] == [(1.0, 5, -1.0, True)]
    for end in (0, 5):
        assert all(table[end][a] == [(1.0, end, 0.0, True)] for a in range(4))


def test_slips_go_to_either_side():
    table = GridWorld(rows=3, columns=3, terminals=[(0, 0)], slip=0.2).P
    assert table[4][UP] == [(0.8, 1, -1.0, False), (0.1, 3, -1.0, False), (0.1, 5, -1.0, False)]
    assert table[1][UP] == [(0.8, 1, -1.0, False), (0.1, 0, -1.0, True), (0.1, 2, -1.0, False)]
    assert table[4][LEFT] == [(0.8, 3, -1.0, False), (0.1, 7, -1.0, False), (0.1, 1, -1.0, False)]
    assert GridWorld(slip=1.0).P[5][UP] == [(0.5, 4, -1.0, False), (0.5, 6, -1.0, False)]


def test_where_episodes_begin():
    assert GridWorld(rows=2, columns=2).initial_state_distrib.tolist() == [0, 0.5, 0.5, 0]
    assert GridWorld(rows=2, columns=2, start=[1, 0]).initial_state_distrib.tolist() == [0, 0, 1, 0]
    env = GridWorld(rows=2, columns=3)
    begins = Counter(env.reset(seed=seed)[0] for seed in range(400))
    assert begins.keys() == {1, 2, 3, 4}
    assert min(begins.values()) > 60  # 100 on average, with a standard deviation of 8.7


def test_steps_follow_the_table():
    env = GridWorld(slip=0.4, start=(1, 1))
    ends = Counter()
    env.reset(seed=0)
    for _ in range(2000):
        assert env.reset()[0] == 5
        state, reward, terminated, truncated, _ = env.step(RIGHT)
        assert (reward, terminated, truncated) == (-1.0, False, False)
        ends[state] += 1
    assert ends.keys() == {6, 1, 9}
    for state, p in [(6, 0.6), (1, 0.2), (9, 0.2)]:
        assert abs(ends[state] - 2000 * p) < 4 * np.sqrt(2000 * p * (1 - p))


def test_an_exit_ends_the_episode_with_its_cost():
    env = GridWorld(start=(0, 1))
    env.reset(seed=0)
    assert env.step(UP)[:4] == (1, -1.0, False, False)
    assert env.step(LEFT)[:4] == (0, -1.0, True, False)


def test_an_episode_is_a_function_of_its_seed_and_actions():
    def play(env, seed):
        seen = [env.reset(seed=seed)[0]]
        for action in np.random.default_rng(0).integers(4, size=30):
            seen.append(env.step(action)[0])
            if seen[-1] in (0, 24):
                break
        return seen

    grid = {"rows": 5, "columns": 5, "slip": 0.5}
    used = GridWorld(**grid)
    first = [play(used, seed) for seed in range(20)]
    assert [play(GridWorld(**grid), seed) for seed in range(20)] == first
    assert len({tuple(seen) for seen in first}) > 15


def test_a_picture():
    env = GridWorld(rows=2, columns=3, start=(1, 0), render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (2 * CELL, 3 * CELL, 3)
    assert picture.dtype == np.uint8
    centres = picture[CELL // 2 :: CELL, CELL // 2 :: CELL]
    assert [[tuple(colour) for colour in row] for row in centres.tolist()] == [
        [EXIT, (255, 255, 255), (255, 255, 255)],
        [AGENT, (255, 255, 255), EXIT],
    ]
    env.step(UP)
    assert tuple(env.render()[CELL // 2, CELL // 2]) == AGENT
    assert GridWorld().render() is None


def test_as_a_backend_it_tells_its_dynamics():
    backend = GymBackend("rlrun/GridWorld-v0", 2, kwargs={"rows": 3, "columns": 5, "terminals": [[1, 2]]})
    mdp = backend.mdp()
    assert mdp.grid == (3, 5)
    assert mdp.horizon == 100
    assert mdp.start[7] == 0
    assert mdp.reward[[6, 7]].tolist() == [[-1] * 4, [0] * 4]
    assert backend.observation_space.n == 15
    assert backend.fps == GridWorld.metadata["render_fps"]


@pytest.mark.parametrize(
    ("key", "kwargs"),
    [
        ("rows", {"rows": 0}),
        ("columns", {"columns": -1}),
        ("slip", {"slip": 1.5}),
        ("slip", {"slip": float("nan")}),
        ("terminals", {"terminals": [(4, 0)]}),
        ("terminals", {"terminals": [(0, 0, 0)]}),
        ("terminals", {"rows": 1, "columns": 2}),
        ("start", {"start": (-1, 0)}),
        ("start", {"start": (3, 3)}),
    ],
)
def test_what_cannot_be_is_named(key, kwargs):
    with pytest.raises(UserError, match=rf"env\.kwargs\.{key}"):
        GridWorld(**kwargs)


def test_a_grid_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 10**9)
    with pytest.raises(UserError, match=r"env\.kwargs\.rows.* 100,000 × 1,000 cells takes 200\.00 GB, but 1\.00 GB"):
        GridWorld(rows=100_000, columns=1_000)
