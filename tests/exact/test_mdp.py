"""Exact values against the textbook's numbers, closed forms, plain loops over the table, and episodes played."""

import math

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_runner.envs.gridworld import GridWorld
from rl_runner.exact.mdp import (
    MDP,
    action_values,
    at_start,
    expected_return,
    greedy,
    has_converged,
    occupancy,
    optimal_values,
    policy_values,
    reachable,
)
from rl_runner.types import UserError
from tests.tables import backup, best_values, random_policy, random_table, values_of

UP, RIGHT, DOWN, LEFT = range(4)


def mdp_of(env, horizon=None, grid=(4, 4)):
    return MDP.from_table(env.P, env.initial_state_distrib, horizon, grid)


def gridworld(horizon=None, **kwargs):
    env = GridWorld(**kwargs)
    return mdp_of(env, horizon, env.shape)


def frozenlake(horizon=100, **kwargs):
    env = gym.make("FrozenLake-v1", **kwargs).unwrapped
    return mdp_of(env, horizon, env.desc.shape)


def cliff():
    return mdp_of(gym.make("CliffWalking-v1").unwrapped, None, (4, 12))


def from_table(table, start=None, horizon=None):
    return MDP.from_table(table, np.eye(len(table))[0] if start is None else start, horizon, None)


def always(mdp, action):
    return np.eye(mdp.reward.shape[1])[np.full(len(mdp.start), action)]


def equal_chances(mdp):
    return np.full(mdp.reward.shape, 1 / mdp.reward.shape[1])


def test_a_table_by_hand():
    table = {
        0: {0: [(0.25, 1, 4.0, False), (0.25, 1, 0.0, True), (0.5, 0, -2.0, False)], 1: [(1.0, 1, 7.0, True)]},
        1: {0: [(1.0, 0, 1.0, False)], 1: [(1.0, 1, 0.0, False)]},
    }
    mdp = from_table(table)
    assert mdp.reward.tolist() == [[0.0, 7.0], [1.0, 0.0]]
    assert mdp.state[0, 0].tolist() == [1, 1, 0]
    assert mdp.probability[0, 0].tolist() == [0.25, 0.25, 0.5]
    assert mdp.continuing[0, 0].tolist() == [0.25, 0.0, 0.5]
    assert mdp.probability[0, 1].tolist() == [1.0, 0.0, 0.0]
    assert mdp.continuing.sum(axis=2).tolist() == [[0.75, 0.0], [1.0, 1.0]]
    # 0 + 0.5 (0.25 * 20 + 0.5 * 10), 7, 1 + 0.5 * 10, 0.5 * 20
    assert action_values(mdp, np.array([10.0, 20.0]), 0.5).tolist() == [[5.0, 7.0], [6.0, 10.0]]


def test_probabilities_that_are_none_are_refused():
    with pytest.raises(UserError, match=r"P\[1\]\[0\] sum to 0.9"):
        from_table({0: {0: [(1.0, 1, 0.0, False)]}, 1: {0: [(0.5, 0, 0.0, False), (0.4, 1, 0.0, True)]}})


def test_the_books_values_of_the_random_policy():
    """Sutton & Barto 2018, figure 4.1, at k = infinity."""
    mdp = gridworld()
    figure = [0, -14, -20, -22, -14, -18, -20, -20, -20, -20, -18, -14, -22, -20, -14, 0]
    np.testing.assert_allclose(policy_values(mdp, equal_chances(mdp), 1.0), figure, atol=1e-9)
    assert expected_return(mdp, equal_chances(mdp)) == pytest.approx(sum(figure) / 14)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 0.999, 1.0])
def test_optimal_values_of_the_grid_are_distances(gamma):
    mdp = gridworld(rows=5, columns=3)
    steps = np.array([[min(r + c, 4 - r + 2 - c) for c in range(3)] for r in range(5)]).ravel()
    wanted = -sum(gamma**t * (steps > t) for t in range(6))
    np.testing.assert_allclose(optimal_values(mdp, gamma).max(axis=1), wanted, atol=1e-10)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), gamma=st.sampled_from([0.0, 0.3, 0.9]), ending=st.sampled_from([0.0, 0.3, 1.0]))
def test_random_tables_against_plain_loops(seed, gamma, ending):
    table, policy = random_table(seed, ending=ending), random_policy(seed)
    mdp = from_table(table)
    np.testing.assert_allclose(optimal_values(mdp, gamma), best_values(table, gamma, 400), atol=1e-10)
    np.testing.assert_allclose(policy_values(mdp, policy, gamma), values_of(table, policy, gamma, 400), atol=1e-10)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), horizon=st.integers(0, 8))
