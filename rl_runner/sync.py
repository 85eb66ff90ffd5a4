"""How networks follow the online network: the target network, and the average that evaluation acts by."""

from __future__ import annotations

import copy
from typing import TypeVar, cast

import torch
from torch import nn

from rl_runner.schedules import Every
from rl_runner.types import Clock, State, Sync, UserError

M = TypeVar("M", bound=nn.Module)


def target_of(sync: Sync, online: M) -> M:
    """Return the target network of an online network.

    Raises:
        UserError: the sync, which may be the user's own, returns something else.
    """
    target, name = sync.make_target(online), type(sync).__name__
    if not isinstance(target, nn.Module):
        got = type(target).__name__
        raise UserError(f"sync: {name}.make_target must return a module (nn.Module), got a {got}")
    if [p.shape for p in target.parameters()] != [p.shape for p in online.parameters()]:
        raise UserError(f"sync: {name}.make_target must return a network with the parameters of the online one")
    return cast(M, target)


class Hard:
    """Copy the online network periodically (Mnih et al. 2015).

    Args:
        every_updates: copy after this many gradient updates, if neither of the others is given.
        every_steps: copy after this many environment steps.
        every_episodes: copy after this many training episodes.

    Raises:
        UserError: a value out of range.
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
            raise UserError(f"sync.every_{unit}: must be at least 1, got {'null' if period is None else period}")
        self.every = Every(period, unit)

    def make_target(self, online: nn.Module) -> nn.Module:
        """Return a frozen copy."""
        return _frozen_copy(online)

    def __call__(self, online: nn.Module, target: nn.Module, before: Clock, now: Clock) -> None:
        """Copy if the clock crossed a multiple of the period; before the first update copy the buffers."""
        if self.every.crossings(before, now):
            target.load_state_dict(online.state_dict())
        elif now.updates == 0:
            _copy_buffers(online, target)


class Soft:
    """Move the target at each update: target <- target + tau (online - target) (Lillicrap et al. 2016).

    Args:
        tau: in (0, 1].

    Raises:
        UserError: a value out of range.
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
        """Move once per update. Buffers (running statistics) are copied, before the first update too."""
        for _ in range(now.updates - before.updates):
            torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), self.tau)
            _copy_buffers(online, target)
        if now.updates == 0:
            _copy_buffers(online, target)


class NoTarget:
    """No target network: the online network computes the target (Mnih et al. 2013)."""

    def make_target(self, online: nn.Module) -> nn.Module:
        """Return the online network itself."""
        return online

    def __call__(self, online: nn.Module, target: nn.Module, before: Clock, now: Clock) -> None:
        """Do nothing."""


class WeightAverage:
    """An exponential moving average of the weights: average <- decay average + (1 - decay) online, at each update.

    Evaluation acts by it. Training neither acts by it nor learns from it, so it is the same with and without.

    Args:
        online: the network.
        decay: in [0, 1); None: no average, `network` is the online network itself.

    Raises:
        UserError: a value out of range.

    Attributes:
        network: what evaluation acts by.
    """

    def __init__(self, online: nn.Module, decay: float | None) -> None:
        if decay is not None and not 0.0 <= decay < 1.0:
            raise UserError(f"agent.ema_decay: must be in [0, 1), or null for no average, got {decay}")
        self._online = online
        self._follow = NoTarget() if decay is None else Soft(1.0 - decay)
        self.network = self._follow.make_target(online)

    def sync(self, before: Clock, now: Clock) -> None:
        """Update the average after the clock went from `before` to `now`."""
        self._follow(self._online, self.network, before, now)

    def restart(self) -> None:
        """Set the average to the weights of the online network."""
        self.network.load_state_dict(self._online.state_dict())

    def state_dict(self) -> State:
        """Return the average, if there is one."""
        return {} if self.network is self._online else {"average": self.network.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore the average, if there is one."""
        if self.network is not self._online:
            self.network.load_state_dict(state["average"])


@torch.no_grad()
def _copy_buffers(online: nn.Module, target: nn.Module) -> None:
    for old, new in zip(target.buffers(), online.buffers(), strict=True):
        old.copy_(new)


def _frozen_copy(online: nn.Module) -> nn.Module:
    return copy.deepcopy(online).requires_grad_(False)
