"""Batch renormalisation against the equations in double precision, and against torch's batch normalisation."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from rl_runner.networks.layers import Acting, Frozen, FullyConnected
from rl_runner.networks.renorm import BatchRenorm, has_batch_norm

EPS = 1e-3


def with_weights(layer: BatchRenorm) -> BatchRenorm:
    with torch.no_grad():
        layer.weight.copy_(torch.rand_like(layer.weight) + 0.5)
        layer.bias.copy_(torch.randn_like(layer.bias))
    return layer


@pytest.mark.parametrize("members", [1, 3])
def test_outputs_and_running_statistics_are_those_of_the_equations(members: int) -> None:
    """Ioffe 2017, algorithm 1, with batches whose mean and deviation reach beyond both bounds."""
    torch.manual_seed(0)
    layer = with_weights(BatchRenorm(5, members, momentum=0.1, warm_up=2, r_max=1.5, d_max=0.7))
    shape = (6, 5) if members == 1 else (members, 6, 5)
    mean, var, clipped = np.zeros((members, 1, 5)), np.ones((members, 1, 5)), set()
    weight, bias = (x.detach().double().numpy() for x in (layer.weight, layer.bias))
    for update in range(6):
        x = torch.randn(shape) * torch.tensor([0.2, 1.0, 4.0, 1.0, 0.01]) + torch.tensor([0.0, 0.5, 0.0, -3.0, 1.0])
        rows = x.double().numpy().reshape(members, 6, 5)
        m, v = rows.mean(axis=1, keepdims=True), rows.var(axis=1, keepdims=True)
        sigma, running = np.sqrt(v + EPS), np.sqrt(var + EPS)
        r, d = np.clip(sigma / running, 1 / 1.5, 1.5), np.clip((m - mean) / running, -0.7, 0.7)
        if update < 2:
            r, d = np.ones_like(r), np.zeros_like(d)
        else:
            clipped |= {*r.ravel(), *d.ravel()} & {1 / 1.5, 1.5, -0.7, 0.7}
        wanted = ((rows - m) / sigma * r + d) * weight + bias
        np.testing.assert_allclose(layer(x).detach().numpy().reshape(members, 6, 5), wanted, rtol=1e-4, atol=1e-5)
        mean, var = mean + 0.1 * (m - mean), var + 0.1 * (v - var)
        np.testing.assert_allclose(layer.mean, mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(layer.var, var, rtol=1e-5)
    assert clipped == {1 / 1.5, 1.5, -0.7, 0.7}
    assert int(layer.batches) == 6
    layer.eval()
    wanted = (rows - mean) / np.sqrt(var + EPS) * weight + bias
    np.testing.assert_allclose(layer(x).detach().numpy().reshape(members, 6, 5), wanted, rtol=1e-4, atol=1e-5)
    assert int(layer.batches) == 6


def test_in_the_warm_up_it_is_batch_normalisation() -> None:
    torch.manual_seed(0)
    ours = with_weights(BatchRenorm(4))
    theirs = nn.BatchNorm1d(4, EPS)
    theirs.load_state_dict({"weight": ours.weight.flatten(), "bias": ours.bias.flatten()}, strict=False)
    x, weight = torch.randn(7, 4, requires_grad=True), torch.randn(7, 4)
    (gradient,) = torch.autograd.grad((ours(x) * weight).sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad((theirs(x) * weight).sum(), x)[0])


def test_no_gradient_goes_through_the_correction() -> None:
    """With r and d as constants the output is r times that of batch normalisation, plus d."""
    torch.manual_seed(0)
    layer = with_weights(BatchRenorm(3, warm_up=0))
    layer.mean.normal_()
    layer.var.uniform_(0.5, 2.0)
    x, weight = torch.randn(9, 3, dtype=torch.float64, requires_grad=True), torch.randn(9, 3, dtype=torch.float64)
    double = copy.deepcopy(layer).double()
    m, sigma = x.mean(0), (x.var(0, correction=0) + EPS).sqrt()
    running = (double.var + EPS).sqrt().flatten()
    r, d = (sigma / running).detach(), ((m - double.mean.flatten()) / running).detach()
    wanted = ((x - m) / sigma * r + d) * double.weight.flatten() + double.bias.flatten()
    leaves = [x, double.weight, double.bias]
    of_double = torch.autograd.grad((double(x) * weight).sum(), leaves)
    for got, expected in zip(of_double, torch.autograd.grad((wanted * weight).sum(), leaves), strict=True):
        torch.testing.assert_close(got, expected)
    rows = x.detach().float().requires_grad_()
    (gradient,) = torch.autograd.grad((layer(rows) * weight.float()).sum(), rows)
    torch.testing.assert_close(gradient, of_double[0].float(), rtol=1e-4, atol=1e-5)


def test_some_of_the_members() -> None:
    layer = with_weights(BatchRenorm(3, members=4)).eval()
    layer.mean.normal_()
    x = torch.randn(4, 5, 3)
    torch.testing.assert_close(layer(x[1:3], slice(1, 3)), layer(x)[1:3])


@pytest.mark.parametrize("context", [Acting, Frozen])
def test_acting_and_frozen_layers_use_the_running_statistics_and_leave_them(context: type[Acting]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(BatchRenorm(3), nn.Dropout(0.5))
    network(torch.randn(8, 3))
    before, one = copy.deepcopy(network.state_dict()), torch.randn(1, 3)
    with context(network):
        out = network[0](one)
        assert network[1].training == (context is Frozen)
    torch.testing.assert_close(out, copy.deepcopy(network).eval()(one))
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())
    assert network[0].training


def test_hidden_layers_have_one_before_each_linear_layer_and_one_at_the_end() -> None:
    layers, width = FullyConnected((7, 6), batch_norm=True).build(5)
    kinds = [BatchRenorm, nn.Linear, nn.ReLU]
    assert [type(layer) for layer in layers] == [*kinds, *kinds, BatchRenorm]
    assert [layer.weight.shape[-1] for layer in layers if isinstance(layer, BatchRenorm)] == [5, 7, 6]
    assert width == 6
    assert has_batch_norm(layers)
    assert not has_batch_norm(FullyConnected((7, 6), layer_norm=True).build(5)[0])
