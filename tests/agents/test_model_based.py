"""A model from counts: its values are the optimal ones of the dynamics that the observed transitions suggest."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from rl_runner import memory
from rl_runner.agents.model_based import ModelBased
from rl_runner.exact.mdp import MDP, optimal_values
from rl_runner.exploration import Greedy
from rl_runner.types import Train, Transition, UserError

S, A, GAMMA = 5, 2, 0.9


def a_step(state, action, reward, following, terminated, truncated, mask=None):
    flags = (np.array(terminated), np.array(truncated), np.zeros(len(state), bool))
    reward = np.array(reward, np.float32)
    return Transition(np.array(state), np.array(action), reward, *flags, np.array(following), None, mask)


def agent(**kwargs):
    return ModelBased(S, A, GAMMA, Greedy(), **{"plan_every_steps": 1, "tolerance": 1e-12, **kwargs})


def random_steps(rng, count):
    """Steps of three environments in which action 1 of state 4 is never tried; any step may be the last."""
    for _ in range(count):
        state, action = rng.integers(0, S, 3), rng.integers(0, A, 3)
        action[state == 4] = 0
        ends = rng.random((2, 3)) < 0.2
        yield a_step(state, action, rng.integers(-2, 3, 3), rng.integers(0, S, 3), *ends)


def estimated(steps, initial):
    """The dynamics as a table of outcomes with their shares, by counting in dictionaries."""
    seen, rewards = defaultdict(Counter), defaultdict(list)
    for tr in steps:
        for s, a, r, s_next, end in zip(tr.obs, tr.action, tr.reward, tr.next_obs, tr.terminated, strict=True):
            seen[s, a][int(s_next), bool(end)] += 1
            rewards[s, a].append(float(r))
    table = {s: {a: [(1.0, s, initial, True)] for a in range(A)} for s in range(S)}
    for (s, a), outcomes in seen.items():
        mean = sum(rewards[s, a]) / len(rewards[s, a])
        total = sum(outcomes.values())
        table[s][a] = [(n / total, s_next, mean, end) for (s_next, end), n in outcomes.items()]
    return MDP.from_table(table, np.ones(S) / S, None, None)


@pytest.mark.parametrize("initial", [0.0, 3.0])
@pytest.mark.parametrize("count", [1, 7, 200])
def test_values_are_the_optimal_ones_of_the_estimated_dynamics(count, initial):
    steps = list(random_steps(np.random.default_rng(count), count))
    model = agent(initial=initial)
    for tr in steps:
        reported = model.learn(tr, np.zeros(3, int))
    np.testing.assert_allclose(model.table.numpy(), optimal_values(estimated(steps, initial), GAMMA), atol=1e-9)
    assert reported["bellman_error"] <= 1e-12
    assert model.table[4, 1] == initial
    assert model.metrics(0)["tried"] == (model.visits > 0).mean()


def test_it_plans_as_often_as_it_is_told_and_no_longer():
    model = agent(plan_every_steps=6, sweeps=2)
    reports = [model.learn(tr, np.zeros(3, int)) for tr in random_steps(np.random.default_rng(0), 4)]
    assert [bool(report) for report in reports] == [False, True, False, True]  # three steps each
    assert reports[1]["sweeps"] == 2


def test_a_forbidden_action_does_not_count():
    """State 1 allows only action 0, which earns 1; action 1 would be worth the initial 50."""
    model = agent(initial=50.0)
    model.learn(a_step([1], [0], [1.0], [0], [True], [False], np.array([[True, True]])), np.zeros(1, int))
    model.learn(a_step([2], [0], [0.0], [1], [False], [False], np.array([[True, False]])), np.zeros(1, int))
    assert model.table[2, 0].item() == pytest.approx(GAMMA * 1.0)


def test_the_mask_after_an_episodes_end_is_no_mask_of_that_state():
    """An environment may report an empty mask there, which counts as all actions being allowed."""
    model = agent(initial=50.0)
    model.learn(a_step([2], [0], [0.0], [1], [False], [False], np.array([[True, False]])), np.zeros(1, int))
    model.learn(a_step([2], [1], [0.0], [1], [True], [False], np.array([[True, True]])), np.zeros(1, int))
    model.learn(a_step([1], [0], [1.0], [0], [True], [False], np.array([[True, True]])), np.zeros(1, int))
    assert model.table[2, 0].item() == pytest.approx(GAMMA * 1.0)


@pytest.mark.parametrize("envs", [1, 7, 64])
def test_several_environments_plan_as_often_as_one(envs):
    model, still = agent(plan_every_steps=100), np.zeros(envs, int)
    flags = np.zeros(envs, bool), np.zeros(envs, bool)
    plans = [bool(model.learn(a_step(still, still, still, still, *flags), still)) for _ in range(4480 // envs)]
    assert sum(plans) == 44


def test_states_may_be_counted_from_elsewhere_and_are_acted_in():
    model = agent(first_state=-4)
    model.learn(a_step([-4], [1], [2.0], [-3], [True], [False]), np.zeros(1, int))
    assert model.q_values(torch.tensor([-4])).tolist() == [[0.0, 2.0]]
    action, carry = model.act(np.array([-4]), None, Train(0, np.random.default_rng(0)))
    assert (action.tolist(), carry) == ([1], None)


def test_a_restored_model_goes_on_as_the_saved_one():
    rng = np.random.default_rng(3)
    steps = list(random_steps(rng, 20))
    model, other = agent(plan_every_steps=9), agent(plan_every_steps=9)
    for i, tr in enumerate(steps):
        if i == 10:
            other.load_state_dict(model.state_dict())
        model.learn(tr, np.zeros(3, int))
        if i >= 10:
            other.learn(tr, np.zeros(3, int))
    assert torch.equal(model.table, other.table)
    assert model.table.any()


def test_weights_are_the_table_alone_and_what_is_never_tried_keeps_its_value():
    model, other = agent(), agent()
    for tr in random_steps(np.random.default_rng(3), 20):
        model.learn(tr, np.zeros(3, int))
    model.table[4, 1] = 7.0  # never tried
    other.load_weights(model.weights())
    assert torch.equal(other.table, model.table)
    assert model.weights().keys() == {"table"}
    other.learn(a_step([0], [1], [2.0], [0], [True], [False]), np.zeros(1, int))
    assert (other.table[0, 1], other.table[4, 1]) == (2.0, 7.0)


@pytest.mark.parametrize(
    ("key", "value"), [("plan_every_steps", 0), ("sweeps", 0), ("tolerance", 0.0)], ids=lambda x: str(x)
)
def test_what_cannot_be_is_refused(key, value):
    with pytest.raises(UserError, match=rf"^agent\.{key}: must be "):
        agent(**{key: value})


def test_counts_that_cannot_fit_are_refused(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 800)
    with pytest.raises(UserError, match="use fewer states, or agent=q_learning"):
        agent()
