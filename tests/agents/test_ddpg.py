"""Deterministic policy gradients, by hand: critics and actors whose every number is known."""

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from rl_runner.agents.ddpg import DDPG
from rl_runner.exploration import Gaussian, OrnsteinUhlenbeck
from rl_runner.networks.actors import Deterministic
from rl_runner.networks.control import ControlNetwork, Encoder
from rl_runner.networks.critics import min_over_critics
from rl_runner.schedules import LinearSchedule
from rl_runner.sync import Hard, NoTarget, Soft
from rl_runner.types import Carry, Clock, Evaluate, Train, UserError
from rl_runner.values import Categorical, Scalar
from tests.agents.control import ONE, SGD, Stub, agent_clock, batch, network, random_batch, value_of_endless_reward

QUIET = Gaussian(0.0, 0.0, 0)
TD3 = {"policy_delay": 2, "target_noise": 0.2}


class Linear(nn.Module):
    """Q_k(s, a) = w_k a + v_k s, of one number each; as an actor: a = p s."""

    def __init__(self, w: list[float], v: list[float]) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.tensor(w)), nn.Parameter(torch.tensor(v))

    def forward(self, obs: Tensor, action: Tensor, members: slice = slice(None)) -> Tensor:
        return self.w[members, None, None] * action + self.v[members, None, None] * obs


class Gain(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))

    def forward(self, obs: Tensor) -> Tensor:
        return self.p * obs


def linear_agent(sync: Any = None, optimizer: Any = SGD, **switches: Any) -> DDPG:
    """Two critics. The target's numbers are others: Q' = (2 a + s, a + 3 s), a' = -s."""
    net: Any = Stub(Gain(0.5), Linear([1.0, -1.0], [0.5, 2.0]))
    agent = DDPG(net, ONE, Scalar("mse"), optimizer, sync or Hard(every_updates=100), QUIET, **switches)
    if sync is None:
        with torch.no_grad():
            agent.target["critic"].w.copy_(torch.tensor([2.0, 1.0]))
            agent.target["critic"].v.copy_(torch.tensor([1.0, 3.0]))
            agent.target["actor"].p.fill_(-1.0)
    return agent


# Actions 1 and -2 in the environment's units are 0.5 and -1 for the critics.
BATCH = ([[1.0], [0.5]], [[1.0], [-2.0]], [1.0, -2.0], [0.5, 0.0], [[0.25], [9.0]])


@pytest.mark.parametrize("weight", [[1.0, 1.0], [0.5, 2.0]])
def test_an_update_by_hand(weight: list[float]) -> None:
    agent = linear_agent()
    out = agent.learn(batch(*BATCH, weight))
    # Next action -0.25: Q' = (-0.5 + 0.25, -0.25 + 0.75), the smaller one -0.25. Targets 1 - 0.125 and -2.
    # Q_1 = 0.5 + 0.5 = 1 and -1 + 0.25 = -0.75; Q_2 = -0.5 + 2 = 1.5 and 1 + 1 = 2.
    error = np.array([[1 - 0.875, -0.75 + 2], [1.5 - 0.875, 2 + 2]])
    assert out.metrics["loss"].item() == pytest.approx(float((weight * error**2).sum() / 2))
    assert out.priority is not None
    assert out.priority.tolist() == pytest.approx(np.abs(error).mean(axis=0).tolist())
    gradient_w = (weight * error * [0.5, -1.0]).sum(axis=1)  # 2 error a / 2 samples
    gradient_v = (weight * error * [1.0, 0.5]).sum(axis=1)
    w = np.array([1.0, -1.0]) - 0.1 * gradient_w
    assert agent.network.critic.w.tolist() == pytest.approx(w.tolist())
    assert agent.network.critic.v.tolist() == pytest.approx((np.array([0.5, 2.0]) - 0.1 * gradient_v).tolist())
    # The actor climbs the first critic as it is now: d/dp mean of w_1 p s = w_1 mean s.
    assert agent.network.actor.p.item() == pytest.approx(0.5 + 0.1 * w[0] * 0.75)
    assert agent.target["actor"].p.item() == -1.0
    assert not any(x.requires_grad for x in (*out.metrics.values(), out.priority))


def test_the_noise_of_the_target_is_clipped_and_so_is_its_action() -> None:
    agent = linear_agent(target_noise=100.0, target_noise_clip=0.5)  # nearly always +-0.5
    torch.manual_seed(0)
    obs = torch.tensor([[0.75]] * 2000)  # the target's action is -0.75
    values = min_over_critics(agent.value, agent.target["critic"](obs, agent._next_action(obs)))[:, 0]
    action = torch.tensor([-1.0, -0.25])
    low = torch.minimum(2 * action + 0.75, action + 2.25)
    outside = (torch.isclose(values[:, None], low).any(dim=1)).float().mean()
    assert outside.item() > 0.98
    share = torch.isclose(values, low[0]).float().mean().item()
    assert share == pytest.approx(0.5, abs=0.04)
    assert values.min() >= low[0] - 1e-6


