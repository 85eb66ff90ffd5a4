"""Drawings of grids by hand."""

import numpy as np
import pytest

from rl_runner.envs.gridworld import GridWorld
from rl_runner.exact.drawing import arrows, draw, draw_values
from rl_runner.exact.mdp import MDP, masked, optimal_values
from tests.exact.test_mdp import cliff, from_table, frozenlake, gridworld
from tests.tables import random_table


@pytest.mark.parametrize(
    ("mdp", "wanted"),
    [
        (gridworld(), "↑→↓←"),
        (gridworld(rows=2, columns=7, slip=0.6), "↑→↓←"),
        (gridworld(rows=1, columns=4), "○→○←"),
        (frozenlake(), "←↓→↑"),
        (frozenlake(map_name="8x8", is_slippery=False), "←↓→↑"),
        (cliff(), "↑→↓←"),  # though most of the moves down from its edge go far to the left
    ],
)
def test_arrows(mdp, wanted):
    assert "".join(arrows(mdp)) == wanted


def test_a_drawing_by_hand():
    mdp = gridworld(rows=2, columns=3, terminals=[(0, 2)])
    q = np.array(
        [[-3, -2, -9, -9], [-2, -1.004, -2, -2], [5000, 0, 0, 0], [-3, -3, -11, -12.5]] + [[-2, -2, -2, -2]] * 2
    )
    assert draw(mdp, q) == [
        "→ -2.00   → -1.00      ·",
        "↑ -3.00   ↑ -2.00   ↑ -2.00",
    ]
    q[4] = -12.5
    assert draw(mdp, q)[1] == "↑  -3.00   ↑ -12.50   ↑  -2.00"


def test_without_a_grid_there_is_no_drawing():
    mdp = from_table(random_table(0))
    assert arrows(mdp) is None
    assert draw(mdp, mdp.reward) == []


def test_a_drawing_shows_no_forbidden_action():
    mdp = MDP.from_table(GridWorld(rows=1, columns=4, terminals=[[0, 3]]).P, np.eye(4)[0], None, (1, 4))
    allowed = np.ones((4, 4), np.bool_)
    allowed[:, [0, 2, 3]] = False  # to the right alone
    allowed[2, 3] = True  # and once to the left
    only = masked(mdp, allowed)
    assert draw(only, optimal_values(only, 0.9)) == draw(mdp, optimal_values(mdp, 0.9))
    assert "→" in draw(only, optimal_values(only, 0.9))[0]


def test_values_by_hand():
    mdp = gridworld(rows=2, columns=2, terminals=[(1, 1)])
    assert draw_values(mdp, np.array([-2.0, -1.0, -12.34, 7.0])) == ["   -2.00      -1.00", "  -12.34      ·"]
    assert draw_values(from_table(random_table(0)), np.zeros(3)) == []


def test_the_action_of_a_policy_is_drawn_in_place_of_the_greedy_one():
    mdp = gridworld(rows=1, columns=3, terminals=[(0, 2)])
    q = np.array([[-3.0, -2.0, -3.0, -3.0]] * 3)
    left = np.eye(4)[[3, 3, 3]]
    assert draw(mdp, q) == ["→ -2.00   → -2.00      ·"]
    assert draw(mdp, q, left) == ["← -2.00   ← -2.00      ·"]
