"""Deep Q-learning (Mnih et al. 2013, 2015), with double estimation (van Hasselt et al. 2016) as a switch.

Dueling, noisy, n-step, prioritized and distributional are parts that come in from outside: the network, the replay,
the value representation. The agent is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from rl_runner.types import Batch, Clock, LearnOutput, State, Sync, UserError, ValueRepresentation


class DQN:
    """Q-learning with a network and its target network.

    Args:
        network: online network, (B, *O) -> (B, A, M), on its device.
        value: what the M numbers mean.
        optimizer: makes the optimizer from the parameters.
        sync: how the target network follows.
        double: the online network chooses the next action, the target network values it.
        clip_grad_value: clip each gradient component to [-x, x]; None: no clipping.
        clip_grad_norm: clip the norm of the whole gradient; None: no clipping.
    """

    def __init__(
        self,
        network: nn.Module,
        value: ValueRepresentation,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        sync: Sync,
        double: bool = False,
        clip_grad_value: float | None = None,
        clip_grad_norm: float | None = None,
    ) -> None:
        for key, clip in [("clip_grad_value", clip_grad_value), ("clip_grad_norm", clip_grad_norm)]:
            if clip is not None and clip <= 0:
                raise UserError(f"agent.{key}: must be above 0, or null for no clipping, got {clip}")
        self.online, self.target = network, sync.make_target(network)
        self.value, self.optimizer, self._sync = value, optimizer(network.parameters()), sync
        self.double, self.clip_grad_value, self.clip_grad_norm = double, clip_grad_value, clip_grad_norm

    @torch.no_grad()
    def policy(self, obs: Tensor) -> Tensor:
        """Give action values (N, A) of observations (N, *O). Noisy networks draw noise here, so that they explore."""
        return self.value.mean(self.online(obs))

    @torch.no_grad()
    def greedy_policy(self, obs: Tensor) -> Tensor:
        """Give action values (N, A) for evaluation: mean weights, no noise."""
        self.online.eval()
        q = self.value.mean(self.online(obs))
        self.online.train()
        return q

    def learn(self, batch: Batch) -> LearnOutput:
        """Do one gradient update."""
        values = _of_action(self.online(batch.obs), batch.action)  # (B, M)
        next_values = self._next_values(batch.next_obs)  # (B, M)
        losses, td_error = self.value.loss(values, next_values, batch.reward, batch.discount)  # (B,), (B,)
        loss = (batch.weight * losses).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = self._clip_gradients()
        self.optimizer.step()
        metrics = {
            "loss": loss.detach(),
            "q_mean": self.value.mean(values.detach()).mean(),
            "td_error": td_error.abs().mean(),
            "grad_norm": grad_norm,
        }
        return LearnOutput(metrics, td_error.abs())

    @torch.no_grad()
    def _next_values(self, next_obs: Tensor) -> Tensor:
        """Give the values (B, M) of the next action: max over target values, or the online network's choice."""
        target = self.target(next_obs)  # (B, A, M)
        choosing = self.online(next_obs) if self.double else target
        return _of_action(target, self.value.mean(choosing).argmax(dim=1))

    def _clip_gradients(self) -> Tensor:
        """Clip as configured; give the norm as it was before."""
        parameters = list(self.online.parameters())
        norm = nn.utils.clip_grad_norm_(parameters, self.clip_grad_norm or float("inf"))
        if self.clip_grad_value is not None:
            nn.utils.clip_grad_value_(parameters, self.clip_grad_value)
        return norm

    def sync(self, before: Clock, now: Clock) -> None:
        """Let the target network follow, told that the clock went from `before` to `now`."""
        self._sync(self.online, self.target, before, now)

    def state_dict(self) -> State:
        """Give networks and optimizer."""
        return {
            "online": self.online.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Put networks and optimizer back."""
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])


def _of_action(values: Tensor, action: Tensor) -> Tensor:
    """Pick each row's action: (B, A, M), (B,) -> (B, M)."""
    return values[torch.arange(len(action), device=action.device), action]