def test_the_actor_and_the_targets_move_at_every_second_update() -> None:
    agent = linear_agent(Soft(0.5), policy_delay=2)
    clock = agent_clock()
    for update in range(1, 7):
        actor, target = agent.network.actor.p.item(), copy.deepcopy(agent.target.state_dict())
        out = agent.learn(batch(*BATCH))
        agent.sync(*next(clock))
        due = update % 2 == 0
        assert (agent.network.actor.p.item() != actor) == due
        assert ("actor_value" in out.metrics) == due
        assert all(torch.any(v != target[k]) == due for k, v in agent.target.state_dict().items())
        if due:
            wanted = (target["actor.p"] + agent.network.actor.p) / 2
            torch.testing.assert_close(agent.target["actor"].p, wanted)


def test_learning_rates() -> None:
    agent = linear_agent(actor_lr=0.01, lr_schedule=LinearSchedule(0.1, 0.0, 100))
    for step, rates in [(0, [0.1, 0.01]), (50, [0.05, 0.005]), (100, [0.0, 0.0]), (50, [0.05, 0.005])]:
        agent.sync(Clock(), Clock(steps=step))
        assert [group["lr"] for group in agent.optimizer.param_groups] == pytest.approx(rates)


ADAM = partial(torch.optim.Adam, lr=1e-2)


@pytest.mark.parametrize("switches", [{"critics": 1}, {"critics": 2, **TD3}], ids=["ddpg", "td3"])
@pytest.mark.parametrize("terminated", [True, False])
def test_a_truncated_episode_bootstraps_from_its_successor_and_a_terminated_one_does_not(
    switches: dict[str, Any], terminated: bool
) -> None:
    more = {k: v for k, v in switches.items() if k != "critics"}
    agent = DDPG(network(critics=switches["critics"]), ONE, Scalar("mse"), ADAM, Soft(0.2), QUIET, **more)
    assert value_of_endless_reward(agent, terminated) == pytest.approx(1.0 if terminated else 2.0, abs=0.1)


@pytest.mark.parametrize("terminated", [True, False])
def test_the_same_with_a_distribution(terminated: bool) -> None:
    value = Categorical(-1.0, 4.0, 26)
    agent = DDPG(network(critics=1, outputs=26), ONE, value, ADAM, Soft(0.2), QUIET)
    value_of_endless_reward(agent, terminated)
    mean = value.mean(agent.network.critic(torch.full((1, 3), 0.5), torch.zeros(1, 1)))
    assert mean.item() == pytest.approx(1.0 if terminated else 2.0, abs=0.1)


class Quadratic(nn.Module):
    """Q(s, a) = -(a - s / 2)^2."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, obs: Tensor, action: Tensor, members: slice = slice(None)) -> Tensor:
        return -((action - obs[:, :1] / 2) ** 2)[None] + 0 * self.unused


def test_the_actor_finds_the_best_actions() -> None:
    """Of each observation, in the environment's units."""
    net: Any = Stub(network().actor, Quadratic())
    agent = DDPG(net, ONE, Scalar("mse"), ADAM, Soft(0.1), QUIET)
    for i in range(200):
        agent.learn(random_batch(i, 32))
    obs = np.random.default_rng(1).uniform(-1, 1, (50, 3)).astype(np.float32)
    chosen, _ = agent.act(obs, None, Evaluate(np.random.default_rng(0)))
    np.testing.assert_allclose(chosen[:, 0], 2 * obs[:, 0] / 2, atol=0.15)


def test_acting() -> None:
    obs = np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32)

    def act(mode: Any, noise: Any = QUIET, **more: Any) -> np.ndarray:
        agent = DDPG(network(), ONE, Scalar("mse"), ADAM, Soft(0.1), noise, **more)
        return agent.act(obs, None, mode)[0]

    greedy = act(Evaluate(np.random.default_rng(0)))
    assert greedy.shape == (200, 1)
    assert greedy.dtype == np.float32
    assert np.array_equal(greedy, act(Train(5, np.random.default_rng(0))))  # without noise
    noisy = act(Train(5, np.random.default_rng(0)), Gaussian(0.1, 0.1, 0)) - greedy
    assert noisy.std() == pytest.approx(0.2, rel=0.15)  # of a range of 4
    early = act(Train(4, np.random.default_rng(0)), random_steps=5)
    assert early.min() < -1.9
    assert early.max() > 1.9
    assert np.array_equal(greedy, act(Train(5, np.random.default_rng(0)), random_steps=5))


def test_noise_with_a_memory_is_carried_and_forgotten_where_an_episode_began() -> None:
    agent = DDPG(network(), ONE, Scalar("mse"), ADAM, Soft(0.1), OrnsteinUhlenbeck(0.1, 0.1, 0, theta=0.01))
    obs, mode = np.zeros((2, 3), np.float32), Train(0, np.random.default_rng(0))
    carry = None
    for _ in range(200):
        _, carry = agent.act(obs, carry, mode)
    assert carry is not None
    before = carry.state["noise"].copy()
    carry = Carry.begin(carry, np.array([True, False]))
    _, carry = agent.act(obs, carry, mode)
    assert carry is not None
    assert abs(carry.state["noise"][0, 0]) < 0.6  # one draw, of a deviation of 0.14
    assert abs(carry.state["noise"][1, 0] - before[1, 0]) < 0.6
    assert not carry.reset.any()


