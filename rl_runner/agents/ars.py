"""Augmented random search (Mania et al. 2018): a policy that is learned without gradients of its network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rl_runner.compute import on_device
from rl_runner.distributions import mask_on
from rl_runner.policies import PolicyLearner
from rl_runner.rollouts import rows_of
from rl_runner.schedules import LinearSchedule
from rl_runner.types import (
    Array,
    BoolArray,
    Carry,
    Distribution,
    DoubleArray,
    FloatArray,
    Mode,
    Rollout,
    State,
    Train,
    UserError,
)


class ARS(PolicyLearner):
    """Plays two episodes for each of several random directions, with the policy moved forwards and backwards along it.

    Each update moves the policy along the directions, weighted by the differences of the two returns. Actions are the
    most probable ones, in training too. The state value of the network is not used.

    Args:
        network: the policy, on its device; without a memory.
        distribution: over actions.
        optimizer: makes the optimizer; plain gradient descent is the paper's.
        gamma: discount per step of the returns; 1 in the paper.
        std: standard deviation of each parameter's change along a direction (nu).
        top: at most so many directions count in an update, those with the highest return of either episode (b); None:
            all do.
        lr_schedule: learning rate by environment step; None leaves the optimizer's own.

    Attributes:
        whole_episodes: rollouts must be whole episodes.
        episodes_in_pairs: an even number of them, two for each direction.
        directions: drawn since the last update, (P,) each.
        played: episodes begun since then, minus one.

    Raises:
        UserError: a value out of range, or a network with a memory.
    """

    whole_episodes = True
    episodes_in_pairs = True

    def __init__(
        self,
        network: nn.Module,
        distribution: Distribution,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        gamma: float = 1.0,
        std: float = 0.05,
        top: int | None = None,
        lr_schedule: LinearSchedule | None = None,
    ) -> None:
        if not std > 0:
            raise UserError(f"agent.std: must be above 0, got {std}")
        if top is not None and top < 1:
            raise UserError(f"agent.top: must be at least 1, or null for all directions, got {top}")
        super().__init__(network, distribution, optimizer, gamma, lr_schedule, None, False)
        if self.memory_size:
            raise UserError("network.memory: must be null with this agent; agent=ppo learns with a memory")
        self.std, self.top = std, top
        self.moved: Any = copy.deepcopy(network)  # acts in training
        self.directions: list[FloatArray] = []
        self.played = -1
        self._used: list[int] = []  # which parameters the policy uses, once an observation is there

    @torch.no_grad()
    def act(
        self, obs: Array, carry: Carry | None, mode: Mode, action_mask: BoolArray | None = None
    ) -> tuple[Array, Carry | None]:
        """Return actions (N, *D) for observations (N, *O): the most probable ones, in training of the moved policy."""
        if not isinstance(mode, Train):
            return super().act(obs, carry, mode, action_mask)
        tensor, allowed = on_device(obs, self.device), mask_on(action_mask, self.device)
        if carry is None or carry.reset.any():
            self._begin(tensor, mode.rng)
        parameters = self.distribution.masked(self.moved.policy(tensor), allowed)
        action: Array = self.distribution.mode(parameters).cpu().numpy()
        return action, Carry({}, np.zeros(len(obs), dtype=np.bool_))

    def learn(self, rollout: Rollout, step: int) -> Iterator[Mapping[str, Tensor]]:
        """Do one update (algorithm 1, V2 with `network.normalize`); yield its metrics."""
        self.anneal(step)
        returns = episode_returns(rollout.reward[:, 0], rollout.ended[:, 0], self.gamma)
        pairs = len(returns) // 2  # an odd one is left over if an episode was lost at a resume
        change = along_the_best(returns[: 2 * pairs], np.stack(self.directions[:pairs]), self.top)
        for parameter in self._parameters:
            parameter.grad = None
        parts = torch.from_numpy(change).float().to(self.device).split([p.numel() for p in self._policy()])
        for parameter, part in zip(self._policy(), parts, strict=True):
            parameter.grad = -part.view_as(parameter).to(parameter.dtype)
        self.optimizer.step()
        self.directions, self.played = [], -1
        yield {
            "return_mean": torch.tensor(returns.mean()),
            "return_std": torch.tensor(returns.std()),
            "grad_norm": torch.tensor(float(np.linalg.norm(change))),
        }
        if self.network.normalizer is not None:
            self.update_normalizer(rows_of(rollout, self.device))

    def state_dict(self) -> State:
        """Return network, optimizer, and the directions since the last update."""
        return {**super().state_dict(), "directions": list(self.directions), "played": self.played, "used": self._used}

    def load_state_dict(self, state: State) -> None:
        """Restore them."""
        super().load_state_dict(state)
        self.directions, self.played = list(state["directions"]), int(state["played"])
        self._used = [int(i) for i in state["used"]]
        if self.directions:
            self._move()

    def _begin(self, obs: Tensor, rng: np.random.Generator) -> None:
        """Begin an episode: with a new direction, or backwards along the last one."""
        if not self._used:
            self._used = self._used_for(obs)
        self.played += 1
        if self.played % 2 == 0:
            self.directions.append(rng.standard_normal(sum(p.numel() for p in self._policy()), dtype=np.float32))
        self._move()

    @torch.no_grad()
    def _move(self) -> None:
        """Set the policy that acts in training: forwards along the last direction, or backwards."""
        self.moved.load_state_dict(self.network.state_dict())
        length = self.std if self.played % 2 == 0 else -self.std
        step = length * torch.from_numpy(self.directions[-1]).to(self.device)
        moved = [parameter for i, parameter in enumerate(self.moved.parameters()) if i in self._used]
        for parameter, part in zip(moved, step.split([p.numel() for p in moved]), strict=True):
            parameter.add_(part.view_as(parameter))

    def _policy(self) -> list[nn.Parameter]:
        """Return the parameters that the policy uses."""
        return [self._parameters[i] for i in self._used]

    @torch.enable_grad()
    def _used_for(self, obs: Tensor) -> list[int]:
        """Return the numbers of the parameters on which the most probable action depends, not those of deviations."""
        grads = torch.autograd.grad(self.network.policy(obs).sum(), self._parameters, allow_unused=True)
        deviations = getattr(self.network, "log_std", None)
        named = enumerate(zip(self._parameters, grads, strict=True))
        return [i for i, (parameter, grad) in named if grad is not None and parameter is not deviations]


def episode_returns(reward: DoubleArray, ended: BoolArray, gamma: float) -> DoubleArray:
    """Return the discounted return of each whole episode (E,) of rewards (T,), which `ended` (T,) divides."""
    parts = np.split(reward, np.flatnonzero(ended) + 1)[: int(ended.sum())]
    return np.array([(gamma ** np.arange(len(part)) * part).sum() for part in parts])


def along_the_best(returns: DoubleArray, directions: FloatArray, top: int | None) -> DoubleArray:
    """Return the change (P,) of an update, before the learning rate: sum (r+ - r-) direction / (b sigma).

    Args:
        returns: (2 K,) of the episodes forwards and backwards, in turn.
        directions: (K, P).
        top: b, directions that count; None: all. sigma is the standard deviation of their 2 b returns; if it is 0, but
            for rounding, nothing changes.
    """
    forwards, backwards = returns[::2], returns[1::2]
    best = np.argsort(-np.maximum(forwards, backwards), kind="stable")[:top]
    used = np.concatenate([forwards[best], backwards[best]])
    sigma = used.std()
    if sigma <= 1e-9 * np.abs(used).max():
        return np.zeros(directions.shape[1])
    return np.asarray((forwards - backwards)[best] @ directions[best] / (len(best) * sigma))
