"""Measures by hand on a table whose every number is known, and that measuring disturbs nothing."""

import copy

import numpy as np
import pytest
import torch

from rl_runner import memory, rng
from rl_runner.agents.planning import PolicyIteration
from rl_runner.envs.gym import GymBackend
from rl_runner.exact.mdp import MDP
from rl_runner.exact.measure import Exact
from rl_runner.types import UserError
from tests.tables import best_values, random_table, values_of

# 0: stay for 1, or the end for 3. 1: stay for 2, or to 0 for 0. 2 is never seen.
TABLE = {
    0: {0: [(1.0, 0, 1.0, False)], 1: [(1.0, 2, 3.0, True)]},
    1: {0: [(1.0, 1, 2.0, False)], 1: [(1.0, 0, 0.0, False)]},
    2: {0: [(1.0, 0, 50.0, False)], 1: [(1.0, 0, 70.0, False)]},
}
# With gamma 0.5: Q*(0) = 1 + 0.5 * 3, 3; Q*(1) = 2 + 0.5 * 4, 0.5 * 3.
BEST = [[2.5, 3.0], [4.0, 1.5], [51.5, 71.5]]


class Fixed:
    """An agent with a table, of states counted from `first`."""

    def __init__(self, q, first=0):
        self.q, self.first, self.asked = torch.tensor(q), first, []

    def q_values(self, obs):
        self.asked.append(obs)
        return self.q[obs - self.first]


def exact(q, first=0, horizon=10):
    return Exact(MDP.from_table(TABLE, [0.25, 0.75, 0.0], horizon, None), Fixed(q, first), 0.5, first)


@pytest.mark.parametrize("first", [0, 7])
def test_perfect_values(first):
    values = exact(BEST, first)()
    assert values["exact/q_error"] == pytest.approx(0, abs=1e-9)
    assert values["exact/overestimation"] == pytest.approx(0, abs=1e-9)
    assert values["exact/overestimation_max"] == pytest.approx(0, abs=1e-9)
    assert values["exact/value"] == pytest.approx(0.25 * 3 + 0.75 * 4)
    assert values["exact/value_optimal"] == pytest.approx(0.25 * 3 + 0.75 * 4)
    assert values["exact/return"] == pytest.approx(0.25 * 3 + 0.75 * 20)


def test_imperfect_values_by_hand():
    # errors 0.5, 0 and -7, 0.5, so max_a Q is 0 too high and 2 too low; in 2 nobody asks
    values = exact([[3.0, 3.0], [-3.0, 2.0], [0.0, 0.0]])()
    # it stays in 0 and goes there from 1: worth 2 and 1, and in ten steps 10 and 9
    assert values == pytest.approx(
        {
            "exact/q_error": 7.0,
            "exact/overestimation": -1.0,
            "exact/overestimation_max": 0.0,
            "exact/value": 0.25 * 2 + 0.75 * 1,
            "exact/value_optimal": 0.25 * 3 + 0.75 * 4,
            "exact/return": 0.25 * 10 + 0.75 * 9,
        }
    )


def test_the_greatest_overestimation():
    values = exact([[2.0, 4.0], [4.0, 9.0], [999.0, 999.0]])()
    assert values["exact/overestimation"] == pytest.approx((1 + 5) / 2)
    assert values["exact/overestimation_max"] == pytest.approx(5)
    assert values["exact/q_error"] == pytest.approx(7.5)


def test_random_tables_against_plain_loops():
    worse = 0
    for seed in range(10):
        table = random_table(seed)
        mdp = MDP.from_table(table, np.full(5, 0.2), 50, None)
        agent = PolicyIteration(mdp, 0.9)
        while not agent.converged:
            agent.learn()
        best = Exact(mdp, agent, 0.9)()
        assert best["exact/q_error"] < 1e-9
        assert best["exact/value"] == pytest.approx(best["exact/value_optimal"], abs=1e-9)
        q = np.random.default_rng(seed).normal(size=(5, 3)).astype(np.float32)
        values = Exact(mdp, Fixed(q), 0.9)()
        policy, wanted = np.eye(3)[q.argmax(axis=1)], np.array(best_values(table, 0.9, 400))
        assert values["exact/value"] == pytest.approx(np.mean(values_of(table, policy, 0.9, 400)))
        assert values["exact/return"] == pytest.approx(np.mean(values_of(table, policy, 1.0, 50)))
        assert values["exact/value_optimal"] == pytest.approx(wanted.max(axis=1).mean())
        assert values["exact/value"] <= values["exact/value_optimal"] + 1e-9
        worse += values["exact/value"] < values["exact/value_optimal"] - 0.1
    assert worse > 5


