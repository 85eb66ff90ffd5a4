"""Heads, against the same maths in float64 numpy."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rl_runner.networks import heads
from rl_runner.networks.heads import Dueling, SingleStream
from rl_runner.networks.layers import FullyConnected, NoisyLinear

B, F, A = 5, 6, 3


def affine(layer: Any, x: np.ndarray) -> np.ndarray:
    return x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()


def stream(module: Any, x: np.ndarray) -> np.ndarray:
    return affine(module.out, np.maximum(affine(module.hidden[0], x), 0))


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(B, F, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [1, 4, 51])
@pytest.mark.parametrize("noisy", [False, True])
def test_linear(features: torch.Tensor, size: int, noisy: bool) -> None:
    head = SingleStream(F, FullyConnected((7,)), A, size, noisy).eval()
    wanted = stream(head.values, features.double().numpy()).reshape(B, A, size)
    np.testing.assert_allclose(head(features).detach(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1, 4, 51])
@pytest.mark.parametrize("noisy", [False, True])
def test_dueling(features: torch.Tensor, size: int, noisy: bool) -> None:
    head = Dueling(F, FullyConnected((7,)), A, size, noisy).eval()
    x = features.double().numpy()
    value, advantage = stream(head.value, x), stream(head.advantage, x).reshape(B, A, size)
    wanted = np.empty((B, A, size))
    for b in range(B):  # each sample by itself: Q = V + A - mean over actions
        for m in range(size):
            wanted[b, :, m] = value[b, m] + advantage[b, :, m] - sum(advantage[b, :, m]) / A
    np.testing.assert_allclose(head(features).detach(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1, 51])
def test_dueling_values_average_to_the_state_value_for_each_sample(features: torch.Tensor, size: int) -> None:
    """For each number of a value by itself too: the mean is over actions alone."""
    head = Dueling(F, FullyConnected((7,)), A, size)
    value = head.value(features)
    torch.testing.assert_close(head(features).mean(dim=1), value)
    assert value.std() > 1e-3  # or a mean over the whole batch would pass as well
    torch.testing.assert_close(head(features[:1]), head(features)[:1])  # other samples do not matter


@pytest.mark.parametrize("head", [SingleStream, Dueling])
def test_noisy_makes_every_layer_noisy(head: Any) -> None:
    fc = FullyConnected((7,))
    quiet, noisy = head(F, fc, A, 1), head(F, fc, A, 1, noisy=True, sigma0=0.25)
    assert not any(isinstance(m, NoisyLinear) for m in quiet.modules())
    assert not any(isinstance(m, nn.Linear) for m in noisy.modules())
    streams = 1 if head is SingleStream else 2
    layers = [m for m in noisy.modules() if isinstance(m, NoisyLinear)]
    assert len(layers) == 2 * streams  # hidden and output
    assert layers[0].weight_sigma[0, 0].item() == pytest.approx(0.25 / F**0.5)
    count = [sum(p.numel() for p in net.parameters()) for net in (quiet, noisy)]
    assert count[1] == 2 * count[0]  # a sigma for each mean


@pytest.mark.parametrize("head", [SingleStream, Dueling])
def test_without_hidden_layers_the_output_reads_the_features(head: Any, features: torch.Tensor) -> None:
    net = head(F, FullyConnected(), A, 2)
    assert net(features).shape == (B, A, 2)
    # SingleStream: F * 6 + 6; dueling: the same and a value stream, F * 2 + 2
    assert sum(p.numel() for p in net.parameters()) == (42 if head is SingleStream else 56)


def test_dueling_streams_have_hidden_layers_of_their_own() -> None:
    head = Dueling(F, FullyConnected((7,)), A, 1)
    assert head.value.hidden[0].weight.data_ptr() != head.advantage.hidden[0].weight.data_ptr()
    # value: 6*7+7 + 7+1 = 57, advantage: 6*7+7 + 7*3+3 = 73
    assert sum(p.numel() for p in head.parameters()) == 130


@pytest.mark.parametrize(("noisy", "noisy_value", "wanted"), [(True, False, (0, 2)), (False, True, (2, 0))])
def test_the_streams_of_a_dueling_head_are_noisy_as_told(
    noisy: bool, noisy_value: bool, wanted: tuple[int, int]
) -> None:
    head = Dueling(F, FullyConnected((7,)), A, 1, noisy, noisy_value=noisy_value)
    count = [sum(isinstance(m, NoisyLinear) for m in s.modules()) for s in (head.value, head.advantage)]
    assert tuple(count) == wanted


def test_configurations_of_older_runs_name_the_single_stream_linear() -> None:
    assert heads.Linear is SingleStream
