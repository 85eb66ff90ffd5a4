"""What values mean and their losses, by hand."""

import pytest
import torch

from rl_runner.types import UserError
from rl_runner.values import Scalar

Q, NEXT = torch.tensor([[2.0], [3.0], [1.0]]), torch.tensor([[10.0], [1e9], [2.0]])
REWARD, DISCOUNT = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([0.9, 0.0, 0.75])
# targets 1 + 0.9 * 10 = 10, -2 + 0 = -2, 0 + 0.75 * 2 = 1.5; errors 8, -5, 0.5
TD = [8.0, -5.0, 0.5]


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        ("mse", [64.0, 25.0, 0.25]),
        ("huber", [7.5, 4.5, 0.125]),  # |e| - 0.5 beyond 1, e^2 / 2 within
    ],
)
def test_loss_and_error_per_sample(loss: str, wanted: list[float]) -> None:
    losses, td = Scalar(loss).loss(Q, NEXT, REWARD, DISCOUNT)
    assert losses.tolist() == pytest.approx(wanted)
    assert td.tolist() == pytest.approx(TD)


@pytest.mark.parametrize(("loss", "gradient"), [("mse", [-16.0, 10.0, -1.0]), ("huber", [-1.0, 1.0, -0.5])])
def test_gradient(loss: str, gradient: list[float]) -> None:
    """d/dq: -2 e for mse; for huber the error clipped to [-1, 1], negated."""
    q = Q.clone().requires_grad_()
    losses, td = Scalar(loss).loss(q, NEXT, REWARD, DISCOUNT)
    losses.sum().backward()
    assert q.grad is not None
    assert q.grad[:, 0].tolist() == pytest.approx(gradient)
    assert not td.requires_grad


def test_huber_is_the_default() -> None:
    assert Scalar().loss(Q, NEXT, REWARD, DISCOUNT)[0].tolist() == pytest.approx([7.5, 4.5, 0.125])


def test_mean_drops_the_last_axis() -> None:
    assert Scalar.size == 1
    assert torch.equal(Scalar().mean(torch.arange(6.0).reshape(3, 2, 1)), torch.arange(6.0).reshape(3, 2))
    assert Scalar().mean(torch.zeros(1, 1, 1)).shape == (1, 1)  # only the last one


def test_unknown_loss_is_told() -> None:
    with pytest.raises(UserError, match=r"value\.loss: 'l1' is unknown; one of mse, huber"):
        Scalar("l1")
