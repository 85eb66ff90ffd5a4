"""Planning: one sweep by hand, both methods' agreement with plain loops over the table, and where they stop."""

import copy
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_runner.agents.planning import PolicyIteration, ValueIteration
from rl_runner.envs.gridworld import GridWorld
from rl_runner.exact.mdp import MDP
from rl_runner.exact.measure import Exact
from rl_runner.types import Evaluate, UserError
from tests.tables import best_values, random_table

AGENTS = [ValueIteration, PolicyIteration]


def from_table(table):
    return MDP.from_table(table, np.eye(len(table))[0], None, None)


def gridworld(**kwargs):
    env = GridWorld(**kwargs)
    return MDP.from_table(env.P, env.initial_state_distrib, None, env.shape)


def plan(agent, at_most=10_000):
    """Sweep until the agent has converged; give the Bellman errors."""
    errors = []
    while not agent.converged:
        errors.append(agent.learn()["bellman_error"].item())
        assert len(errors) < at_most
    return errors


# 0 -> 1 for -1 or -> end for 2; 1 -> end for 4, or stays for 1
CHAIN = {
    0: {0: [(1.0, 1, -1.0, False)], 1: [(1.0, 0, 2.0, True)]},
    1: {0: [(1.0, 1, 4.0, True)], 1: [(1.0, 1, 1.0, False)]},
}


def test_sweeps_of_value_iteration_by_hand():
    agent = ValueIteration(from_table(CHAIN), gamma=0.5)
    assert agent.table.tolist() == [[0, 0], [0, 0]]
    assert agent.learn()["bellman_error"].item() == 4
    assert agent.table.tolist() == [[-1, 2], [4, 1]]
    # all states at once: 0 sees what 1 was worth before
    assert agent.learn()["bellman_error"].item() == 2
    assert agent.table.tolist() == [[1, 2], [4, 3]]
    assert not agent.converged
    assert agent.learn()["bellman_error"].item() == 0
    assert agent.converged


@pytest.mark.parametrize("name", ["4x4", "8x8"])
def test_policy_iteration_acts_by_its_policy_where_actions_are_worth_the_same(name):
    """Without slips and discount every action of a safe cell is worth 1; the first of them goes into a wall."""
    env = gym.make("FrozenLake-v1", map_name=name, is_slippery=False).unwrapped
    mdp = MDP.from_table(env.P, env.initial_state_distrib, None, env.desc.shape)
    agent = PolicyIteration(mdp, gamma=1.0)
    plan(agent)
    state, rewards = 0, []
    for _ in range(100):
        (action,), _ = agent.act(np.array([state]), None, Evaluate(np.random.default_rng(0)))
        ((_, state, reward, ended),) = env.P[state][int(action)]
        rewards.append(reward)
        if ended:
            break
    assert sum(rewards) == 1.0
    assert agent.q_values(torch.arange(mdp.reward.shape[0])).equal(agent.table)
    measured = Exact(mdp, agent, gamma=1.0)
    assert measured()["exact/value"] == 1.0
    grid = measured.report()[-2 - env.desc.shape[0] : -2]
    assert grid[0].startswith(("↓", "→"))


def test_sweeps_of_policy_iteration_by_hand():
    agent = PolicyIteration(from_table(CHAIN), gamma=0.5)
    # At random V(1) = (4 + 1 + V(1) / 2) / 2 = 10/3 and V(0) = (-1 + V(1) / 2 + 2) / 2 = 4/3.
    assert agent.learn()["bellman_error"].item() == pytest.approx(2 / 3)  # both states gain as much: 2 - 4/3, 4 - 10/3
    np.testing.assert_allclose(agent.table, [[2 / 3, 2], [4, 8 / 3]])
    assert not agent.converged
    assert agent.learn()["bellman_error"].item() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(agent.table, [[1, 2], [4, 3]])
    assert agent.converged


@settings(derandomize=True, deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), gamma=st.sampled_from([0.0, 0.5, 0.9]), ending=st.sampled_from([0.0, 0.3, 1.0]))
def test_both_find_the_optimum_of_random_tables(seed, gamma, ending):
    table = random_table(seed, ending=ending)
    wanted = best_values(table, gamma, 400)
    for make in AGENTS:
        agent = make(from_table(table), gamma)
        plan(agent)
        np.testing.assert_allclose(agent.table, wanted, atol=2e-10)


@pytest.mark.parametrize("make", AGENTS)
@pytest.mark.parametrize("slip", [0.0, 0.3])
def test_both_find_the_way_without_discount(make, slip):
    agent = make(gridworld(slip=slip), 1.0)
    plan(agent)
    best = agent.table.max(dim=1).values.reshape(4, 4)
    assert torch.allclose(best, best.T, atol=1e-9)
    assert torch.allclose(best, best.flip(0, 1), atol=1e-9)
    if slip == 0:
        assert torch.allclose(best[0], torch.tensor([0, -1, -2, -3], dtype=torch.float64), atol=1e-9)
    else:
        assert best[0, 3] < -3.1


