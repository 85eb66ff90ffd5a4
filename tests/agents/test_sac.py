"""Soft actor-critic, by hand: a bandit whose soft value is known, and critics whose every number is."""

import copy
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from rl_runner.agents.sac import SAC
from rl_runner.networks.actors import ActionRange, SquashedGaussian
from rl_runner.networks.control import ControlNetwork, Encoder
from rl_runner.sync import Hard, NoTarget, Soft
from rl_runner.types import Batch, Clock, Evaluate, Train, UserError
from rl_runner.values import Categorical, Quantile, Scalar
from tests.agents.control import ONE, SGD, Stub, batch, network, random_batch, value_of_endless_reward

ADAM = partial(torch.optim.Adam, lr=1e-2)
ALPHA, MEAN, STD, VALUE = 0.7, 0.4, 0.6, 3.0


class Fixed(nn.Module):
    """The same Gaussian for each observation."""

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        self.mean, self.log_std = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(math.log(std)))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean.expand(len(obs), 1), self.log_std.expand(len(obs), 1)


class Bandit(nn.Module):
    """Q(a) = VALUE + ALPHA log p(a), p a squashed Gaussian.

    Its soft value, ALPHA log of the integral of exp(Q(a) / ALPHA) over all actions, is VALUE, and p is the best policy.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        # Beyond 0.9999 the inverse of tanh would be rounded to infinity.
        u = torch.atanh(action.clamp(-0.9999, 0.9999))
        log_p = -(((u - MEAN) / STD) ** 2) / 2 - math.log(STD * math.sqrt(2 * math.pi)) - torch.log1p(-(u.tanh() ** 2))
        return (VALUE + ALPHA * log_p + 0 * self.unused).expand(2, -1, 1).clone()


def bandit_agent(actor: Fixed) -> SAC:
    net: Any = Stub(actor, Bandit())
    return SAC(net, ONE, Scalar("mse"), ADAM, Hard(every_updates=1), alpha=ALPHA)


@torch.no_grad()
def backup(agent: SAC, data: Batch) -> tuple[Tensor, Tensor]:
    """Return reward and next values of the soft target."""
    action, log_p = agent._sample(data.next_obs)
    return agent._backup(data, agent.target(data.next_obs, action), agent.alpha * log_p)


def test_the_soft_value_of_a_bandit() -> None:
    """Under the best policy Q - alpha log pi is the soft value for every action; the target of the critics holds it."""
    torch.manual_seed(0)
    agent, n = bandit_agent(Fixed(MEAN, STD)), 50
    data = batch([[0.0]] * n, [[0.0]] * n, [1.0] * n, [0.9] * (n - 1) + [0.0], [[0.0]] * n)
    reward, following = backup(agent, data)
    target = reward + data.discount * following[:, 0]
    torch.testing.assert_close(target, torch.tensor([1 + 0.9 * VALUE] * (n - 1) + [1.0]), atol=1e-3, rtol=0)


def test_the_actor_tends_to_the_best_policy_of_a_bandit() -> None:
    torch.manual_seed(0)
    agent = bandit_agent(actor := Fixed(-0.5, 1.0))
    obs = torch.zeros(64, 1)
    for _ in range(350):
        agent._learn_policy(obs, agent.alpha)
    assert actor.mean.item() == pytest.approx(MEAN, abs=0.05)
    assert actor.log_std.exp().item() == pytest.approx(STD, abs=0.05)


class Linear(nn.Module):
    """Q_k(s, a) = w_k a + v_k s, of one number each."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.tensor([1.0, -1.0])), nn.Parameter(torch.tensor([0.5, 2.0]))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.w[:, None, None] * action + self.v[:, None, None] * obs