def test_a_return_within_the_time_limit_against_plain_loops(seed, horizon):
    table, policy = random_table(seed), random_policy(seed)
    start = np.random.default_rng(seed).dirichlet(np.ones(5))
    wanted = start @ values_of(table, policy, 1.0, horizon)
    assert expected_return(from_table(table, start, horizon), policy) == pytest.approx(wanted, abs=1e-12)


def test_the_greedy_policy_of_optimal_values_is_worth_them():
    mdp = frozenlake()
    q = optimal_values(mdp, 0.99)
    np.testing.assert_allclose(policy_values(mdp, greedy(q), 0.99), q.max(axis=1), atol=1e-9)


def test_optimal_values_that_are_infinite_name_gamma(monkeypatch):
    monkeypatch.setattr("rl_runner.exact.mdp.SWEEPS", 1000)
    with pytest.raises(UserError, match=r"agent\.gamma.* 1\.0 .*1,000 sweeps"):
        optimal_values(gridworld(terminals=[]), 1.0)
    assert optimal_values(gridworld(terminals=[]), 0.9).max() == pytest.approx(-10)


def test_settled_is_as_strict_as_gamma_asks():
    before = np.full((2, 2), 1.0)
    for gamma, enough in [(0.5, 1e-3), (0.9, 1e-3 / 9), (0.99, 1e-3 / 99), (1.0, 1e-5)]:
        assert has_converged(before, before + 0.99 * enough, gamma, 1e-3)
        assert not has_converged(before, before - 1.01 * enough * np.eye(2), gamma, 1e-3)
    assert has_converged(before, before + 100, 0.0, 1e-3)  # nothing lies beyond one step
    assert has_converged(before * 1e6, before * 1e6 * (1 + 4e-16), 0.999999, 1e-10)  # rounding
    assert not has_converged(before * 1e6, before * 1e6 * (1 + 1e-14), 0.999999, 1e-10)


ENDLESS = {
    # 0 earns 5 on its way to 1, which goes round for nothing; 2 and 3 pay each other, in turns; 4 may go anywhere
    0: {0: [(1.0, 1, 5.0, False)]},
    1: {0: [(1.0, 1, 0.0, False)]},
    2: {0: [(1.0, 3, -1.0, False)]},
    3: {0: [(1.0, 2, 0.0, False)]},
    4: {0: [(0.5, 2, 9.0, False), (0.5, 5, 9.0, False)]},
    5: {0: [(1.0, 5, 1.0, False)]},
    6: {0: [(0.5, 6, -3.0, False), (0.5, 0, 1.0, True)]},
}


def test_without_discount_what_never_ends_is_infinite_undefined_or_what_was_earned_before():
    mdp = from_table(ENDLESS)
    values = policy_values(mdp, np.ones((7, 1)), 1.0)
    # 6: two tries on average, of (-3 + 1) / 2 each
    np.testing.assert_array_equal(values[[0, 1, 2, 3, 5]], [5.0, 0.0, -math.inf, -math.inf, math.inf])
    assert math.isnan(values[4])
    assert values[6] == pytest.approx(-2.0)
    assert at_start(mdp, values) == 5.0  # an infinite value elsewhere counts for nothing


@pytest.mark.parametrize("seed", range(5))
def test_visits_times_rewards_are_the_value_at_the_start(seed):
    table, policy = random_table(seed), random_policy(seed)
    start = np.random.default_rng(seed).dirichlet(np.ones(5))
    mdp = from_table(table, start)
    rewards = (policy * [[backup(table, s, a, [0.0] * 5, 1.0) for a in table[s]] for s in table]).sum(axis=1)
    assert occupancy(mdp, policy, 0.9) @ rewards == pytest.approx(start @ values_of(table, policy, 0.9, 400))


def test_visits_by_hand():
    # 0 tries until it leaves for 1, where the episode ends; 2 is never seen, and never left
    mdp = from_table(
        {0: {0: [(0.75, 0, 0, False), (0.25, 1, 0, False)]}, 1: {0: [(1.0, 0, 0, True)]}, 2: {0: [(1.0, 2, 0, False)]}}
    )
    np.testing.assert_allclose(occupancy(mdp, np.ones((3, 1)), 1.0), [4, 1, 0])
    np.testing.assert_allclose(occupancy(mdp, np.ones((3, 1)), 0.5), [1.6, 0.2, 0])
    assert np.isnan(occupancy(from_table({0: {0: [(1.0, 0, 0, False)]}}), np.ones((1, 1)), 1.0)).all()