@pytest.mark.parametrize("sync", [Hard(every_updates=2), Soft(0.1), NoTarget()])
def test_a_restored_agent_learns_on_bit_for_bit(sync: Any) -> None:
    def made(seed: int) -> DDPG:
        return DDPG(network(seed=seed), ONE, Scalar("mse"), ADAM, sync, QUIET, **TD3)

    def learn(agent: DDPG, first: int, last: int) -> None:
        for i in range(first, last):
            agent.learn(random_batch(i))
            agent.sync(Clock(updates=i), Clock(updates=i + 1))

    whole, fresh = made(0), made(1)
    learn(whole, 0, 3)
    state, stream = copy.deepcopy(whole.state_dict()), torch.get_rng_state()
    learn(whole, 3, 8)
    fresh.load_state_dict(state)
    torch.set_rng_state(stream)
    learn(fresh, 3, 8)
    for mine, wanted in ((fresh.network, whole.network), (fresh.target, whole.target)):
        for a, b in zip(mine.state_dict().values(), wanted.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_weights_are_enough_to_act_and_the_target_begins_equal() -> None:
    whole, fresh = (DDPG(network(seed=s), ONE, Scalar("mse"), ADAM, Soft(0.1), QUIET) for s in (0, 1))
    whole.learn(random_batch(0))
    fresh.load_weights(whole.weights())
    obs = np.ones((2, 3), np.float32)
    mode = Evaluate(np.random.default_rng(0))
    assert np.array_equal(fresh.act(obs, None, mode)[0], whole.act(obs, None, mode)[0])
    for name, target in fresh.target.state_dict().items():
        assert torch.equal(target, fresh.network.state_dict()[name])


@pytest.mark.parametrize(
    ("switch", "words"),
    [
        ({"policy_delay": 0}, r"agent\.policy_delay: must be 1 or more, got 0"),
        ({"target_noise": -0.1}, r"agent\.target_noise: must be 0 or more, got -0.1"),
        ({"target_noise_clip": -0.1}, r"agent\.target_noise_clip: must be 0 or more, got -0.1"),
    ],
)
def test_wrong_numbers_are_told(switch: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        linear_agent(**switch)


def test_the_gradients_of_critics_and_actor_are_clipped() -> None:
    """SGD with rate 1 moves parameters by their gradient; both parts have gradients larger than 1e-4."""
    net, optimizer = network(), partial(torch.optim.SGD, lr=1.0)
    agent = DDPG(net, ONE, Scalar("mse"), optimizer, Soft(0.1), Gaussian(0.1, 0.1, 0), clip_grad_norm=1e-4)
    before = copy.deepcopy(net.state_dict())
    agent.learn(random_batch(0))
    moved = {key: (x - before[key]).square().sum() for key, x in net.state_dict().items()}
    for part in ("critic", "actor"):
        norm = sum(x for key, x in moved.items() if key.startswith(part)) ** 0.5
        assert float(norm) == pytest.approx(1e-4, rel=0.02)


def normalised(sync: Any, **switches: Any) -> DDPG:
    torch.manual_seed(0)
    space = Box(-1, 1, (3,), np.float32)
    net = ControlNetwork(space, 1, 1, Encoder, Deterministic, (8,), critics=2, batch_norm=True)
    return DDPG(net, ONE, Scalar("mse"), SGD, sync, Gaussian(0.1, 0.1, 0), **switches)


def test_an_update_with_batch_normalisation() -> None:
    """Of the critics and of the actor, which climbs the first critic by its running statistics."""
    agent = normalised(NoTarget())
    data, copied = random_batch(0), copy.deepcopy(agent.network)
    agent.learn(data)
    copied.actor.eval()
    obs, action = torch.cat([data.obs, data.next_obs]), torch.cat([data.action / 2, copied.actor(data.next_obs)])
    copied.actor.train()
    values = copied.critic(obs, action)[:, :, 0]
    target = (data.reward + 0.9 * values[:, 6:].amin(dim=0)).detach()
    loss = ((values[:, :6] - target) ** 2).sum(dim=0).mean()
    for p, g in zip(copied.critic.parameters(), torch.autograd.grad(loss, copied.critic.parameters()), strict=True):
        p.data -= 0.1 * g
    copied.critic.eval()
    actor = list(copied.actor.parameters())
    value = copied.critic(data.obs, copied.actor(data.obs))[0].mean()
    for p, g in zip(actor, torch.autograd.grad(value, actor), strict=True):
        p.data += 0.1 * g
    for name, x in agent.network.state_dict().items():
        torch.testing.assert_close(x, copied.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_batch_normalisation_with_target_networks_is_refused() -> None:
    with pytest.raises(UserError, match=r"network\.batch_norm: needs sync=none"):
        normalised(Soft(0.1))