def test_an_update_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """With noise 0.3 for the target and -0.2 for the actor."""
    noise = iter([0.3, -0.2])
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.full_like(x, next(noise)))
    net: Any = Stub(Fixed(0.5, 0.8), Linear())
    agent = SAC(net, ONE, Scalar("mse"), SGD, Hard(every_updates=100), initial_alpha=0.5)
    with torch.no_grad():
        agent.target.w.copy_(torch.tensor([2.0, 1.0]))
        agent.target.v.copy_(torch.tensor([1.0, 3.0]))
    weight = np.array([0.5, 2.0])
    out = agent.learn(batch([[1.0], [0.5]], [[1.0], [-2.0]], [1.0, -2.0], [0.5, 0.0], [[0.25], [9.0]], weight.tolist()))

    def log_p(a: float) -> float:
        u = math.atanh(a)
        return -(((u - 0.5) / 0.8) ** 2) / 2 - math.log(0.8 * math.sqrt(2 * math.pi)) - math.log(1 - a * a)

    a = math.tanh(0.5 + 0.8 * 0.3)
    soft = min(2 * a + 0.25, a + 0.75) - 0.5 * log_p(a)
    q = np.array([[1.0, -0.75], [1.5, 2.0]])  # of the actions 0.5 and -1
    error = q - [1 + 0.5 * soft, -2.0]
    assert out.metrics["loss"].item() == pytest.approx(float((weight * error**2).sum() / 2), rel=1e-5)
    assert out.priority is not None
    assert out.priority.tolist() == pytest.approx(np.abs(error).mean(axis=0).tolist(), rel=1e-5)
    w = np.array([1.0, -1.0]) - 0.1 * (weight * error * [0.5, -1.0]).sum(axis=1)
    v = np.array([0.5, 2.0]) - 0.1 * (weight * error * [1.0, 0.5]).sum(axis=1)
    assert net.critic.w.tolist() == pytest.approx(w.tolist(), rel=1e-5)

    def loss(mean: float, log_std: float) -> float:
        """Of the actor: alpha log pi - min Q, with the critics as they are now."""
        std = math.exp(log_std)
        action = math.tanh(mean + std * -0.2)
        log_pi = -(0.2**2) / 2 - math.log(std * math.sqrt(2 * math.pi)) - math.log(1 - action**2)
        return 0.5 * log_pi - float(np.mean([min(w * action + v * s) for s in (1.0, 0.5)]))

    h, start = 1e-5, math.log(0.8)
    slopes = [
        (loss(0.5 + h, start) - loss(0.5 - h, start)) / (2 * h),
        (loss(0.5, start + h) - loss(0.5, start - h)) / (2 * h),
    ]
    assert net.actor.mean.item() == pytest.approx(0.5 - 0.1 * slopes[0], abs=1e-5)
    assert net.actor.log_std.item() == pytest.approx(start - 0.1 * slopes[1], abs=1e-5)
    # The temperature: log alpha falls by lr (entropy + 1).
    entropy = -log_p(math.tanh(0.5 - 0.8 * 0.2))
    assert out.metrics["entropy"].item() == pytest.approx(entropy, rel=1e-5)
    assert agent.alpha.item() == pytest.approx(0.5 * math.exp(-0.1 * (entropy + 1)), rel=1e-5)
    assert not any(x.requires_grad for x in (*out.metrics.values(), out.priority))


@pytest.mark.parametrize("value", [Scalar("mse"), Categorical(-1.0, 4.0, 26)], ids=["scalar", "c51"])
@pytest.mark.parametrize("terminated", [True, False])
def test_a_truncated_episode_bootstraps_from_its_successor_and_a_terminated_one_does_not(
    value: Any, terminated: bool
) -> None:
    net = network(SquashedGaussian, outputs=value.outputs_per_action)
    agent = SAC(net, ONE, value, ADAM, Soft(0.2), alpha=0.0)
    value_of_endless_reward(agent, terminated)
    mean = value.mean(net.critic(torch.full((1, 3), 0.5), torch.zeros(1, 1))).mean()
    assert mean.item() == pytest.approx(1.0 if terminated else 2.0, abs=0.1)


