"""A2C by hand: one gradient step, its targets, and what truncation and termination are worth."""

import math

import numpy as np
import pytest
import torch

from rl_runner.agents.a2c import A2C
from rl_runner.types import UserError
from tests.agents.rollouts import SGD, TWO, Table, rollout


def test_one_step_by_hand() -> None:
    """Two steps with gamma 0.5: returns 1 + 0.5 (2 + 0.5 * 8) = 4 and 2 + 0.5 * 8 = 6; advantages 4 - 1 and 6 - 2.

    The policy is even, so the gradient of a log-probability is ±0.5 per logit; the loss is a mean over two rows.
    """
    table = Table([[0.0, 0.0]] * 3, [1.0, 2.0, 8.0])
    agent = A2C(table, TWO, SGD, gamma=0.5, clip_grad_norm=None)
    (metrics,) = agent.learn(rollout([0, 1], [0, 1], [1, 2], [0, 0], last_obs=[2]), 0)
    moved = 0.1 * np.array([[3.0, -3.0], [-4.0, 4.0], [0, 0]]) * 0.5 / 2
    np.testing.assert_allclose(table.logits.detach(), moved, rtol=1e-6)
    # 0.5 * mean square: the gradient of each value is 0.5 * 2 * (v - G) / 2
    np.testing.assert_allclose(table.values.detach(), [1 + 0.1 * 3 / 2, 2 + 0.1 * 4 / 2, 8.0], rtol=1e-6)
    assert float(metrics["policy_loss"]) == pytest.approx(math.log(2) * (3 + 4) / 2)
    assert float(metrics["value_loss"]) == pytest.approx((9 + 16) / 2)
    assert float(metrics["entropy"]) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("terminal", "value"),
    [(True, 1.0), (False, 1.0 / (1 - 0.5))],
    ids=["terminated: worth its reward", "truncated: its successor goes on"],
)
def test_endings(terminal: bool, value: float) -> None:
    """Episodes of one step with reward 1, in one state, inside of a rollout and at its end."""
    table = Table([[0.0, 0.0]])
    agent = A2C(table, TWO, torch.optim.SGD, gamma=0.5, clip_grad_norm=None)
    agent.optimizer.param_groups[0]["lr"] = 0.3
    ends = rollout([0] * 3, [0] * 3, [1] * 3, [terminal] * 3, ended=[True] * 3, cut=[0, 1], cut_obs=[0, 0])
    for _ in range(200):
        list(agent.learn(ends, 0))
    assert float(table.values[0]) == pytest.approx(value, abs=1e-4)


def test_entropy_is_made_larger() -> None:
    table = Table([[1.0, -1.0]])
    agent = A2C(table, TWO, SGD, gamma=0.5, entropy_coef=1.0)
    list(agent.learn(rollout([0], [0], [0], [1]), 0))
    assert table.logits[0, 0] < 1.0
    assert table.logits[0, 1] > -1.0


def test_a_wrong_lambda_is_refused() -> None:
    with pytest.raises(UserError, match=r"^agent.lam: must be in \[0, 1\], got 1.5"):
        A2C(Table([[0.0, 0.0]]), TWO, SGD, gamma=0.5, lam=1.5)