def test_the_agent_is_asked_once_about_all_states_as_its_environment_shows_them():
    measures = exact(BEST, first=7)
    measures()
    assert [obs.tolist() for obs in measures.agent.asked] == [[7, 8, 9]]
    assert measures.agent.asked[0].dtype == torch.int64  # as the observations of discrete states


def test_no_random_stream_moves():
    backend = GymBackend("FrozenLake-v1", 1)
    agent = PolicyIteration(backend.mdp(), 0.9)
    agent.learn()
    before = copy.deepcopy(agent.state_dict())
    streams = (rng.torch_state()["cpu"], np.random.get_state()[1].copy())  # noqa: NPY002 - the global one
    measures = Exact(backend.mdp(), agent, 0.9)
    assert measures() == measures()
    assert measures.report() == measures.report()
    assert torch.equal(rng.torch_state()["cpu"], streams[0])
    assert (np.random.get_state()[1] == streams[1]).all()  # noqa: NPY002
    assert torch.equal(agent.state_dict()["table"], before["table"])


def test_the_report_draws_the_grid_and_says_what_the_policy_is_worth():
    mdp = GymBackend("rlrun/GridWorld-v0", 1, kwargs={"rows": 1, "columns": 4, "terminals": [[0, 3]]}).mdp()
    q = torch.zeros(4, 4)
    q[:, 1] = torch.tensor([0.5, 0.25, 2.0, 9.0])
    _, _, title, grid, *words = Exact(mdp, Fixed(q.tolist()), 0.5).report()
    assert title == "values and greedy actions of the agent"
    assert grid == "→ 0.50   → 0.25   → 2.00     ·"
    # three, two or one steps: -1.75, -1.5, -1; the largest error is 2 + 1
    text = " ".join(words)
    for number in ("-1.416667, of -1.416667", "by 0.5 a step", "within 100 steps: -2.0000", "an action value: 3"):
        assert number in text


def test_the_report_draws_the_random_policy_too():
    """Sutton & Barto 2018, figure 4.1: a step costs 1, two corners end the episode, no discount."""
    mdp = GymBackend("rlrun/GridWorld-v0", 1, kwargs={"rows": 4, "columns": 4, "terminals": [[0, 0], [3, 3]]}).mdp()
    title, *grid = Exact(mdp, Fixed(torch.zeros(16, 4).tolist()), 1.0).report()[:5]
    assert title == "values of the random policy"
    known = [["·", -14, -20, -22], [-14, -18, -20, -20], [-20, -20, -18, -14], [-22, -20, -14, "·"]]
    assert [line.split() for line in grid] == [[v if v == "·" else f"{v:.2f}" for v in row] for row in known]


def test_without_a_grid_and_a_time_limit_there_are_the_words_alone():
    words = exact(BEST, horizon=None).report()
    assert "→" not in "".join(words)
    assert "within" not in "".join(words)
    assert "an episode: inf;" in "".join(words)


def test_more_states_than_there_is_memory_for_are_refused(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 300)
    with pytest.raises(UserError, match=r"the exact value of a policy in 3 states takes 0\.00 GB"):  # 5 x 8 x 3^2 bytes
        exact(BEST)
    with pytest.raises(UserError, match=r"3 states"):
        PolicyIteration(MDP.from_table(TABLE, [1.0, 0.0, 0.0], 10, None), 0.5)
    monkeypatch.setattr(memory, "free_memory", lambda: 400)
    exact(BEST)
