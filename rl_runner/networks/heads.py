"""Heads: features (B, F) -> action values (B, A, M). Any head works with any torso and can be noisy."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from rl_runner.networks.layers import FullyConnected, LinearFactory, NoisyLinear


class _Stream(nn.Module):
    """Hidden layers and an output layer: (B, in_features) -> (B, out_features)."""

    def __init__(self, in_features: int, fc: FullyConnected, out_features: int, linear: LinearFactory) -> None:
        super().__init__()
        self.hidden, width = fc.build(in_features, linear)
        self.out = linear(width, out_features)

    def forward(self, features: Tensor) -> Tensor:
        values: Tensor = self.out(self.hidden(features))
        return values


class SingleStream(nn.Module):
    """One stream for all values.

    Args:
        in_features: F.
        fc: hidden layers between the torso and the output.
        actions: A.
        outputs_per_action: M, numbers per action value.
        noisy: factorised Gaussian noise on all layers of the head (Fortunato et al. 2018).
        sigma0: initial scale of the noise.
    """

    def __init__(
        self,
        in_features: int,
        fc: FullyConnected,
        actions: int,
        outputs_per_action: int,
        noisy: bool = False,
        sigma0: float = 0.5,
    ) -> None:
        super().__init__()
        self.shape = (actions, outputs_per_action)
        self.values = _Stream(in_features, fc, actions * outputs_per_action, _linear_factory(noisy, sigma0))

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, A, M)."""
        values: Tensor = self.values(features)
        by_action: Tensor = values.unflatten(1, self.shape)
        return by_action


Linear = SingleStream  # the name that configurations of older runs hold


class Dueling(nn.Module):
    """Two streams, state value and advantages: Q(s,a) = V(s) + A(s,a) - mean_a' A(s,a') (Wang et al. 2016, eq. 9).

    Arguments as for `SingleStream`; each stream has hidden layers of its own. `noisy_value` says whether the layers of
    the state value are noisy; None: as `noisy` says.
    """

    def __init__(
        self,
        in_features: int,
        fc: FullyConnected,
        actions: int,
        outputs_per_action: int,
        noisy: bool = False,
        sigma0: float = 0.5,
        noisy_value: bool | None = None,
    ) -> None:
        super().__init__()
        self.shape = (actions, outputs_per_action)
        noisy_value = noisy if noisy_value is None else noisy_value
        self.value = _Stream(in_features, fc, outputs_per_action, _linear_factory(noisy_value, sigma0))
        self.advantage = _Stream(in_features, fc, actions * outputs_per_action, _linear_factory(noisy, sigma0))

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, A, M)."""
        value: Tensor = self.value(features).unsqueeze(1)  # (B, 1, M)
        advantage: Tensor = self.advantage(features).unflatten(1, self.shape)  # (B, A, M)
        return value + advantage - advantage.mean(dim=1, keepdim=True)


def _linear_factory(noisy: bool, sigma0: float) -> LinearFactory:
    return partial(NoisyLinear, sigma0=sigma0) if noisy else nn.Linear
