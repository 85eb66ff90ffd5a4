"""What the M numbers per action mean, and the loss that follows from it."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import huber_loss, mse_loss

from rl_runner.types import UserError

LOSSES = ("mse", "huber")


class Scalar:
    """One number: the expected return.

    Args:
        loss: "mse", (target - Q)^2, or "huber" with threshold 1, whose gradient is the TD error clipped to [-1, 1]
            (Mnih et al. 2015).
    """

    size = 1

    def __init__(self, loss: str = "huber") -> None:
        if loss not in LOSSES:
            raise UserError(f"value.loss: {loss!r} is unknown; one of {', '.join(LOSSES)}")
        self._loss = mse_loss if loss == "mse" else huber_loss

    def mean(self, values: Tensor) -> Tensor:
        """(..., 1) -> (...)."""
        return values.squeeze(-1)

    def loss(self, values: Tensor, next_values: Tensor, reward: Tensor, discount: Tensor) -> tuple[Tensor, Tensor]:
        """Compare values with their one-window backup.

        Args:
            values: (B, 1) of the actions taken.
            next_values: (B, 1) of the actions that would be taken next.
            reward: (B,) of the window.
            discount: (B,) of what follows it; 0 where nothing does.

        Returns:
            loss (B,), TD error (B,) = reward + discount * next value - value.
        """
        q = self.mean(values)
        target = reward + discount * self.mean(next_values)
        return self._loss(q, target, reduction="none"), (target - q).detach()
