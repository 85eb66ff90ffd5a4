"""The networks of actor and critics: which loss changes a shared encoder, and the values of discrete actions."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from rl_runner.agents.ddpg import DDPG
from rl_runner.agents.sac import SAC
from rl_runner.exploration import Gaussian
from rl_runner.networks.actors import ActionRange, Deterministic, Logits, SquashedGaussian
from rl_runner.networks.control import ControlNetwork, Encoder
from rl_runner.networks.torsos import MLP
from rl_runner.sync import Hard, Soft
from rl_runner.types import Batch, Clock
from rl_runner.values import Scalar

IMAGES, ACTIONS = Box(0, 255, (3, 12, 12), np.uint8), ActionRange(Box(-1, 1, (2,), np.float32))
SGD = partial(torch.optim.SGD, lr=0.1)


def shared(actor: Any) -> ControlNetwork:
    torch.manual_seed(0)
    return ControlNetwork(IMAGES, 2, 1, Encoder, actor, (8,), critics=2, shared_encoder=True)


def ddpg(**switches: Any) -> DDPG:
    noise = Gaussian(0.1, 0.1, 0)
    return DDPG(shared(Deterministic), ACTIONS, Scalar("mse"), SGD, Soft(0.5), noise, **switches)


def images() -> Batch:
    rng = np.random.default_rng(0)
    obs, following = (torch.from_numpy(rng.integers(0, 256, (4, 3, 12, 12), dtype=np.uint8)) for _ in range(2))
    action = torch.from_numpy(rng.uniform(-1, 1, (4, 2)).astype(np.float32))
    return Batch(obs, action, torch.ones(4), torch.full((4,), 0.9), following, torch.ones(4), np.arange(4))


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in module.state_dict().items()}


def changed(net: ControlNetwork, before: dict[str, torch.Tensor]) -> set[str]:
    """Return the parts with a weight that is no longer what it was."""
    return {name.rpartition(".")[0][:12] for name, x in net.state_dict().items() if not torch.equal(x, before[name])}


def test_the_loss_of_sacs_actor_does_not_change_a_shared_encoder() -> None:
    agent = SAC(shared(SquashedGaussian), ACTIONS, Scalar("mse"), SGD, Hard(every_updates=100), alpha=0.2)
    data, before = images(), copied(agent.network)
    agent._learn_policy(data.obs, agent.alpha)
    assert changed(agent.network, before) == {"actor.head.h", "actor.head.o"}
    agent.learn(data)
    assert "critic.torso" in changed(agent.network, before)
    assert agent.network.actor.torso is agent.network.critic.torso


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("shared_encoder", [False, True])
def test_all_layers_of_a_torso_come_before_the_action(shared_encoder: bool, discrete: bool) -> None:
    """The last one is declared by the torso and built after it."""
    torso, space = partial(MLP, sizes=[7, 5]), Box(-1, 1, (3,), np.float32)
    parts: dict[str, Any] = {"shared_encoder": shared_encoder, "discrete": discrete, "init": "xavier"}
    torch.manual_seed(0)
    net = ControlNetwork(space, 2, 1, torso, Logits if discrete else Deterministic, (6,), **parts)
    assert net.critic.head.layers[0].weight.shape == (1, 5 if discrete else 5 + 2, 6)
    layers = ["torso.hidden.0", "hidden.0"]
    for stream in ["critic"] if shared_encoder else ["critic", "actor"]:
        shapes = [net.get_parameter(f"{stream}.{layer}.weight").shape for layer in layers]
        assert shapes == [(7, 3), (5, 7)]
        assert all((net.get_parameter(f"{stream}.{layer}.bias") == 0).all() for layer in layers)
    obs, action = torch.rand(4, 3), torch.rand(4, 0 if discrete else 2)
    w1, w2 = (net.get_parameter(f"critic.{layer}.weight") for layer in layers)
    features = ((obs @ w1.T).relu() @ w2.T).relu()
    joined = torch.cat([features, action], dim=1)
    (a, b) = net.critic.head.layers
    wanted = ((joined @ a.weight[0] + a.bias[0]).relu() @ b.weight[0] + b.bias[0]).reshape(1, 4, -1)
    values = net.critic(obs) if discrete else net.critic(obs, action)
    torch.testing.assert_close(values.flatten(2), wanted)
    assert shared_encoder or not torch.equal(net.actor.features(obs), features)


def test_the_loss_of_ddpgs_actor_does_not_change_a_shared_encoder() -> None:
    """With a delay of 2 the first update is the critics' alone; the critics are the same after it."""
    with_actor, without = ddpg(), ddpg(policy_delay=2)
    before = copied(with_actor.network)
    for agent in (with_actor, without):
        agent.learn(images())
    assert "actor.head.o" in changed(with_actor.network, before)
    assert "actor.head.o" not in changed(without.network, before)
    assert "critic.torso" in changed(with_actor.network, before)
    for a, b in zip(with_actor.network.critic.parameters(), without.network.critic.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_target_actor_reads_the_target_encoder() -> None:
    """Against an actor with the same head on an encoder of its own."""
    agent, data = ddpg(), images()
    agent.learn(data)
    agent.sync(Clock(), Clock(updates=1))
    target = agent.target
    assert target["actor"].torso is target["critic"].torso
    assert target["actor"].torso is not agent.network.actor.torso
    wanted = target["actor"].head(target["critic"].torso(data.obs))
    torch.testing.assert_close(target["actor"](data.obs), wanted)


def test_critics_of_discrete_actions_return_the_values_of_all() -> None:
    torch.manual_seed(0)
    net = ControlNetwork(Box(-1, 1, (3,), np.float32), 4, 5, Encoder, Logits, (8,), critics=2, discrete=True)
    obs = torch.randn(6, 3)
    assert net.actor(obs).shape == (6, 4)
    values = net.critic(obs)
    assert values.shape == (2, 6, 4, 5)
    one, two = net.critic.head.layers
    hidden = (obs @ one.weight[1] + one.bias[1]).relu()
    torch.testing.assert_close(values[1].flatten(1), hidden @ two.weight[1] + two.bias[1])
