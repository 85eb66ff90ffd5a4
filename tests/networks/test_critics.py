"""An ensemble of critics against as many separate stacks of torch's own layers."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rl_runner.networks.critics import Critic, ensemble_loss, min_over_critics, values_and_next
from rl_runner.networks.layers import FullyConnected
from rl_runner.values import Categorical, Scalar


def separate(critic: Critic, activation: type[nn.Module]) -> list[nn.Sequential]:
    """The same weights in stacks of nn.Linear and nn.LayerNorm."""
    stacks = []
    for k in range(critic.members):
        layers: list[nn.Module] = []
        for i, layer in enumerate(critic.layers):
            linear = nn.Linear(*layer.weight.shape[1:])
            linear.load_state_dict({"weight": layer.weight[k].T, "bias": layer.bias[k, 0]})
            layers.append(linear)
            if i == len(critic.layers) - 1:
                break
            if critic.norms:
                norm = nn.LayerNorm(layer.weight.shape[2])
                norm.load_state_dict({"weight": critic.norms[i].weight[k, 0], "bias": critic.norms[i].bias[k, 0]})
                layers.append(norm)
            layers.append(activation())
        stacks.append(nn.Sequential(*layers))
    return stacks


@pytest.mark.parametrize("outputs", [1, 5])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("members", [1, 2, 3])
def test_values_and_gradients_are_those_of_separate_networks(members: int, layer_norm: bool, outputs: int) -> None:
    torch.manual_seed(0)
    critic = Critic(3, 2, FullyConnected((7, 6), "tanh", layer_norm), outputs, members)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # LayerNorm too
    stacks = separate(critic, nn.Tanh)
    features, action = torch.randn(4, 3), torch.randn(4, 2, requires_grad=True)
    ours = critic(features, action)
    theirs = torch.stack([stack(torch.cat([features, action], dim=1)) for stack in stacks])
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn_like(ours)
    (gradient,) = torch.autograd.grad((ours * weight).sum(), action, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad((theirs * weight).sum(), action, retain_graph=True)[0])
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    for k, stack in enumerate(stacks):
        for layer, linear in zip(critic.layers, (m for m in stack if isinstance(m, nn.Linear)), strict=True):
            torch.testing.assert_close(layer.weight.grad[k], linear.weight.grad.T)
            torch.testing.assert_close(layer.bias.grad[k, 0], linear.bias.grad)
    torch.testing.assert_close(critic(features, action, slice(0, 1)), ours[:1])


def batch_normalised(critic: Critic, k: int) -> nn.Sequential:
    """Return the weights of one critic in layers of torch's own."""
    layers: list[nn.Module] = []
    for norm, layer in zip(critic.renorms, critic.layers, strict=True):
        before = nn.BatchNorm1d(layer.weight.shape[1], eps=1e-3)
        before.load_state_dict({"weight": norm.weight[k, 0], "bias": norm.bias[k, 0]}, strict=False)
        linear = nn.Linear(*layer.weight.shape[1:])
        linear.load_state_dict({"weight": layer.weight[k].T, "bias": layer.bias[k, 0]})
        layers += [before, linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def test_with_batch_normalisation_a_batch_and_its_successors_are_normalised_together() -> None:
    torch.manual_seed(0)
    critic = Critic(3, 2, FullyConnected((7, 6), "tanh", batch_norm=True), 1, 2)
    stacks = [batch_normalised(critic, k) for k in range(2)]
    now, following = (torch.randn(4, 3), torch.randn(4, 2)), (torch.randn(4, 3) + 5, torch.randn(4, 2))
    together = torch.cat([torch.cat(now, dim=1), torch.cat(following, dim=1)])
    wanted = torch.stack([stack(together) for stack in stacks])
    values, next_values = values_and_next(critic, critic, now, following)
    torch.testing.assert_close(values, wanted[:, :4])
    torch.testing.assert_close(next_values, wanted[:, 4:].detach())
    assert values.requires_grad
    assert not next_values.requires_grad
    assert all(int(norm.batches) == 1 for norm in critic.renorms)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    plain, xavier = Critic(60, 4, FullyConnected((50,)), 1, 2), Critic(60, 4, FullyConnected((50,)), 1, 2, "xavier")
    for critic, bound in [(plain, 1 / 8), (xavier, (6 / 114) ** 0.5)]:  # of 64 inputs; of 64 inputs and 50 outputs
        weight = critic.layers[0].weight
        assert 0.98 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not torch.equal(weight[0], weight[1])
    assert not torch.any(xavier.layers[0].bias)
    small = Critic(60, 4, FullyConnected((50,)), 1, 2, "xavier", last_layer=0.003)
    assert 0.002 < small.layers[1].weight.abs().max() <= 0.003
    assert 0 < small.layers[1].bias.abs().max() <= 0.003


def test_the_least_of_several_critics() -> None:
    values = torch.tensor([[[1.0], [5.0]], [[3.0], [2.0]]])  # (2, 2, 1)
    assert min_over_critics(Scalar(), values).tolist() == [[1.0], [2.0]]
    assert torch.equal(min_over_critics(Scalar(), values[:1]), values[0])
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    value = Categorical(-1.0, 1.0, 5)
    for b, chosen in enumerate(min_over_critics(value, logits)):
        means = [float(np.linspace(-1, 1, 5) @ torch.softmax(member[b], 0).numpy()) for member in logits]
        assert torch.equal(chosen, logits[int(np.argmin(means)), b])


@pytest.mark.parametrize("value", [Scalar("mse"), Scalar("huber"), Categorical(-2.0, 2.0, 5)])
def test_the_loss_is_the_sum_over_the_critics_and_the_priority_the_mean(value: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    m = value.outputs_per_action
    values, following = torch.randn(3, 4, m, generator=generator), torch.randn(4, m, generator=generator)
    reward, discount = torch.randn(4, generator=generator), torch.tensor([0.9, 0.0, 0.5, 1.0])
    alone = [value.loss(member, following, reward, discount) for member in values]
    losses, priority = ensemble_loss(value, values, following, reward, discount)
    torch.testing.assert_close(losses, sum(loss for loss, _ in alone))
    torch.testing.assert_close(priority, sum(p for _, p in alone) / 3)


def test_xaviers_bound_does_not_depend_on_the_number_of_critics() -> None:
    torch.manual_seed(0)
    many = Critic(60, 4, FullyConnected((50,)), 1, 20, "xavier")
    bound = (6 / 114) ** 0.5
    assert 0.98 * bound < many.layers[0].weight.abs().max() <= bound
