"""Tabular methods: updates by hand, and Q-learning's way to the optimum."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch

from rl_runner import memory
from rl_runner.agents.tabular import QLearning, Sarsa
from rl_runner.exploration import Greedy
from rl_runner.types import Train, Transition, UserError
from tests.tables import best_values

TABLE = [[1.0, 2.0], [3.0, -1.0], [0.5, 10.0]]


def step(obs, action, reward, next_obs, terminated=None, truncated=None, no_bootstrap=None):
    flags = [np.array(x if x is not None else [False] * len(obs)) for x in (terminated, truncated, no_bootstrap)]
    return Transition(np.array(obs), np.array(action), np.array(reward, np.float32), *flags, np.array(next_obs))


def agent_with_table(make, **kwargs):
    agent = make(3, 2, 0.5, Greedy(), lr=0.25, **kwargs)
    agent.table.copy_(torch.tensor(TABLE))
    return agent


def learn(make, tr, next_action=(0,)):
    """Return what changed in the table, and the mean error."""
    agent = agent_with_table(make)
    error = agent.learn(tr, np.array(next_action))["td_error"].item()
    change = agent.table.numpy() - TABLE
    return {(int(s), int(a)): float(change[s, a]) for s, a in np.argwhere(change)}, error


def test_one_update_by_hand_and_where_the_methods_differ():
    tr = step([0], [1], [1.0], [1])
    # 1 + 0.5 max(3, -1) - 2 = 0.5, whatever is done next; SARSA will do action 1: 1 + 0.5 * -1 - 2 = -1.5
    assert learn(QLearning, tr, [1]) == ({(0, 1): 0.125}, 0.5)
    assert learn(Sarsa, tr, [1]) == ({(0, 1): -0.375}, 1.5)
    assert learn(Sarsa, tr, [0]) == learn(QLearning, tr, [0])


@pytest.mark.parametrize("make", [QLearning, Sarsa])
@pytest.mark.parametrize(
    ("end", "change"),
    [
        ({"terminated": [True]}, 0.25 * (1 - 2)),
        ({"no_bootstrap": [True]}, 0.25 * (1 - 2)),
        ({"truncated": [True]}, 0.25 * (1 + 0.5 * 10 - 2)),  # it would have gone on
        ({"terminated": [True], "truncated": [True]}, 0.25 * (1 - 2)),
    ],
    ids=str,
)
def test_a_termination_ends_the_sum_of_rewards_and_a_time_limit_does_not(make, end, change):
    assert learn(make, step([0], [1], [1.0], [2], **end), [1]) == ({(0, 1): change}, abs(change / 0.25))


def test_environments_are_learned_from_one_after_the_other():
    """The same state and action twice, and then the state that they changed as what comes next."""
    tr = step([0, 0, 2], [1, 1, 0], [1.0, 1.0, 0.0], [1, 1, 0], truncated=[False, True, False])
    # 2 -> 2.125 -> 2.125 + 0.25 * (2.5 - 2.125) = 2.21875; then 0 + 0.5 * 2.21875 - 0.5 = 0.609375
    changes, error = learn(QLearning, tr, [0, 0, 0])
    assert changes == {(0, 1): 0.21875, (2, 0): 0.25 * 0.609375}
    assert error == pytest.approx((0.5 + 0.375 + 0.609375) / 3)


@pytest.mark.parametrize("make", [QLearning, Sarsa])
def test_states_may_be_counted_from_elsewhere(make):
    shifted, plain = agent_with_table(make, first_state=-4), agent_with_table(make)
    shifted.learn(step([-4], [1], [1.0], [-3]), np.array([1]))
    plain.learn(step([0], [1], [1.0], [1]), np.array([1]))
    assert torch.equal(shifted.table, plain.table)
    assert torch.equal(shifted.q_values(torch.tensor([-2, -4])), plain.table[[2, 0]])
    action, carry = shifted.act(np.array([-2, -4]), None, Train(0, np.random.default_rng(0)))
    assert (action.tolist(), carry) == (plain.table[[2, 0]].argmax(dim=1).tolist(), None)


def test_the_table_begins_as_it_is_told():
    agent = QLearning(3, 2, 0.9, Greedy(), initial=1.5)
    assert agent.table.dtype == torch.float64
    assert agent.q_values(torch.tensor([0, 2])).tolist() == [[1.5, 1.5], [1.5, 1.5]]


@pytest.mark.parametrize("lr", [0.0, -0.1, 1.1, float("nan")])
def test_a_step_size_out_of_range_is_refused(lr):
    with pytest.raises(UserError, match=r"agent\.lr"):
        QLearning(3, 2, 0.9, Greedy(), lr=lr)


@pytest.mark.parametrize("make", [QLearning, Sarsa])
def test_a_table_that_is_put_back(make):
    agent, other = agent_with_table(make), make(3, 2, 0.5, Greedy(), lr=0.25)
    saved = agent.state_dict()
    before = copy.deepcopy(saved)
    agent.learn(step([0], [1], [1.0], [1]), np.array([1]))
    assert torch.equal(saved["table"], before["table"])  # what was saved stays
    other.load_state_dict(before)
    other.learn(step([0], [1], [1.0], [1]), np.array([1]))
    assert torch.equal(other.table, agent.table)
    assert not torch.equal(other.table, before["table"])


def test_q_learning_comes_to_the_optimum_of_frozenlake_from_whatever_is_tried():
    """Moves are drawn, so what error remains is set by the step size, which is made smaller on the way."""
    table, gamma = gym.make("FrozenLake-v1").unwrapped.P, 0.9
    best = np.array(best_values(table, gamma, 300))
    agent, rng, errors = QLearning(16, 4, gamma, Greedy()), np.random.default_rng(0), []
    tried = [(s, a) for s in table for a in table[s] if len(table[s][a]) == 3]  # everything, but not in the holes
    state, action = np.array(tried).T
    for lr in (0.3, 0.03, 0.003):
        agent.lr = lr
        for _ in range(1500):
            drawn = [table[s][a][k] for (s, a), k in zip(tried, rng.integers(3, size=len(tried)), strict=True)]
            _, after, reward, terminated = zip(*drawn, strict=True)
            agent.learn(step(state, action, reward, after, terminated=terminated), action)
        errors.append(np.abs(agent.table.numpy() - best).max())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.05 < 0.5 < best.max()


def test_a_table_that_cannot_fit_is_refused_before_it_is_allocated(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 20 * 10**9)
    with pytest.raises(UserError, match=r"1,000,000,000 states × 2 actions.* 32\.00 GB, but 20\.00 GB"):
        QLearning(10**9, 2, 0.9, Greedy())
