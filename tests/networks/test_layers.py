"""The small pieces of networks, against closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from rl_runner.networks.layers import (
    ACTIVATIONS,
    Acting,
    FullyConnected,
    NoisyLinear,
    QuantileLevels,
    evaluating,
    linear_layers,
)
from rl_runner.types import UserError

C = math.sqrt(2 / math.pi)  # E[f(z)^2] = E|z| of f(z) = sign(z) sqrt|z|, z standard normal


def noisy(
    weight: list[list[float]], bias: list[float], sigma: list[list[float]], bias_sigma: list[float]
) -> NoisyLinear:
    layer = NoisyLinear(len(weight[0]), len(weight))
    with torch.no_grad():
        for parameter, value in [
            (layer.weight, weight),
            (layer.bias, bias),
            (layer.weight_sigma, sigma),
            (layer.bias_sigma, bias_sigma),
        ]:
            parameter.copy_(torch.tensor(value))
    return layer


CLOSED_FORMS = {
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "tanh": math.tanh,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + math.exp(-x)),
}


def test_every_activation_has_a_closed_form_here() -> None:
    assert set(CLOSED_FORMS) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", CLOSED_FORMS)
def test_fully_connected_is_linear_then_activation(activation: str) -> None:
    layers, width = FullyConnected((3,), activation).build(2)
    assert width == 3
    w, b = (p.detach().double().numpy() for p in layers.parameters())
    x = np.array([[0.5, -2.0], [3.0, 1.0]])
    wanted = np.vectorize(CLOSED_FORMS[activation])(x @ w.T + b)
    np.testing.assert_allclose(layers(torch.tensor(x).float()).detach(), wanted, rtol=1e-5, atol=1e-6)


def test_layer_norm_stands_between_linear_and_activation() -> None:
    layers, _ = FullyConnected((4,), "relu", layer_norm=True).build(2)
    w, b = (p.detach().double().numpy() for p in layers[0].parameters())
    h = np.array([[0.3, -1.0]]) @ w.T + b
    h = (h - h.mean(axis=1, keepdims=True)) / np.sqrt(h.var(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(layers(torch.tensor([[0.3, -1.0]])).detach(), np.maximum(h, 0), rtol=1e-4, atol=1e-6)
    assert [type(m) for m in layers] == [nn.Linear, nn.LayerNorm, nn.ReLU]


def test_no_sizes_is_the_identity() -> None:
    layers, width = FullyConnected().build(5)
    x = torch.randn(2, 5)
    assert width == 5
    assert torch.equal(layers(x), x)


def test_unknown_activation_and_empty_layers_are_told() -> None:
    with pytest.raises(UserError, match=r"activation must be one of relu, .*got 'rleu'"):
        FullyConnected((3,), "rleu")
    with pytest.raises(UserError, match=r"at least 1, got \[3, 0\]"):
        FullyConnected((3, 0))


def test_noisy_starts_as_the_paper_says() -> None:
    layer = NoisyLinear(16, 200, sigma0=0.4)
    assert torch.all(layer.weight_sigma == 0.1)  # 0.4 / sqrt(16)
    assert torch.all(layer.bias_sigma == 0.1)
    for mean in (layer.weight, layer.bias):  # uniform in +-1 / sqrt(16)
        assert 0.2 < mean.abs().max() <= 0.25
        assert mean.std().item() == pytest.approx(0.25 / math.sqrt(3), rel=0.15)


def test_noisy_in_evaluation_is_a_plain_linear_layer() -> None:
    layer = noisy([[1.0, 2.0], [3.0, 4.0]], [0.5, -0.5], [[9.0, 9.0], [9.0, 9.0]], [9.0, 9.0]).eval()
    before = torch.get_rng_state()
    assert layer(torch.tensor([[1.0, -1.0]])).tolist() == [[-0.5, -1.5]]  # 1 - 2 + 0.5, 3 - 4 - 0.5
    assert torch.equal(torch.get_rng_state(), before)


def test_noisy_mean_and_variance() -> None:
    """y_i = W_i x + b_i + f_i (sum_j S_ij g_j x_j + s_i), f, g iid, E f = 0, E f^2 = C."""
    torch.manual_seed(0)
    sigma, bias_sigma, x = [[0.5, 1.0], [0.2, 0.1]], [0.3, 0.7], [2.0, -1.0]
    layer = noisy([[1.0, 2.0], [3.0, 4.0]], [0.5, -0.5], sigma, bias_sigma)
    with torch.no_grad():
        y = torch.stack([layer(torch.tensor([x]))[0] for _ in range(20_000)]).double().numpy()
    # C (C (0.5^2 2^2 + 1^2 1^2) + 0.3^2) and C (C (0.2^2 2^2 + 0.1^2 1^2) + 0.7^2)
    variance = np.array([C * (C * 2.0 + 0.09), C * (C * 0.17 + 0.49)])
    assert y.var(axis=0) == pytest.approx(variance, rel=0.05)
    assert y.mean(axis=0) == pytest.approx([0.5, 1.5], abs=4 * math.sqrt(variance.max() / 20_000))  # 2-2+.5, 6-4-.5
    assert abs(np.corrcoef(y.T)[0, 1]) < 0.04  # outputs have noise of their own


def test_noise_is_factorised_and_shared_by_the_batch() -> None:
    torch.manual_seed(1)
    ones = [[1.0] * 4] * 3
    layer = noisy([[0.0] * 4] * 3, [0.0] * 3, ones, [1.0] * 3)
    with torch.no_grad():
        y = layer(torch.cat([torch.zeros(1, 4), torch.eye(4), torch.eye(4)])).double().numpy()
    noise_out = y[0]  # x = 0 leaves f_i s_i
    noise_in = y[1:5] / noise_out - 1  # x = e_j gives f_i (g_j + 1): the same g_j from every output i
    np.testing.assert_allclose(noise_in, noise_in[:, :1].repeat(3, axis=1), rtol=1e-4)
    assert len(np.unique(noise_in[:, 0].round(4))) == 4
    np.testing.assert_array_equal(y[1:5], y[5:])


def test_each_forward_draws_anew_and_the_seed_decides() -> None:
    layer, x = NoisyLinear(3, 2), torch.ones(1, 3)
    torch.manual_seed(2)
    first, second = layer(x), layer(x)
    torch.manual_seed(2)
    assert not torch.equal(first, second)
    assert torch.equal(layer(x), first)


def test_gradients_reach_sigma() -> None:
    """The noise part is linear in sigma, so it equals the inner product of sigma and the gradient by sigma."""
    torch.manual_seed(3)
    layer, x = NoisyLinear(3, 2), torch.tensor([[0.5, -1.0, 2.0]])
    out = layer(x).sum()
    out.backward()
    spread = out - layer.eval()(x).sum()
    g, s = layer.weight_sigma.grad, layer.bias_sigma.grad
    assert g is not None
    assert s is not None
    assert torch.all(g != 0)
    assert torch.all(s != 0)
    assert ((g * layer.weight_sigma).sum() + (s * layer.bias_sigma).sum()).item() == pytest.approx(
        spread.item(), rel=1e-4
    )
    assert torch.equal(layer.weight.grad, x.expand(2, 3))
    assert torch.equal(layer.bias.grad, torch.ones(2))


def embedded(layer: QuantileLevels, features: np.ndarray, level: float) -> list[float]:
    """Equation 4 of Dabney et al. 2018b, slowly: psi_f relu(sum_i cos(pi i level) w_if + b_f), i from 0."""
    w, b = (p.detach().double().numpy() for p in layer.embedding[0].parameters())
    return [
        x * max(0.0, b[f] + sum(math.cos(math.pi * i * level) * w[f, i] for i in range(w.shape[1])))
        for f, x in enumerate(features)
    ]


@pytest.mark.parametrize("training", [True, False])
def test_levels_are_embedded_as_the_paper_says(training: bool) -> None:
    layer, features = QuantileLevels(5, 3, cosines=16).train(training), torch.randn(4, 5)
    out, level = layer(features)
    count = 3 if training else 32
    assert level.shape == (4, count)
    assert out.shape == (4 * count, 5)
    wanted = [embedded(layer, features[b].numpy(), level[b, k].item()) for b in range(4) for k in range(count)]
    np.testing.assert_allclose(out.detach(), wanted, atol=1e-5)
    assert out.abs().max() > 0.1


def test_levels_are_drawn_anew_for_each_sample_and_pass_and_the_seed_decides() -> None:
    layer, features = QuantileLevels(5, 8), torch.ones(3, 5)
    torch.manual_seed(4)
    first, second = layer(features)[1], layer(features)[1]
    assert len(torch.cat([first, second]).unique()) == 2 * 3 * 8
    torch.manual_seed(4)
    assert torch.equal(layer(features)[1], first)


def test_levels_are_uniform() -> None:
    level = QuantileLevels(2, 50)(torch.zeros(400, 2))[1].flatten().sort().values
    assert level.min() >= 0
    assert level.max() < 1
    ranks = (torch.arange(len(level)) + 0.5) / len(level)
    assert (level - ranks).abs().max() < 1.63 / math.sqrt(len(level))  # Kolmogorov and Smirnov, 1 in 100


@pytest.mark.parametrize(("levels", "count"), [(1, 32), (8, 32), (32, 32), (64, 64)])
def test_levels_of_an_evaluation_are_the_middles_of_equal_parts(levels: int, count: int) -> None:
    layer, before = QuantileLevels(5, levels).eval(), torch.get_rng_state()
    level = layer(torch.randn(2, 5, generator=torch.Generator()))[1]
    np.testing.assert_allclose(level, [[(k + 0.5) / count for k in range(count)]] * 2, atol=1e-7)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_embedding_is_learned_and_its_frequencies_are_not_saved() -> None:
    layer = QuantileLevels(5, 3, cosines=16)
    layer(torch.randn(4, 5))[0].sum().backward()
    assert all(torch.any(p.grad != 0) for p in layer.parameters())
    assert [v.shape for v in layer.state_dict().values()] == [(5, 16), (5,)]


def test_linear_layers_in_order() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Sequential(NoisyLinear(1, 1), nn.LayerNorm(1)), nn.Linear(1, 1)
    )
    assert [type(m) for m in linear_layers(net)] == [nn.Conv2d, NoisyLinear, nn.Linear]


def test_acting_holds_dropout_and_batch_normalisation_still_but_not_noise() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), NoisyLinear(3, 3))
    acting, one = Acting(network), torch.ones(1, 2)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(one)
    seen = int(network[1].num_batches_tracked)
    with acting:
        assert not torch.equal(network(one), network(one))  # the noisy layer
        features = network[:3]
        assert torch.equal(features(one), features(one))
        assert torch.equal(features(one), features(torch.tensor([[1.0, 1.0], [5.0, -9.0]]))[:1])
    assert all(module.training for module in network.modules())
    assert int(network[1].num_batches_tracked) == seen


def test_a_layer_that_stays_in_evaluation_mode_stays_in_it() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).eval())  # trained elsewhere
    with evaluating(network):
        assert not any(layer.training for layer in network.modules())
    assert [layer.training for layer in network.modules()] == [True, True, False]


def test_evaluation_and_acting_restore_the_mode_of_each_layer() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
    for training in (True, False):
        network.train(training)
        with evaluating(network):
            assert not any(layer.training for layer in network.modules())
        with Acting(network):
            assert [layer.training for layer in network] == [training, False, False]
        assert {layer.training for layer in network.modules()} == {training}