def test_visits_of_a_chain_that_may_be_caught_in_a_cycle_are_nan() -> None:
    """Rounding makes its matrix regular, so solving it gives some huge number."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        odds = rng.dirichlet(np.ones(3), size=4)  # from the states 1 to 3 no way leads out
        table = {0: {0: [(0.5, 4, 0.0, True), (0.5, 1, 0.0, False)]}, 4: {0: [(1.0, 4, 0.0, True)]}}
        table |= {s: {0: [(p, t + 1, 0.0, False) for t, p in enumerate(odds[s])]} for s in (1, 2, 3)}
        assert np.isnan(occupancy(from_table(table), np.ones((5, 1)), 1.0)).all()


def test_a_policy_against_the_wall():
    mdp = gridworld()
    values = policy_values(mdp, always(mdp, UP), 1.0).reshape(4, 4)
    np.testing.assert_array_equal(values[:, 0], [0, -1, -2, -3])
    assert np.all(values[:3, 1:] == -math.inf)
    assert expected_return(gridworld(horizon=10, start=(1, 2)), always(mdp, UP)) == -10
    assert expected_return(gridworld(start=(1, 2)), always(mdp, UP)) == -math.inf
    np.testing.assert_allclose(policy_values(frozenlake(is_slippery=False), always(mdp, LEFT), 1.0), 0.0)


def test_frozenlakes_optimum_is_what_playing_it_gives():
    mdp = frozenlake()
    policy = greedy(optimal_values(mdp, 0.99))
    exact = expected_return(mdp, policy)
    assert exact == pytest.approx(0.74, abs=0.005)
    env, actions, returns = gym.make("FrozenLake-v1"), policy.argmax(axis=1), []
    for seed in range(1000):
        obs, _ = env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(int(actions[obs]))
            total, over = total + reward, terminated or truncated
        returns.append(total)
    assert abs(np.mean(returns) - exact) < 4 * np.std(returns) / math.sqrt(len(returns))
    # The limit of 100 steps costs far more than that error.
    assert expected_return(frozenlake(horizon=None), policy) - exact > 4 * 0.44 / math.sqrt(len(returns))


def test_the_cliffs_best_path_is_13_steps():
    mdp = cliff()
    q = optimal_values(mdp, 1.0)
    assert at_start(mdp, q.max(axis=1)) == expected_return(mdp, greedy(q)) == -13


def test_greedy_takes_the_first_of_what_single_precision_cannot_tell_apart():
    q = np.array([[1.0, 1.0 + 1e-12, 0.0], [0.0, 1.0, 1.0 + 1e-3]])
    assert greedy(q).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_reachable_are_the_states_where_something_is_decided():
    lake = "SFFFFHFHFFFHHFFG"
    np.testing.assert_array_equal(reachable(frozenlake()), [letter in "SF" for letter in lake])
    straight = frozenlake(desc=["SFH", "HHF", "GFF"], is_slippery=False)  # what lies behind the holes is never seen
    np.testing.assert_array_equal(reachable(straight), [True, True] + [False] * 7)
    seen = reachable(cliff()).reshape(4, 12)
    assert seen[:3].all()
    assert seen[3].tolist() == [True] + [False] * 11
    bandit = from_table({0: {0: [(1.0, 0, 1.0, True)]}, 1: {0: [(1.0, 1, 0.0, True)]}})
    assert reachable(bandit).tolist() == [True, False]


def test_the_oracle_by_hand():
    table = {0: {0: [(0.5, 0, 1.0, False), (0.5, 0, 3.0, True)]}}
    assert backup(table, 0, 0, [10.0], 0.9) == pytest.approx(0.5 * (1 + 9) + 0.5 * 3)
    assert values_of(table, [[1.0]], 0.9, 2) == pytest.approx([2 + 0.45 * 2])
    assert best_values(table, 0.9, 200) == [pytest.approx([2 / 0.55])]


@pytest.mark.parametrize("outcome", [(1.0, 2, 0.0, False), (1.0, -1, 0.0, False), (1.0, 0, math.inf, False)])
def test_outcomes_that_are_none_are_refused(outcome):
    with pytest.raises(UserError, match=r"P\[1\]\[0\] has \(.*\), not \(probability, state, reward, terminated\)"):
        from_table({0: {0: [(1.0, 1, 0.0, False)]}, 1: {0: [(1.0, 0, 0.0, False), outcome]}})
