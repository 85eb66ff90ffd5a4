"""How the target network follows the online network."""

from __future__ import annotations

import copy

import torch
from torch import nn

from rl_runner.schedules import Every
from rl_runner.types import Clock, UserError


class Hard:
    """Copy the online network periodically (Mnih et al. 2015).

    Args:
        every_updates: copy after this many gradient updates, if neither of the others is given.
        every_steps: copy after this many environment steps.
        every_episodes: copy after this many training episodes.
    """

    def __init__(
        self, every_updates: int | None = 1000, every_steps: int | None = None, every_episodes: int | None = None
    ) -> None:
        periods = {"steps": every_steps, "episodes": every_episodes}
        given: dict[str, int | None] = {u: p for u, p in periods.items() if p is not None}
        given = given or {"updates": every_updates}
        if len(given) > 1:
            raise UserError("sync: every_steps and every_episodes are both given; leave one of them null")
        ((unit, period),) = given.items()
        if period is None or period < 1:
            raise UserError(f"sync.every_{unit}: must be at least 1, got {period}")
        self.every = Every(period, unit)

    def make_target(self, online: nn.Module) -> nn.Module:
        """Return a frozen copy."""
        return _frozen_copy(online)

    def __call__(self, online: nn.Module, target: nn.Module, before: Clock, now: Clock) -> None:
        """Copy if the clock crossed a multiple of the period."""
        if self.every.crossings(before, now):
            target.load_state_dict(online.state_dict())


class Soft:
    """Move the target at each update: target <- target + tau (online - target) (Lillicrap et al. 2016).

    Args:
        tau: in (0, 1].
    """

    def __init__(self, tau: float) -> None:
        if not 0.0 < tau <= 1.0:
            raise UserError(f"sync.tau: must be in (0, 1], got {tau}")
        self.tau = tau

    def make_target(self, online: nn.Module) -> nn.Module:
        """Return a frozen copy."""
        return _frozen_copy(online)

    @torch.no_grad()
    def __call__(self, online: nn.Module, target: nn.Module, before: Clock, now: Clock) -> None:
        """Move once per update. Buffers (running statistics) are copied."""
        for _ in range(now.updates - before.updates):
            torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), self.tau)
            for old, new in zip(target.buffers(), online.buffers(), strict=True):
                old.copy_(new)


class NoTarget:
    """No target network: the online network computes the target (Mnih et al. 2013)."""

    def make_target(self, online: nn.Module) -> nn.Module:
        """Return the online network itself."""
        return online

    def __call__(self, online: nn.Module, target: nn.Module, before: Clock, now: Clock) -> None:
        """Do nothing."""


def _frozen_copy(online: nn.Module) -> nn.Module:
    return copy.deepcopy(online).requires_grad_(False)