def test_value_iterations_errors_shrink_by_gamma_and_policy_iteration_needs_few_sweeps():
    env = gym.make("FrozenLake-v1", map_name="8x8").unwrapped
    mdp = MDP.from_table(env.P, env.initial_state_distrib, None, None)
    errors = plan(ValueIteration(mdp, 0.9))
    assert all(after <= 0.9 * before + 1e-15 for before, after in pairwise(errors))
    assert len(plan(PolicyIteration(mdp, 0.9))) < 15 < len(errors)


def test_a_tolerance_is_kept_and_worth_its_sweeps():
    table = random_table(3, ending=0.0)
    wanted = best_values(table, 0.9, 500)
    sweeps = []
    for tolerance in (1e-1, 1e-5):
        agent = ValueIteration(from_table(table), 0.9, tolerance)
        sweeps.append(len(plan(agent)))
        error = np.abs(agent.table.numpy() - wanted).max()
        assert error < tolerance
    assert error > 1e-12  # it did stop early
    assert sweeps[0] < sweeps[1]


def test_equally_good_policies_do_not_take_turns():
    """Each action of each state leads to the same, by sums that round differently."""
    thirds = [(1 / 3, 0, 0.1, False), (1 / 3, 1, 0.2, False), (1 / 3, 2, 0.3, False)]
    table = {s: {a: thirds[a:] + thirds[:a] for a in range(3)} for s in range(3)}
    agent = PolicyIteration(from_table(table), 0.999)
    plan(agent, at_most=3)
    np.testing.assert_allclose(agent.table, 0.2 / 0.001)


def test_an_action_is_not_left_for_one_that_looks_as_good():
    """Without discount, waiting looks as good as taking the 1 at last; a policy that only waits never gets it."""
    waiting = {0: [(1.0, 0, 0.0, False)], 1: [(1.0, 0, 1.0, True)]}
    another = {0: [(1.0, 1, 0.0, True)], 1: [(1.0, 1, 1.0, True)]}  # here the first sweep finds something to improve
    agent = PolicyIteration(from_table({0: waiting, 1: another}), 1.0)
    assert plan(agent) == [0.5, 0.0]
    assert agent.table.tolist() == [[1, 1], [0, 1]]


def test_a_policy_of_infinite_worth_names_gamma():
    with pytest.raises(UserError, match=r"agent\.gamma"):
        PolicyIteration(gridworld(terminals=[]), 1.0).learn()
    assert PolicyIteration(gridworld(terminals=[]), 0.9).learn()["bellman_error"].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("make", AGENTS)
@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan")])
def test_a_tolerance_must_be_positive(make, tolerance):
    with pytest.raises(UserError, match=r"agent\.tolerance"):
        make(from_table(CHAIN), 0.9, tolerance)


@pytest.mark.parametrize("make", AGENTS)
def test_values_are_given_by_the_states_number(make):
    agent = make(from_table(CHAIN), 0.5, first_state=5)
    plan(agent)
    np.testing.assert_allclose(agent.q_values(torch.tensor([6, 5, 6])), [[4, 3], [1, 2], [4, 3]])
    action, carry = agent.act(np.array([6, 5, 6]), None, Evaluate(np.random.default_rng(0)))
    assert (action.tolist(), carry, agent.metrics(0)) == ([0, 1, 0], None, {})


@pytest.mark.parametrize("make", AGENTS)
def test_a_plan_that_is_put_back_goes_on_as_it_would_have(make):
    mdp = from_table(random_table(7, states=12))
    agent, other = make(mdp, 0.9), make(mdp, 0.9)
    agent.learn()
    saved = agent.state_dict()
    before = copy.deepcopy(saved)
    errors = plan(agent)
    assert len(errors) > 1
    assert torch.equal(saved["table"], before["table"])  # what was saved stays
    other.load_state_dict(before)
    assert plan(other) == errors
    assert torch.equal(other.table, agent.table)
    again = make(mdp, 0.9)
    again.load_state_dict(agent.state_dict())
    assert again.converged


def test_the_tolerance_is_relative_to_the_largest_value() -> None:
    """The second action is better by 0.25 than the random policy, whose value is about 1000 or 1."""
    for level, converged in ((1000.0, True), (0.0, False)):
        mdp = from_table({0: {0: [(1.0, 0, level, True)], 1: [(1.0, 0, level + 0.5, True)]}})
        agent = PolicyIteration(mdp, 0.9, tolerance=1e-3)
        agent.learn()
        assert agent.converged == converged
