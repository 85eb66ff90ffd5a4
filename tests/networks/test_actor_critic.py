"""The network of policy gradients: shapes, what is shared, and its first weights."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from rl_runner.distributions import Categorical, Gaussian
from rl_runner.networks.actor_critic import ActorCritic
from rl_runner.networks.torsos import MLP, NipsCNN
from rl_runner.types import UserError

SPACE = Box(-1, 1, (3,), np.float32)
SMALL = partial(MLP, sizes=(8, 8), activation="tanh")


@pytest.mark.parametrize("shared", [False, True])
def test_policy_and_value_alone_are_those_of_the_whole_pass(shared):
    network = ActorCritic(SPACE, Gaussian((2,)), SMALL, shared=shared, log_std=-0.5)
    obs = torch.randn(5, 3)
    parameters, value = network(obs)
    assert parameters.shape == (5, 4)
    assert value.shape == (5,)
    assert torch.equal(network.policy(obs), parameters)
    assert torch.equal(network.value(obs), value)
    assert (parameters[:, 2:] == -0.5).all()


@pytest.mark.parametrize("shared", [False, True])
def test_the_value_teaches_the_policys_torso_only_if_it_is_shared(shared):
    network = ActorCritic(SPACE, Categorical([4]), SMALL, shared=shared)
    network.value(torch.randn(5, 3)).sum().backward()
    taught = [p.grad is not None for p in network.torso.parameters()]
    assert taught == [shared] * len(taught)
    assert network.policy_out.weight.grad is None


def test_orthogonal_weights():
    network = ActorCritic(SPACE, Categorical([4]), SMALL)
    hidden = network.hidden[0].weight
    torch.testing.assert_close(hidden @ hidden.T, 2 * torch.eye(8))
    out = network.policy_out.weight
    torch.testing.assert_close(out @ out.T, 1e-4 * torch.eye(4))
    assert float(network.value_out.weight.detach().norm()) == pytest.approx(1.0)
    assert all((p == 0).all() for name, p in network.named_parameters() if name.endswith("bias"))


def test_images():
    network = ActorCritic(Box(0, 255, (4, 84, 84), np.uint8), Categorical([6]), NipsCNN, shared=True)
    parameters, value = network(torch.randint(0, 256, (2, 4, 84, 84), dtype=torch.uint8))
    assert parameters.shape == (2, 6)
    assert value.shape == (2,)


def test_unknown_initial_weights():
    with pytest.raises(UserError, match=r"^network.init: must be one of default, xavier, orthogonal, got 'x'"):
        ActorCritic(SPACE, Categorical([4]), SMALL, init="x")


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_all_steps_at_once_are_the_same_as_one_after_the_other(shared, kind):
    network = ActorCritic(SPACE, Categorical([4]), SMALL, shared=shared, memory=kind, memory_units=6)
    assert network.memory_size == 6 * (2 if kind == "lstm" else 1) * (1 if shared else 2)
    obs, begins = torch.randn(5, 2, 3), torch.rand(5, 2) < 0.3
    start = torch.randn(2, network.memory_size)
    parameters, value, after = network.recall(obs.flatten(0, 1), start, begins.flatten())
    memory, steps = start, []
    for t in range(5):
        of_step, of_value, memory = network.recall(obs[t], memory, begins[t])
        steps.append((of_step, of_value))
    torch.testing.assert_close(parameters, torch.cat([p for p, _ in steps]))
    torch.testing.assert_close(value, torch.cat([v for _, v in steps]))
    torch.testing.assert_close(after, memory)


@pytest.mark.parametrize("shared", [False, True])
def test_without_a_memory_of_before_observations_begin_an_episode(shared):
    network = ActorCritic(SPACE, Categorical([4]), SMALL, shared=shared, memory="lstm")
    obs = torch.randn(5, 3)
    parameters, value, _ = network.recall(obs, torch.randn(5, network.memory_size), torch.ones(5, dtype=torch.bool))
    assert all(torch.equal(x, y) for x, y in zip(network(obs), (parameters, value), strict=True))
    assert torch.equal(network.policy(obs), parameters)
    assert torch.equal(network.value(obs), value)


@pytest.mark.parametrize("shared", [False, True])
def test_the_value_teaches_the_policys_memory_only_if_it_is_shared(shared):
    network = ActorCritic(SPACE, Categorical([4]), SMALL, shared=shared, memory="gru")
    network.value(torch.randn(5, 3)).sum().backward()
    taught = [p.grad is not None for p in network.recurrent.parameters()]
    assert taught == [shared] * len(taught)