def test_acting_in_training_draws_from_the_policy_and_evaluation_takes_its_mean() -> None:
    net: Any = Stub(Fixed(0.3, 0.5), Linear())
    agent = SAC(net, ONE, Scalar("mse"), ADAM, Soft(0.1), random_steps=10)
    obs = np.zeros((3000, 1), np.float32)
    greedy, _ = agent.act(obs, None, Evaluate(np.random.default_rng(0)))
    np.testing.assert_allclose(greedy, np.full((3000, 1), 2 * math.tanh(0.3)), rtol=1e-6)
    drawn, _ = agent.act(obs, None, Train(10, np.random.default_rng(0)))
    assert drawn.dtype == np.float32
    u = np.arctanh(drawn[:, 0] / 2)
    assert u.mean() == pytest.approx(0.3, abs=0.03)
    assert u.std() == pytest.approx(0.5, abs=0.03)
    uniform, _ = agent.act(obs, None, Train(9, np.random.default_rng(0)))
    assert uniform.std() == pytest.approx(4 / math.sqrt(12), abs=0.03)
    first, again, other = (agent.act(obs, None, Train(10, np.random.default_rng(seed)))[0] for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("alpha", [None, 0.2])
@pytest.mark.parametrize("sync", [Hard(every_updates=2), Soft(0.1), NoTarget()])
def test_a_restored_agent_learns_on_bit_for_bit(sync: Any, alpha: float | None) -> None:
    def made(seed: int) -> SAC:
        return SAC(network(SquashedGaussian, seed=seed), ONE, Scalar("mse"), ADAM, sync, alpha=alpha)

    def learn(agent: SAC, first: int, last: int) -> None:
        for i in range(first, last):
            agent.learn(random_batch(i))
            agent.sync(Clock(updates=i), Clock(updates=i + 1))

    whole, fresh = made(0), made(1)
    learn(whole, 0, 3)
    state, stream = copy.deepcopy(whole.state_dict()), torch.get_rng_state()
    learn(whole, 3, 6)
    fresh.load_state_dict(state)
    torch.set_rng_state(stream)
    learn(fresh, 3, 6)
    assert torch.equal(whole.alpha, fresh.alpha)
    assert whole.alpha.item() != 1.0
    for mine, wanted in ((fresh.network, whole.network), (fresh.target, whole.target)):
        for a, b in zip(mine.state_dict().values(), wanted.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_weights_hold_the_temperature() -> None:
    whole, fresh = (SAC(network(SquashedGaussian, seed=s), ONE, Scalar("mse"), ADAM, Soft(0.1)) for s in (0, 1))
    whole.learn(random_batch(0))
    fresh.load_weights(whole.weights())
    assert fresh.alpha.item() == whole.alpha.item() != 1.0
    for name, target in fresh.target.state_dict().items():
        assert torch.equal(target, whole.network.critic.state_dict()[name])


@pytest.mark.parametrize(
    ("switch", "words"),
    [
        ({"alpha": -0.1}, r"agent\.alpha: must be 0 or more, or null to learn it, got -0.1"),
        ({"initial_alpha": 0.0}, r"agent\.initial_alpha: must be above 0, got 0.0"),
    ],
)
def test_wrong_numbers_are_told(switch: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        SAC(network(SquashedGaussian), ONE, Scalar("mse"), ADAM, Soft(0.1), **switch)


def test_the_gradients_of_critics_and_actor_are_clipped_and_that_of_the_temperature_is_not() -> None:
    """SGD with rate 1 moves parameters by their gradient; both parts have gradients larger than 1e-3."""
    optimizer = partial(torch.optim.SGD, lr=1.0)
    net = network(SquashedGaussian)
    agent = SAC(net, ONE, Scalar("mse"), optimizer, Soft(0.1), target_entropy=50.0, clip_grad_norm=1e-3)
    before = copy.deepcopy(net.state_dict())
    agent.learn(random_batch(0))
    moved = {key: (x - before[key]).square().sum() for key, x in net.state_dict().items()}
    for part in ("critic", "actor"):
        norm = sum(x for key, x in moved.items() if key.startswith(part)) ** 0.5
        assert float(norm) == pytest.approx(1e-3, rel=0.01)
    assert float(agent.alpha) > math.exp(40)


def test_weight_decay_leaves_the_temperature_alone() -> None:
    def made(weight_decay: float) -> SAC:
        optimizer = partial(torch.optim.AdamW, lr=1e-2, weight_decay=weight_decay)
        return SAC(network(SquashedGaussian), ONE, Scalar("mse"), optimizer, Soft(0.1), initial_alpha=0.01)

    agent = made(weight_decay=0.5)
    before = [p.detach().clone() for p in agent._actor]
    agent._step_policy(sum((p.sum() * 0.0 for p in agent._actor), torch.zeros(())), excess_entropy=torch.tensor(0.0))
    assert agent.log_alpha.item() == pytest.approx(math.log(0.01), abs=1e-6)
    for was, now in zip(before, agent._actor, strict=True):
        assert torch.allclose(now, was * (1 - 1e-2 * 0.5))
    saved = made(weight_decay=0.0)  # the temperature is in the actor's group
    saved._step_policy(sum((p.sum() for p in saved._actor), torch.zeros(())), excess_entropy=torch.tensor(1.0))
    agent.load_state_dict(saved.state_dict())
    state = agent.optimizer.state[agent.log_alpha]
    assert torch.equal(state["exp_avg"], saved.optimizer.state[saved.log_alpha]["exp_avg"])
    assert [group["weight_decay"] for group in agent.optimizer.param_groups] == [0.5, 0.5, 0.0]


def test_the_target_entropy_is_minus_the_number_of_dimensions() -> None:
    three = ActionRange(Box(-1, 1, (3,), np.float32))
    net: Any = Stub(Fixed(0.5, 0.8), Linear())
    assert SAC(net, three, Scalar("mse"), SGD, NoTarget()).target_entropy == -3.0
    assert SAC(net, three, Scalar("mse"), SGD, NoTarget(), target_entropy=-0.5).target_entropy == -0.5


class Quantiles(nn.Module):
    """Two critics with three quantiles each, the same for all observations, times the action."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.tensor([[3.0, 1.0, 7.0], [2.0, 9.0, 4.0]]))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.q[:, None, :] * action


def truncated(dropped: int, actor: Fixed) -> SAC:
    net: Any = Stub(actor, Quantiles())
    return SAC(net, ONE, Quantile(3), SGD, Hard(every_updates=1), alpha=ALPHA, dropped_quantiles=dropped)


@pytest.mark.parametrize(("dropped", "kept"), [(1, [1, 2, 3, 4]), (2, [1, 2])])
def test_truncated_targets_are_the_lowest_quantiles_of_all_critics(dropped: int, kept: list[float]) -> None:
    """Those of the two critics are 1, 2, 3, 4, 7 and 9, times the action, which is tanh(10)."""
    agent = truncated(dropped, Fixed(10.0, 1e-6))
    data = batch([[0.0]], [[0.0]], [1.0], [0.5], [[0.0]])
    _, following = backup(agent, data)
    np.testing.assert_allclose(following.numpy(), [kept], rtol=1e-4)


def test_with_truncation_the_actor_maximises_the_mean_over_all_critics(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of alpha log pi - (26 / 6) tanh(u) by the mean, with noise 0 and deviation 1, at u = 0.3."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    agent = truncated(1, actor := Fixed(0.3, 1.0))
    agent._learn_policy(torch.zeros(4, 1), agent.alpha)
    u = math.tanh(0.3)
    slope = ALPHA * 2 * u - 26 / 6 * (1 - u * u)  # log pi holds -log(1 - tanh^2 u), whose derivative is 2 tanh u
    assert actor.mean.item() == pytest.approx(0.3 - 0.1 * slope, rel=1e-5)


@pytest.mark.parametrize(
    ("value", "dropped", "line"),
    [
        (Quantile(3), -1, "^agent.dropped_quantiles: must be 0 or more, got -1"),
        (Quantile(3), 3, "^agent.dropped_quantiles: must be below value.quantiles, 3, got 3"),
        (Quantile(1), 1, "^agent.dropped_quantiles: must be below value.quantiles, 1, got 1"),
        (Scalar(), 1, "^agent.dropped_quantiles: must be 0 with a value of type Scalar, got 1; value=qr_dqn has"),
    ],
)
def test_quantiles_that_cannot_be_dropped_are_refused(value: Any, dropped: int, line: str) -> None:
    net: Any = Stub(Fixed(), Quantiles())
    with pytest.raises(UserError, match=line):
        SAC(net, ONE, value, SGD, Hard(every_updates=1), dropped_quantiles=dropped)


def normalised(hidden: tuple[int, ...] = (8,)) -> ControlNetwork:
    torch.manual_seed(0)
    space = Box(-1, 1, (3,), np.float32)
    return ControlNetwork(space, 1, 1, Encoder, SquashedGaussian, hidden, 2, batch_norm=True, critic_hidden=(6, 5))


def test_an_update_with_batch_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Next actions by running statistics, the values of a batch and its successors normalised together, then the actor.

    Against these pieces on a copy of the network, with noise 0.
    """
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    agent = SAC(net := normalised(), ONE, Scalar("mse"), SGD, NoTarget(), alpha=0.3)
    agent.learn(random_batch(1))  # moves the running statistics
    data, copied = random_batch(0), copy.deepcopy(net)
    out = agent.learn(data)

    def log_p(mean: Tensor, log_std: Tensor) -> Tensor:
        gaussian = -log_std - math.log(math.sqrt(2 * math.pi))
        return (gaussian - torch.log1p(-(mean.tanh() ** 2)))[:, 0]

    copied.actor.eval()
    mean, log_std = copied.actor(data.next_obs)
    copied.actor.train()
    obs, action = torch.cat([data.obs, data.next_obs]), torch.cat([data.action / 2, mean.tanh()])
    values = copied.critic(obs, action)[:, :, 0]  # (2, 2 B)
    target = data.reward + data.discount * (values[:, 6:].amin(dim=0) - 0.3 * log_p(mean, log_std))
    loss = ((values[:, :6] - target.detach()) ** 2).sum(dim=0).mean()
    torch.testing.assert_close(out.metrics["loss"], loss.detach())
    for p, g in zip(copied.critic.parameters(), torch.autograd.grad(loss, copied.critic.parameters()), strict=True):
        p.data -= 0.1 * g
    copied.critic.eval()
    mean, log_std = copied.actor(data.obs)
    gain = copied.critic(data.obs, mean.tanh())[:, :, 0].amin(dim=0) - 0.3 * log_p(mean, log_std)
    actor = list(copied.actor.parameters())
    for p, g in zip(actor, torch.autograd.grad(gain.mean(), actor), strict=True):
        p.data += 0.1 * g
    for name, x in net.state_dict().items():  # the running statistics too
        torch.testing.assert_close(x, copied.state_dict()[name], rtol=1e-4, atol=1e-6)
    assert all(layer.training for layer in net.modules())


def test_the_policy_moves_at_every_third_update() -> None:
    agent = SAC(net := normalised(), ONE, Scalar("mse"), SGD, NoTarget(), policy_delay=3)
    moved, entropies = [], []
    for update in range(7):
        before = (copy.deepcopy(net.actor.state_dict()), copy.deepcopy(net.critic.head.layers[0].weight), agent.alpha)
        out = agent.learn(random_batch(update))
        assert not torch.equal(net.critic.head.layers[0].weight, before[1])
        same = all(torch.equal(x, before[0][name]) for name, x in net.actor.state_dict().items())
        assert same == torch.equal(agent.alpha, before[2])
        moved.append(not same)
        entropies.append("entropy" in out.metrics)
    assert moved == entropies == [False, False, True, False, False, True, False]
    resumed = SAC(normalised(), ONE, Scalar("mse"), SGD, NoTarget(), policy_delay=3)
    resumed.load_state_dict(agent.state_dict())
    assert [("entropy" in resumed.learn(random_batch(i)).metrics) for i in range(3)] == [False, True, False]


def test_batch_normalisation_with_target_critics_is_refused() -> None:
    with pytest.raises(UserError, match=r"network\.batch_norm: needs sync=none"):
        SAC(normalised(), ONE, Scalar("mse"), SGD, Soft(0.1))
