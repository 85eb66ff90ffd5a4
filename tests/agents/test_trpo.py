"""TRPO by hand: its natural gradient against a Fisher matrix that is written out, its line search, its values."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from rl_runner.agents.trpo import TRPO, conjugate_gradient
from rl_runner.distributions import Categorical
from rl_runner.networks.actor_critic import ActorCritic
from rl_runner.networks.torsos import MLP
from rl_runner.types import Rollout, UserError
from tests.agents.rollouts import SGD, TWO, Table, rollout

THREE = Categorical([3])
LOGITS = [[0.3, -0.2, 0.1], [0.0, 0.5, -0.5]]
PEAKED = [[4.0, -1.0, 0.0], [0.0, 3.0, -2.0]]  # what makes rare actions likely diverges more than its square term says


def seen() -> Rollout:
    return rollout([0, 1, 0, 1, 0], [0, 1, 2, 2, 0], [1, 2, -1, 0.5, 3], [1, 1, 1, 1, 1])


def agent(table: Any, distribution: Any = THREE, **settings: Any) -> TRPO:
    settings = {"gamma": 0.9, "normalize_advantages": False, "cg_steps": 30, **settings}
    return TRPO(table, distribution, SGD, **settings)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def natural_step(logits: np.ndarray, damping: float, max_kl: float) -> np.ndarray:
    """Return the first step that is tried, (S, A). Every step ends an episode, and all values are 0: A = r."""
    data, p = seen(), softmax(logits)
    fisher, gradient = np.zeros((6, 6)), np.zeros(6)
    for s, a, r in zip(data.obs[:, 0], data.action[:, 0], data.reward[:, 0], strict=True):
        block = slice(3 * s, 3 * s + 3)
        fisher[block, block] += (np.diag(p[s]) - np.outer(p[s], p[s])) / 5
        gradient[block] += r * (np.eye(3)[a] - p[s]) / 5
    fisher += damping * np.eye(6)
    direction = np.linalg.solve(fisher, gradient)
    return (np.sqrt(2 * max_kl / (direction @ fisher @ direction)) * direction).reshape(2, 3)


def kl_and_gain(old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    data, p, q = seen(), softmax(old), softmax(new)
    rows = list(zip(data.obs[:, 0], data.action[:, 0], data.reward[:, 0], strict=True))
    kl = np.mean([(p[s] * (np.log(p[s]) - np.log(q[s]))).sum() for s, _, _ in rows])
    return float(kl), float(np.mean([r * (q[s, a] / p[s, a] - 1) for s, a, r in rows]))


def test_conjugate_gradients_solve_linear_equations() -> None:
    rng = np.random.default_rng(0)
    root, b = rng.normal(size=(6, 6)), rng.normal(size=6)
    matrix = torch.from_numpy(root @ root.T + np.eye(6))
    x = conjugate_gradient(lambda v: matrix @ v, torch.from_numpy(b), 20)
    np.testing.assert_allclose(x, np.linalg.solve(matrix.numpy(), b), rtol=1e-5)
    assert conjugate_gradient(lambda v: matrix @ v, torch.zeros(6, dtype=torch.float64), 20).tolist() == [0] * 6


@pytest.mark.parametrize("logits", [LOGITS, PEAKED], ids=["flat", "peaked"])
@pytest.mark.parametrize("damping", [0.01, 0.3])
@pytest.mark.parametrize("max_kl", [1e-4, 0.05, 1.0])
def test_the_step_is_the_longest_that_is_allowed_along_the_natural_gradient(
    logits: list[list[float]], damping: float, max_kl: float
) -> None:
    table = Table(logits)
    metrics = next(iter(agent(table, damping=damping, max_kl=max_kl, shrink=0.7).learn(seen(), 0)))
    old = np.array(logits)
    whole = natural_step(old, damping, max_kl)
    shares = [0.7**k for k in range(10)]
    allowed = [kl <= max_kl and gain > 0 for kl, gain in (kl_and_gain(old, old + x * whole) for x in shares)]
    share = shares[allowed.index(True)]
    np.testing.assert_allclose(table.logits.detach(), old + share * whole, rtol=1e-4, atol=1e-7)
    assert float(metrics["step_share"]) == pytest.approx(share)
    assert float(metrics["kl"]) == pytest.approx(kl_and_gain(old, old + share * whole)[0], rel=1e-3)


def test_if_no_step_is_allowed_the_policy_stays_as_it_is() -> None:
    """The first step is beyond the divergence, and there is no second one."""
    table, old = Table(PEAKED), np.array(PEAKED)
    assert kl_and_gain(old, old + natural_step(old, 0.01, 1.0))[0] > 1.0
    metrics = next(iter(agent(table, damping=0.01, max_kl=1.0, backtracks=1).learn(seen(), 0)))
    assert table.logits.tolist() == torch.tensor(PEAKED, dtype=torch.float64).tolist()
    assert float(metrics["step_share"]) == float(metrics["kl"]) == 0


def test_nothing_to_learn_changes_nothing() -> None:
    table = Table(LOGITS)
    data = seen()._replace(reward=np.zeros((5, 1)))
    all_metrics = list(agent(table, value_epochs=1).learn(data, 0))
    assert table.logits.tolist() == torch.tensor(LOGITS, dtype=torch.float64).tolist()
    assert all(np.isfinite(float(x)) for metrics in all_metrics for x in metrics.values())


def test_values_are_learned_by_gradient_steps_on_the_squared_error() -> None:
    """One step on all rows: the gradient of state 0 is 2 (0 - 1 + 0 + 1 + 0 - 3) / 5, of state 1 2 (-2 - 0.5) / 5."""
    table = Table(LOGITS)
    first, second = agent(table, value_epochs=1, batch_size=10, lam=1.0).learn(seen(), 0)
    np.testing.assert_allclose(table.values.detach(), [0.1 * 2 * 3 / 5, 0.1 * 2 * 2.5 / 5], rtol=1e-6)
    assert float(second["value_loss"]) == pytest.approx((1 + 4 + 1 + 0.25 + 9) / 5)
    assert "value_loss" not in first


@pytest.mark.parametrize("shared", [False, True])
def test_the_values_loss_does_not_change_what_the_policy_uses(shared: bool) -> None:
    torch.manual_seed(0)
    space = Box(-1, 1, (3,), np.float32)
    network = ActorCritic(space, TWO, partial(MLP, sizes=(8,)), shared=shared)
    flags = np.zeros((6, 2), dtype=bool)
    obs = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    data = Rollout(
        *(obs[:6], np.arange(12).reshape(6, 2) % 2, np.arange(12.0).reshape(6, 2), flags, flags, obs[6]),
        *(obs[6, :0], np.empty((0, 2), np.int64)),
    )
    steps = iter(TRPO(network, TWO, SGD, gamma=0.9, value_epochs=2, batch_size=4).learn(data, 0))
    next(steps)
    after_policy = {name: p.clone() for name, p in network.named_parameters()}
    assert len(list(steps)) == 6
    changed = {name for name, p in network.named_parameters() if not torch.equal(p, after_policy[name])}
    values = {"value_out.weight", "value_out.bias"}
    values |= set() if shared else {name for name, _ in network.named_parameters() if name.startswith("value_")}
    assert changed == values


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"lam": 2}, "agent.lam: must be in"),
        ({"max_kl": 0}, "agent.max_kl: must be above 0, got 0"),
        ({"damping": -1}, "agent.damping: must be 0 or more, got -1"),
        ({"shrink": 1.0}, "agent.shrink: must be between 0 and 1, got 1.0"),
        ({"cg_steps": 0}, "agent.cg_steps: must be at least 1, got 0"),
        ({"backtracks": 0}, "agent.backtracks: must be at least 1, got 0"),
        ({"value_epochs": 0}, "agent.value_epochs: must be at least 1, got 0"),
        ({"batch_size": 0}, "agent.batch_size: must be at least 1, got 0"),
    ],
    ids=str,
)
def test_values_out_of_range(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=f"^{line}"):
        agent(Table(LOGITS), **settings)
