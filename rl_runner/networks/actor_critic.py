"""The network of policy gradients: a policy and a state value, on one torso or on two."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rl_runner.networks.inputs import Normalizer
from rl_runner.networks.layers import in_precision, orthogonal, stream, xavier
from rl_runner.networks.recurrent import Recurrent
from rl_runner.types import Distribution, UserError

INITS = ("default", "xavier", "orthogonal")


class ActorCritic(nn.Module):
    """Parameters of a distribution over actions, and state values, of observations.

    Args:
        observation_space: of one observation.
        distribution: over actions; says how many parameters it has.
        torso: makes a torso from the observation space.
        shared: one torso, with the hidden layers that follow it, for both; otherwise each has its own.
        init: "default" (torch's), "xavier" (uniform), or "orthogonal" with gain sqrt(2); the latter two with zero
            biases. The last layers have the gains 0.01 (policy) and 1 (value) with "orthogonal".
        log_std: of Gaussian policies at the start, in the distribution's units; it is learned, the same for all states.
        precision: "fp32", or "bf16": the torsos compute in bfloat16.
        normalize: normalise observations by their running mean and standard deviation before the torso sees them.
        memory: a recurrent layer after the torso and its hidden layers, "lstm" or "gru"; policy and value each have
            their own, unless they share a torso. None: the network sees the latest observation only.
        memory_units: numbers of the recurrent layer's output.

    Attributes:
        memory_size: S, numbers that are remembered of each environment; 0: none.
        normalizer: running statistics of observations, which the agent updates; None: not normalised.

    Raises:
        UserError: the parts do not fit each other or the observations.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        distribution: Distribution,
        torso: Callable[[gym.Space[Any]], nn.Module],
        shared: bool = False,
        init: str = "orthogonal",
        log_std: float = 0.0,
        precision: str = "fp32",
        normalize: bool = False,
        memory: str | None = None,
        memory_units: int = 64,
    ) -> None:
        super().__init__()
        if init not in INITS:
            raise UserError(f"network.init: must be one of {', '.join(INITS)}, got {init!r}")
        self.precision, self.shared = precision, shared
        self.normalizer = Normalizer(observation_space) if normalize else None
        if self.normalizer:
            observation_space = self.normalizer.space
        free = distribution.state_independent
        recurrent = partial(Recurrent, kind=memory, units=memory_units) if memory is not None else None
        (self.torso, self.hidden), width = stream(torso, observation_space)
        self.recurrent = recurrent(width) if recurrent else None
        width = memory_units if recurrent else width
        self.policy_out = nn.Linear(width, distribution.size - free)
        if not shared:
            (self.value_torso, self.value_hidden), width = stream(torso, observation_space)
            self.value_recurrent = recurrent(width) if recurrent else None
            width = memory_units if recurrent else width
        self.value_out = nn.Linear(width, 1)
        self.log_std = nn.Parameter(torch.full((free,), float(log_std))) if free else None
        if init != "default":
            self.apply(xavier if init == "xavier" else orthogonal)
        layers = [module for module in self.children() if isinstance(module, Recurrent)]
        for layer in layers:
            layer.initialize(init)
        self.memory_size = sum(layer.size for layer in layers)
        if init == "orthogonal":
            nn.init.orthogonal_(self.policy_out.weight, 0.01)
            nn.init.orthogonal_(self.value_out.weight, 1.0)

    def in_words(self) -> str:
        """Return what the network consists of, for the start of a run."""
        memory = [] if self.recurrent is None else [type(self.recurrent.layer).__name__]
        return " + ".join([type(self.torso).__name__, *memory, type(self).__name__])

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """(B, *O) -> parameters of the distribution (B, P), state values (B,). Each observation begins an episode."""
        if self.recurrent is not None:
            memory = torch.zeros(len(obs), self.memory_size, device=obs.device)
            parameters, value, _ = self.recall(obs, memory, torch.ones(len(obs), dtype=torch.bool, device=obs.device))
            return parameters, value
        obs = self._normalized(obs)
        features = self._features(self.torso, self.hidden, obs)
        parameters = self._distribution(features)
        if not self.shared:
            features = self._features(self.value_torso, self.value_hidden, obs)
        return parameters, self.value_out(features).squeeze(1)

    def policy(self, obs: Tensor) -> Tensor:
        """(B, *O) -> parameters of the distribution (B, P) alone, for acting."""
        if self.recurrent is not None:
            return self.forward(obs)[0]
        return self._distribution(self._features(self.torso, self.hidden, self._normalized(obs)))

    def value(self, obs: Tensor) -> Tensor:
        """(B, *O) -> state values (B,) alone."""
        if self.recurrent is not None:
            return self.forward(obs)[1]
        parts = (self.torso, self.hidden) if self.shared else (self.value_torso, self.value_hidden)
        values: Tensor = self.value_out(self._features(*parts, self._normalized(obs)))
        return values.squeeze(1)

    def recall(self, obs: Tensor, memory: Tensor, begins: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return parameters of the distribution (B, P), state values (B,), and what is remembered afterwards (C, S).

        Args:
            obs: (B, *O) of L steps of C sequences, B = L C, in the order of steps, and of sequences within a step.
            memory: (C, S) what is remembered before the first step.
            begins: (B,) an episode begins with this step: what was remembered is forgotten.
        """
        assert self.recurrent is not None
        obs = self._normalized(obs)
        of_policy, of_value = memory.split([self.recurrent.size, self.memory_size - self.recurrent.size], dim=1)
        features, after = self.recurrent(self._features(self.torso, self.hidden, obs), of_policy, begins)
        parameters = self._distribution(features)
        if not self.shared:
            assert self.value_recurrent is not None
            features = self._features(self.value_torso, self.value_hidden, obs)
            features, of_value = self.value_recurrent(features, of_value, begins)
        return parameters, self.value_out(features).squeeze(1), torch.cat([after, of_value], dim=1)

    def _normalized(self, obs: Tensor) -> Tensor:
        return obs if self.normalizer is None else self.normalizer(obs)

    def _features(self, torso: nn.Module, hidden: nn.Module, obs: Tensor) -> Tensor:
        features: Tensor = hidden(in_precision(torso, obs, self.precision))
        return features

    def _distribution(self, features: Tensor) -> Tensor:
        parameters: Tensor = self.policy_out(features)
        if self.log_std is None:
            return parameters
        return torch.cat([parameters, self.log_std.expand(parameters.shape[0], -1)], dim=1)
