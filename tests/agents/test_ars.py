"""ARS by hand: which policy acts in which episode, and the update from their returns."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from rl_runner.agents.ars import ARS, along_the_best, episode_returns
from rl_runner.distributions import Gaussian
from rl_runner.networks.actor_critic import ActorCritic
from rl_runner.networks.torsos import MLP
from rl_runner.types import Carry, Evaluate, Train, UserError
from tests.agents.rollouts import SGD, TWO, Table, rollout


def agent(table: Any, **settings: Any) -> ARS:
    return ARS(table, TWO, SGD, **{"std": 0.5, **settings})


def test_returns_are_those_of_whole_episodes() -> None:
    reward, ended = np.array([1.0, 2.0, 3.0, 4.0, 9.0]), np.array([False, True, True, True, False])
    assert episode_returns(reward, ended, 1.0).tolist() == [3, 3, 4]
    assert episode_returns(reward, ended, 0.5).tolist() == [2, 3, 4]


@pytest.mark.parametrize("top", [1, 3, 5])
def test_the_change_is_the_papers(top: int) -> None:
    rng = np.random.default_rng(0)
    returns, directions = rng.normal(size=10), rng.normal(size=(5, 3)).astype(np.float32)
    pairs = sorted(zip(returns[::2], returns[1::2], directions, strict=True), key=lambda p: -max(p[0], p[1]))[:top]
    sigma = np.std([r for pair in pairs for r in pair[:2]])
    wanted = sum((forwards - backwards) * d for forwards, backwards, d in pairs) / (top * sigma)
    np.testing.assert_allclose(along_the_best(returns, directions, top), wanted, rtol=1e-6)


def test_equal_returns_change_nothing() -> None:
    assert along_the_best(np.ones(4), np.ones((2, 3), np.float32), 2).tolist() == [0, 0, 0]
    rounded = np.array([0.1 + 0.2, 0.3, 0.3, 0.3])
    assert along_the_best(rounded, np.ones((2, 3), np.float32), None).tolist() == [0, 0, 0]


def test_an_episode_too_many_is_left_out() -> None:
    """As where the last of an update was lost at a resume, and the loop waits for another one to end."""
    ars, carry = agent(Table([[0.0, 0.0]])), None
    for _ in range(3):
        _, carry = ars.act(np.array([0]), carry, Train(0, np.random.default_rng(0)))
        carry = Carry.begin(carry, np.array([True]))
    first = ars.directions[0]
    list(ars.learn(rollout([0] * 3, [0] * 3, [3, 1, 7], [0] * 3, [1] * 3), 0))
    np.testing.assert_allclose(ars.network.logits.detach().ravel(), 0.1 * 2 * first, rtol=1e-6)


def test_episodes_are_played_forwards_and_backwards_along_each_direction() -> None:
    """Four episodes of two steps, and then an update: r+ - r- is 1 and -3, sigma that of 1, 0, 2 and 5."""
    table = Table([[0.3, -0.1], [0.2, 0.5]])
    start, ars, mode = table.logits.detach().clone().numpy(), agent(table), Train(0, np.random.default_rng(3))
    drawn = np.random.default_rng(3)
    directions = [drawn.standard_normal(4, dtype=np.float32).reshape(2, 2) for _ in range(2)]
    carry, obs = None, np.array([1])
    for episode in range(4):
        wanted = start + (0.5 if episode % 2 == 0 else -0.5) * directions[episode // 2]
        for _ in range(2):
            action, carry = ars.act(obs, carry, mode)
            np.testing.assert_allclose(ars.moved.logits.detach(), wanted, rtol=1e-6)
            assert action.tolist() == [wanted[1].argmax()]
            best, _ = ars.act(obs, None, Evaluate(np.random.default_rng(0)))
            assert best.tolist() == [1]  # evaluation acts by the policy itself
        carry = Carry.begin(carry, np.array([True]))
    assert table.logits.detach().numpy().tolist() == start.tolist()
    ends = [0, 1] * 4
    (metrics,) = ars.learn(rollout([1] * 8, [0] * 8, [1, 0, 0, 0, 2, 0, 4, 1], [0] * 8, ends), 0)
    change = (1 * directions[0] - 3 * directions[1]) / (2 * np.std([1, 0, 2, 5]))
    np.testing.assert_allclose(table.logits.detach(), start + 0.1 * change, rtol=1e-5)
    assert float(metrics["return_mean"]) == 2
    ars.act(obs, carry, mode)  # the next update begins with a new direction, forwards
    third = drawn.standard_normal(4, dtype=np.float32).reshape(2, 2)
    np.testing.assert_allclose(ars.moved.logits.detach(), start + 0.1 * change + 0.5 * third, rtol=1e-5)


def test_values_and_deviations_are_not_moved() -> None:
    torch.manual_seed(0)
    network = ActorCritic(Box(-1, 1, (3,), np.float32), Gaussian((2,)), partial(MLP, sizes=(4,)))
    ars = ARS(network, Gaussian((2,)), SGD)
    ars.act(np.zeros((1, 3), np.float32), None, Train(0, np.random.default_rng(0)))
    before = dict(network.named_parameters())
    moved = {name for name, p in ars.moved.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if not name.startswith("value_") and name != "log_std"}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"std": 0}, "agent.std: must be above 0, got 0"),
        ({"top": 0}, "agent.top: must be at least 1, or null for all directions, got 0"),
    ],
    ids=str,
)
def test_values_out_of_range(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=f"^{line}"):
        agent(Table([[0.0, 0.0]]), **settings)
