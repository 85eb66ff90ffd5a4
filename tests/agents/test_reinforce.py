"""REINFORCE against the exact gradient of a small task: all of its episodes, each by its probability."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from rl_runner.agents.reinforce import REINFORCE
from rl_runner.types import UserError
from tests.agents.rollouts import SGD, TWO, Table, rollout

# Two steps. In state 0, actions 0 and 1 lead to the states 1 and 2 with rewards 1 and -2. There both actions end the
# episode, with these rewards.
FIRST, SECOND = [1.0, -2.0], {1: [0.5, 3.0], 2: [4.0, -1.0]}
LOGITS = [[0.3, -0.2], [0.1, 0.4], [-0.5, 0.2]]


def episodes() -> Any:
    for a, b in itertools.product(range(2), repeat=2):
        yield rollout([0, 1 + a], [a, b], [FIRST[a], SECOND[1 + a][b]], [False, True])


def exact_gradient(gamma: float) -> torch.Tensor:
    """Return the gradient of the expected return of state 0."""
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    pi = logits.softmax(dim=1)
    values = [(pi[1 + a] * torch.tensor(SECOND[1 + a], dtype=torch.float64)).sum() for a in range(2)]
    (pi[0] * (torch.tensor(FIRST, dtype=torch.float64) + gamma * torch.stack(values))).sum().backward()
    return logits.grad


def expected_gradient(**settings: Any) -> torch.Tensor:
    """Return the mean over all episodes of the sum over their steps, with the sign of ascent."""
    table = Table(LOGITS, [0.7, -0.3, 1.1])
    pi = table.logits.detach().softmax(dim=1)
    total = torch.zeros_like(table.logits)
    for one in episodes():
        agent = REINFORCE(table, TWO, SGD, **settings)
        agent.step = lambda loss, table=table: torch.autograd.grad(loss, table.logits)[0]
        (metrics,) = agent.learn(one, 0)
        (_, a), (_, b) = zip(one.obs[:, 0], one.action[:, 0], strict=True)
        total -= pi[0, a] * pi[1 + a, b] * metrics["grad_norm"]
    return total


@pytest.mark.parametrize("returns", ["trajectory", "to_go"])
@pytest.mark.parametrize("baseline", ["none", "value"])
def test_the_exact_gradient_on_average(returns: str, baseline: str) -> None:
    given = expected_gradient(gamma=0.9, returns=returns, baseline=baseline)
    torch.testing.assert_close(given, exact_gradient(1.0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("returns", ["trajectory", "to_go"])
def test_the_exact_gradient_on_average_with_the_mean_of_the_other_episode(returns: str) -> None:
    """Over all pairs of episodes, each by its probability."""
    table = Table(LOGITS)
    pi = table.logits.detach().softmax(dim=1)
    total = torch.zeros_like(table.logits)
    steps = [(a, b) for a, b in itertools.product(range(2), repeat=2)]
    for (a, b), (c, d) in itertools.product(steps, repeat=2):
        reward = [FIRST[a], SECOND[1 + a][b], FIRST[c], SECOND[1 + c][d]]
        both = rollout([0, 1 + a, 0, 1 + c], [a, b, c, d], reward, [0, 1, 0, 1])
        agent = REINFORCE(table, TWO, SGD, gamma=1.0, returns=returns, baseline="mean")
        agent.step = lambda loss: torch.autograd.grad(loss, table.logits)[0]
        (metrics,) = agent.learn(both, 0)
        total -= pi[0, a] * pi[1 + a, b] * pi[0, c] * pi[1 + c, d] * metrics["grad_norm"]
    torch.testing.assert_close(total, exact_gradient(1.0), rtol=1e-5, atol=1e-6)


def test_the_mean_of_the_other_episodes() -> None:
    """Returns to go 3, 2 and 4 and 9, 5: the others of the first episode have the mean 6, and so on."""
    agent = REINFORCE(Table([[0.0, 0.0]]), TWO, SGD, gamma=1.0, returns="to_go", baseline="mean")
    three = rollout([0] * 5, [0] * 5, [1, 2, 4, 4, 5], [0, 1, 1, 0, 1])
    returns, _ = agent._returns(three, torch.zeros(5))
    assert returns.tolist() == [3, 2, 4, 9, 5]
    assert agent._baseline(three, returns, torch.zeros(5)).tolist() == [6, 6, 4.75, 3, 3]


def test_the_mean_of_the_others_of_one_episode_is_refused() -> None:
    agent = REINFORCE(Table([[0.0, 0.0]]), TWO, SGD, gamma=1.0, baseline="mean")
    with pytest.raises(
        UserError, match=r"agent\.baseline: must be none or value for rollouts of one episode, got mean"
    ):
        list(agent.learn(rollout([0, 0], [0, 1], [1, 2], [0, 1]), 0))


def test_episodes_of_different_lengths() -> None:
    """Action 0 ends the episode with a reward of 1, action 1 leads to 49 more steps and a return of 2.

    The gradient of the expected return p0 + 2 p1 by the logits of the first state is p0 p1 (-1, 1). A mean over steps
    would point the other way: the long episode would count a fiftieth.
    """
    table = Table([[0.4, -0.1], [0.0, 0.0]])
    pi = table.logits.detach()[0].softmax(dim=0)
    long = rollout([0] + [1] * 49, [1] + [0] * 49, [0] * 49 + [2], [0] * 49 + [1])
    total = torch.zeros(2, dtype=torch.float64)
    for probability, one in ((pi[0], rollout([0], [0], [1], [1])), (pi[1], long)):
        agent = REINFORCE(table, TWO, SGD, gamma=1.0, returns="to_go", baseline="none")
        agent.step = lambda loss, table=table: torch.autograd.grad(loss, table.logits)[0]
        (metrics,) = agent.learn(one, 0)
        total -= probability * metrics["grad_norm"][0]
    wanted = pi[0] * pi[1] * torch.tensor([-1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(total, wanted, rtol=1e-6, atol=1e-9)


def test_a_rollout_of_two_episodes_has_the_mean_of_their_gradients() -> None:
    def gradient(*given: Any) -> Any:
        table = Table([[0.4, -0.1], [0.2, 0.3]], [0.5, -0.5])
        agent = REINFORCE(table, TWO, SGD, gamma=0.9, entropy_coef=0.1)
        agent.step = lambda loss: torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*table.parameters()])])
        (metrics,) = agent.learn(rollout(*given), 0)
        return metrics["grad_norm"]

    short, long = ([0], [1], [3], [1]), ([0, 1, 1], [0, 1, 0], [1, -2, 5], [0, 0, 1])
    both = tuple(a + b for a, b in zip(short, long, strict=True))
    torch.testing.assert_close(gradient(*both), (gradient(*short) + gradient(*long)) / 2)


def test_discounted_credit() -> None:
    """The first state's part is the exact one with discount; later states are not discounted once more, as usual."""
    given = expected_gradient(gamma=0.5, returns="discounted", baseline="none")
    torch.testing.assert_close(given[0], exact_gradient(0.5)[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(given[1:], 2 * exact_gradient(0.5)[1:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("returns", "wanted"),
    [("trajectory", [6, 6, 6, 9, 9]), ("to_go", [6, 5, 3, 9, 5]), ("discounted", [2.75, 3.5, 3, 6.5, 5])],
)
def test_credit_of_two_episodes(returns: str, wanted: list[float]) -> None:
    agent = REINFORCE(Table([[0.0, 0.0]]), TWO, SGD, gamma=0.5, returns=returns, baseline="none")
    both = rollout([0] * 5, [0] * 5, [1, 2, 3, 4, 5], [0, 0, 1, 0, 1])
    assert agent._returns(both, torch.zeros(5))[0].tolist() == wanted


def test_the_return_of_a_whole_episode_is_that_of_one_life_where_a_lost_life_counts_as_an_end() -> None:
    agent = REINFORCE(Table([[0.0, 0.0]]), TWO, SGD, gamma=0.5, returns="trajectory", baseline="none")
    lives = rollout([0] * 5, [0] * 5, [1, 2, 3, 4, 5], [0, 1, 0, 0, 1], ended=[0, 0, 0, 0, 1])
    assert agent._returns(lives, torch.zeros(5))[0].tolist() == [3, 3, 12, 12, 12]


def test_where_an_episode_was_cut_short_the_value_of_its_last_state_stands_for_the_rest() -> None:
    agent = REINFORCE(Table([[0.0, 0.0]] * 3, [5.0, 7.0, 100.0]), TWO, SGD, gamma=0.5)
    cut = rollout([0, 1], [0, 0], [1, 2], [0, 0], ended=[0, 1], last_obs=[2])
    assert agent._returns(cut, torch.tensor([5.0, 7.0]))[0].tolist() == [1 + 0.5 * (2 + 0.5 * 100), 2 + 0.5 * 100]


@pytest.mark.parametrize("returns", ["trajectory", "to_go", "discounted"])
def test_values_are_learned_towards_what_came_after(returns: str) -> None:
    """One SGD step on half of the sum of squares: v + 0.1 * 2 (G - v) * 0.5."""
    table = Table([[0.0, 0.0]] * 2, [1.0, 2.0])
    agent = REINFORCE(table, TWO, SGD, gamma=1.0, returns=returns)
    list(agent.learn(rollout([0, 1], [0, 0], [3, 4], [0, 1]), 0))
    np.testing.assert_allclose(table.values.detach(), [1 + 0.1 * (7 - 1), 2 + 0.1 * (4 - 2)], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"returns": "x"}, "agent.returns: must be one of trajectory, to_go, discounted, got 'x'"),
        ({"baseline": "x"}, "agent.baseline: must be one of none, mean, value, got 'x'"),
    ],
)
def test_what_is_wrong_is_refused(settings: dict[str, str], line: str) -> None:
    with pytest.raises(UserError) as error:
        REINFORCE(Table([[0.0, 0.0]]), TWO, SGD, gamma=1.0, **settings)
    assert str(error.value).startswith(line)
