"""What agents that learn a policy from rollouts share: acting, the values of a rollout, gradient steps, their state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rl_runner.compute import on_device
from rl_runner.distributions import draw, mask_on
from rl_runner.networks.layers import Acting, evaluating
from rl_runner.optim import clip_norm, named_state, require_clip, resume_named_state, set_lr
from rl_runner.returns import RewardScale, gae
from rl_runner.rollouts import Rows, ends_of, memories, next_values, on_host, on_rows, rows_of
from rl_runner.schedules import LinearSchedule
from rl_runner.types import Array, BoolArray, Carry, Distribution, DoubleArray, Mode, Rollout, State, Train


class PolicyLearner:
    """A policy with state values, trained from rollouts. Algorithms say how, in `learn`.

    Args:
        network: an `ActorCritic` or alike: returns the distribution's parameters (B, P) and state values (B,); `policy`
            and `value` return one of them. If it has a `memory_size` above 0, it remembers, and `recall` is called.
        distribution: over actions.
        optimizer: makes the optimizer from the parameters.
        gamma: discount per step.
        lr_schedule: learning rate by environment step; None leaves the optimizer's own.
        clip_grad_norm: clip the norm of the whole gradient; None: no clipping.
        normalize_rewards: divide rewards by the standard deviation of the discounted return so far.

    Attributes:
        in_acting: a context in which the network works as where it acts.
        watch: called with the policy's part of the next loss (see `show`), and then forgotten; None: not called.
    """

    def __init__(
        self,
        network: nn.Module,
        distribution: Distribution,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        gamma: float,
        lr_schedule: LinearSchedule | None,
        clip_grad_norm: float | None,
        normalize_rewards: bool,
    ) -> None:
        require_clip(clip_grad_norm)
        self.network: Any = network
        self.in_acting = Acting(network)
        self.distribution, self.gamma = distribution, gamma
        self.optimizer, self.lr_schedule = optimizer(network.parameters()), lr_schedule
        self.clip_grad_norm, self._parameters = clip_grad_norm, list(network.parameters())
        self.device = next(network.parameters()).device
        self.reward_scale = RewardScale(gamma) if normalize_rewards else None
        self.watch: Callable[[Tensor], None] | None = None
        self.memory_size: int = getattr(network, "memory_size", 0)  # a network of the user's own may not have it

    @property
    def acting(self) -> Any:
        """The network that acts, in training and in evaluation."""
        return self.network

    @property
    def discount(self) -> float:
        """The discount per step of the return that the policy is to make larger."""
        return self.gamma

    @torch.no_grad()
    def act(
        self, obs: Array, carry: Carry | None, mode: Mode, action_mask: BoolArray | None = None
    ) -> tuple[Array, Carry | None]:
        """Return actions (N, *D) for observations (N, *O): draws in training, the most probable in evaluation.

        In evaluation a share `epsilon` of the actions is drawn instead, as part of some protocols.
        """
        obs_tensor, allowed = on_device(obs, self.device), mask_on(action_mask, self.device)
        if isinstance(mode, Train):
            with self.in_acting:
                parameters, carry = self._recall(obs_tensor, carry)
            return draw(self.distribution, self.distribution.masked(parameters, allowed), mode.rng), carry
        with evaluating(self.network):  # for torsos of the user's own, with dropout for example
            parameters, carry = self._recall(obs_tensor, carry)
        parameters = self.distribution.masked(parameters, allowed)
        action: Array = self.distribution.mode(parameters).cpu().numpy()
        if mode.epsilon > 0:
            drawn = draw(self.distribution, parameters, mode.rng)
            chosen = mode.rng.random(len(obs)) < mode.epsilon
            action[chosen] = drawn[chosen]
        return action, carry

    def _recall(self, obs: Tensor, carry: Carry | None) -> tuple[Tensor, Carry | None]:
        """Return the distribution's parameters (N, P) for observations (N, *O), and the next carry."""
        if not self.memory_size:
            return self.network.policy(obs), carry
        [memory], begins = memories([carry], len(obs), self.memory_size, self.device)
        parameters, _, after = self.network.recall(obs, memory, begins)
        return parameters, Carry({"memory": after}, np.zeros(len(obs), dtype=np.bool_))

    def outputs(self, obs: Tensor) -> dict[str, Tensor]:
        """Return the distribution's parameters (N, ...) by name, and the most probable actions (N, *D)."""
        parameters = self.network.policy(obs)
        return {**self.distribution.named(parameters), "action": self.distribution.mode(parameters)}

    def metrics(self, step: int) -> dict[str, float]:
        """Nothing to report: the policy explores by itself."""
        return {}

    def rows(self, rollout: Rollout) -> Rows:
        """Return a rollout's rows on the device, with what was remembered before each, if the network remembers."""
        rows = rows_of(rollout, self.device)
        if not self.memory_size:
            return rows
        num_envs = rollout.reward.shape[1]
        memory, begins = memories(rollout.carries[:-1], num_envs, self.memory_size, self.device)
        return rows._replace(memory=memory.flatten(0, 1), begins=begins.flatten(), sequences=num_envs)

    def evaluate(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probabilities of the rows' actions, the policy's entropies, and state values, (B,) each."""
        if rows.memory is None:
            parameters, value = self.network(rows.obs)
        else:
            parameters, value, _ = self.network.recall(rows.obs, rows.memory[: rows.sequences], rows.begins)
        parameters = self.distribution.masked(parameters, rows.action_mask)
        return self.distribution.log_prob(parameters, rows.action), self.distribution.entropy(parameters), value

    def rewards(self, rollout: Rollout) -> DoubleArray:
        """Return the rewards (T, N) to learn from, scaled if that was asked for."""
        if self.reward_scale is None:
            return rollout.reward
        return self.reward_scale(rollout.reward, rollout.ended)

    def cut(self, mask: BoolArray) -> None:
        """End the episodes of the environments in `mask` (N,), after the rollout that was learned last."""
        if self.reward_scale is not None:
            self.reward_scale.cut(mask)

    @torch.no_grad()
    def values(self, rollout: Rollout, value: Tensor) -> tuple[DoubleArray, DoubleArray]:
        """Return the values (T, N) of a rollout's observations, and of their true successors.

        Args:
            rollout: of T steps.
            value: (T N,) of its observations, as the network returned them.
        """
        now = on_host(value).reshape(rollout.reward.shape)
        with self.in_acting:
            of_ends = on_host(self._values_of_ends(rollout))
        return now, next_values(rollout, now, of_ends)

    def _values_of_ends(self, rollout: Rollout) -> Tensor:
        """Return the values (N + K,) of the observations that `ends_of` returns."""
        obs, _ = ends_of(rollout, self.device)
        if not self.memory_size:
            values: Tensor = self.network.value(obs)
            return values
        after, _ = memories(rollout.carries[1:], rollout.reward.shape[1], self.memory_size, self.device)
        memory = torch.cat([after[-1], after[tuple(rollout.cut.T)]])
        _, values, _ = self.network.recall(obs, memory, torch.zeros(len(obs), dtype=torch.bool, device=self.device))
        return values

    def advantages(self, rollout: Rollout, value: Tensor, lam: float) -> tuple[Tensor, Tensor]:
        """Return generalised advantage estimates (B,), and lambda-returns (B,) as targets of the values.

        Args:
            rollout: of T steps.
            value: (B,) of its observations, as the network returned them.
            lam: lambda.
        """
        now, after = self.values(rollout, value)
        discount = np.where(rollout.terminal, 0.0, self.gamma)
        advantage = gae(self.rewards(rollout), now, after, discount, np.where(rollout.ended, 0.0, lam))
        return on_rows(advantage, self.device), on_rows(advantage + now, self.device)

    def show(self, policy_loss: Tensor) -> None:
        """Show the policy's part of a loss, without entropy and values, to `watch`, before the gradient step on it."""
        watch, self.watch = self.watch, None
        if watch is not None:
            watch(policy_loss)

    def step(self, loss: Tensor) -> Tensor:
        """Do one gradient step; return the norm of the gradient before clipping."""
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()
        norm = clip_norm(self._parameters, self.clip_grad_norm)
        self.optimizer.step()
        return norm

    def anneal(self, step: int) -> None:
        """Set the learning rate that the schedule has at an environment step."""
        if self.lr_schedule is not None:
            set_lr(self.optimizer, self.lr_schedule(step))

    def update_normalizer(self, rows: Rows) -> None:
        """Add a rollout's observations to the running statistics.

        This is done after learning, so that a rollout was acted and is learned with the same statistics.
        """
        if self.network.normalizer is not None:
            self.network.normalizer.update(rows.obs)

    def state_dict(self) -> State:
        """Return network, optimizer and statistics."""
        return {
            "network": self.network.state_dict(),
            "optimizer": named_state(self.optimizer, self.network),
            "reward_scale": None if self.reward_scale is None else self.reward_scale.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore them. A resume may change the optimizer's settings."""
        self.network.load_state_dict(state["network"])
        resume_named_state(self.optimizer, self.network, state["optimizer"], self.lr_schedule is not None)
        if self.reward_scale is not None:
            self.reward_scale.load_state_dict(state["reward_scale"])

    def weights(self) -> State:
        """Return the network."""
        return {"network": self.network.state_dict()}

    def load_weights(self, state: State) -> None:
        """Restore the network."""
        self.network.load_state_dict(state["network"])


def standardized(advantage: Tensor) -> Tensor:
    """Return advantages (B,) with mean 0 and standard deviation 1; equal ones are all 0.

    They are centred twice, because the mean of equal numbers is rounded, and dividing by the deviation would turn what
    is left into -1 or 1.
    """
    centred = advantage - advantage.mean()
    centred = centred - centred.mean()
    return centred / (centred.square().mean().sqrt() + 1e-8)
