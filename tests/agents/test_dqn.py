"""Deep Q-learning, by hand: a table of values whose every number is known, and a linear network."""

import copy
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from rl_runner import schedules
from rl_runner.agents.dqn import DQN
from rl_runner.exploration import Greedy
from rl_runner.networks.heads import Dueling, SingleStream
from rl_runner.networks.layers import NoisyLinear
from rl_runner.networks.qnetwork import QNetwork
from rl_runner.networks.torsos import MLP
from rl_runner.sync import Hard, NoTarget, Soft
from rl_runner.types import Batch, Clock, UserError
from rl_runner.values import Categorical, ImplicitQuantile, Quantile, Scalar
from tests import oracle
from tests.compilers import where_it_compiles

SGD = partial(torch.optim.SGD, lr=0.1)


class Table(nn.Module):
    """One number per state and action: (B,) -> (B, A, 1)."""

    def __init__(self, q: list[list[float]]) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.tensor(q))

    def forward(self, obs: Tensor) -> Tensor:
        return self.q[obs].unsqueeze(-1)


class Matrix(nn.Module):
    """Q(s, a) = W_a s."""

    def __init__(self, w: list[list[float]]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, obs: Tensor) -> Tensor:
        return (obs @ self.w.T).unsqueeze(-1)


def batch(obs: Any, action: Any, reward: Any, discount: Any, next_obs: Any, weight: Any = None) -> Batch:
    ones = [1.0] * len(reward)
    tensors = [torch.tensor(x) for x in (obs, action, reward, discount, next_obs, weight or ones)]
    return Batch(*tensors, ids=np.arange(len(reward)))


def table_agent(loss: str, double: bool = False) -> DQN:
    """Online Q and target Q differ; in state 1 they also disagree about the best action."""
    agent = DQN(Table([[1.0, 2.0], [3.0, 0.5]]), Scalar(loss), SGD, Hard(every_updates=1), Greedy(), double)
    with torch.no_grad():
        agent.target.q.copy_(torch.tensor([[0.0, 1e6], [4.0, 10.0]]))
    return agent


# Taken: Q(0, 1) = 2 and Q(1, 0) = 3. Next: state 1 with discount 0.9, state 0 with discount 0.
TABLE_BATCH = ([0, 1], [1, 0], [1.0, -2.0], [0.9, 0.0], [1, 0])


@pytest.mark.parametrize(
    ("loss", "double", "weight", "wanted"),
    [
        # plain: targets 1 + 0.9 * max(4, 10) = 10 and -2; errors 8, -5
        ("mse", False, None, (64 + 25) / 2),
        ("huber", False, None, (7.5 + 4.5) / 2),
        ("mse", False, [0.5, 2.0], (0.5 * 64 + 2 * 25) / 2),
        ("huber", False, [0.5, 2.0], (0.5 * 7.5 + 2 * 4.5) / 2),
        # double: the online network chooses action 0 in state 1; target 1 + 0.9 * 4 = 4.6; errors 2.6, -5
        ("mse", True, None, (6.76 + 25) / 2),
        ("huber", True, None, (2.1 + 4.5) / 2),
        ("mse", True, [0.5, 2.0], (0.5 * 6.76 + 2 * 25) / 2),
    ],
)
def test_loss_by_hand(loss: str, double: bool, weight: list[float] | None, wanted: float) -> None:
    out = table_agent(loss, double).learn(batch(*TABLE_BATCH, weight))
    error = 2.6 if double else 8.0
    assert out.metrics["loss"].item() == pytest.approx(wanted)
    assert out.metrics["q_mean"].item() == pytest.approx(2.5)
    assert out.metrics["q_max"].item() == 3.0
    assert out.metrics["target_mean"].item() == pytest.approx(((error + 2) - 2) / 2)  # the targets are Q + error
    assert out.metrics["td_error"].item() == pytest.approx((error + 5) / 2)
    assert out.priority is not None
    assert out.priority.tolist() == pytest.approx([error, 5.0])  # not weighted
    assert not any(x.requires_grad for x in (*out.metrics.values(), out.priority))


# The linear network: two samples, the second with weight 0.5 and nothing after it.
W = [[0.5, -1.0], [0.25, 1.0]]
LINEAR_BATCH = (
    [[1.0, 2.0], [0.0, 1.0]],  # Q(s, a): 0.5 - 2 = -1.5 and 1
    [0, 1],
    [1.0, 0.0],
    [0.5, 0.0],
    [[2.0, 0.0], [9.0, 9.0]],  # Q(s', .) = 1, 0.5 -> target 1 + 0.5 * 1 = 1.5, error 3; second target 0, error -1
    [1.0, 0.5],
)
# Gradient of (1 * 3^2 + 0.5 * 1^2) / 2: for W_0 -3 (1, 2), for W_1 0.5 (0, 1)
GRADIENT = np.array([[-3.0, -6.0], [0.0, 0.5]])
NORM = math.sqrt(9 + 36 + 0.25)


@pytest.mark.parametrize("sync", [Hard(every_updates=1), Soft(0.5), NoTarget()])
def test_one_gradient_step_by_hand(sync: Any) -> None:
    """Without a target network as well: the online network's next values count, and no gradient flows through them."""
    agent = DQN(Matrix(W), Scalar("mse"), SGD, sync, Greedy())
    out = agent.learn(batch(*LINEAR_BATCH))
    np.testing.assert_allclose(agent.online.w.detach(), np.array(W) - 0.1 * GRADIENT, rtol=1e-6)
    assert out.metrics["loss"].item() == pytest.approx(4.75)
    assert out.metrics["grad_norm"].item() == pytest.approx(NORM)


@pytest.mark.parametrize(
    ("clips", "gradient"),
    [
        ({"clip_grad_value": 1.0}, [[-1.0, -1.0], [0.0, 0.5]]),
        ({"clip_grad_norm": 2.0}, GRADIENT * 2 / NORM),
        ({"clip_grad_norm": 100.0}, GRADIENT),  # it is short enough
        # the norm first: 2 / 6.727 of (-3, -6, 0, 0.5) is (-0.892, -1.784, 0, 0.149)
        ({"clip_grad_norm": 2.0, "clip_grad_value": 1.0}, np.clip(GRADIENT * 2 / NORM, -1, 1)),
    ],
    ids=str,
)
def test_gradient_clipping(clips: dict[str, float], gradient: Any) -> None:
    agent = DQN(Matrix(W), Scalar("mse"), SGD, Hard(every_updates=1), Greedy(), **clips)
    out = agent.learn(batch(*LINEAR_BATCH))
    np.testing.assert_allclose(agent.online.w.detach(), np.array(W) - 0.1 * np.array(gradient), rtol=1e-5)
    assert out.metrics["grad_norm"].item() == pytest.approx(NORM)  # as it was before


@pytest.mark.parametrize("key", ["clip_grad_value", "clip_grad_norm"])
@pytest.mark.parametrize("clip", [0.0, -1.0])
def test_clips_must_be_positive(key: str, clip: float) -> None:
    with pytest.raises(UserError, match=rf"agent\.{key}: must be above 0, or null"):
        DQN(Matrix(W), Scalar(), SGD, NoTarget(), Greedy(), **{key: clip})


def test_gradients_are_those_of_one_batch() -> None:
    agent = DQN(Matrix(W), Scalar("mse"), partial(torch.optim.SGD, lr=0.0), Hard(every_updates=1), Greedy())
    for _ in range(3):
        agent.learn(batch(*LINEAR_BATCH))
    np.testing.assert_allclose(agent.online.w.grad, GRADIENT, rtol=1e-6)


@pytest.mark.parametrize("double", [False, True])
def test_learning_leaves_the_target_alone_until_it_is_synced(double: bool) -> None:
    agent = DQN(Matrix(W), Scalar("mse"), SGD, Hard(every_updates=2), Greedy(), double)
    for updates in (1, 2):
        agent.learn(batch(*LINEAR_BATCH))
        assert agent.target.w.grad is None
        assert agent.target.w.tolist() == W
        agent.sync(Clock(updates=updates - 1), Clock(updates=updates))
        assert torch.equal(agent.target.w, agent.online.w) == (updates == 2)


def test_the_target_learns_nothing_in_the_optimizer() -> None:
    agent = DQN(Matrix(W), Scalar("mse"), SGD, Hard(every_updates=2), Greedy())
    assert [p for g in agent.optimizer.param_groups for p in g["params"]] == list(agent.online.parameters())


class TwoNumbers:
    """A value made of two numbers, their mean; records what it is asked."""

    outputs_per_action, quantile_levels = 2, 0

    def mean(self, values: Tensor) -> Tensor:
        return values.mean(dim=-1)

    def expectation(self, values: Tensor, policy: Tensor) -> Tensor:
        return torch.stack([sum(p * v for p, v in zip(*row, strict=True)) for row in zip(policy, values, strict=True)])

    def loss(self, values: Tensor, next_values: Tensor, reward: Tensor, discount: Tensor) -> tuple[Tensor, Tensor]:
        self.asked = [x.detach().clone() for x in (values, next_values, reward, discount)]
        return values.sum(dim=1), reward


class TwoNumberTable(Table):
    def forward(self, obs: Tensor) -> Tensor:
        return self.q[obs].unflatten(1, (2, 2))


def test_values_of_several_numbers_are_chosen_by_their_mean() -> None:
    value = TwoNumbers()
    # state 0: actions (1, 2), (3, 4); state 1: actions (0, 9), (5, 2) with means 4.5 and 3.5
    agent = DQN(
        TwoNumberTable([[1.0, 2.0, 3.0, 4.0], [0.0, 9.0, 5.0, 2.0]]), value, SGD, Hard(every_updates=1), Greedy()
    )
    agent.learn(batch([0, 1], [1, 0], [1.0, -2.0], [0.9, 0.0], [1, 0]))
    values, next_values, reward, discount = value.asked
    assert values.tolist() == [[3.0, 4.0], [0.0, 9.0]]
    assert next_values.tolist() == [[0.0, 9.0], [3.0, 4.0]]
    assert (reward.tolist(), discount.tolist()) == ([1.0, -2.0], pytest.approx([0.9, 0.0]))
    assert agent.training_q_values(torch.tensor([1])).shape == (1, 2)


SPACE = Box(-1, 1, (3,), np.float32)


def noisy_agent(double: bool = False, sync: Any = None, head: Any = SingleStream, **optimizer: Any) -> DQN:
    torch.manual_seed(0)
    net = QNetwork(SPACE, 4, 1, 0, partial(MLP, sizes=(8,)), partial(head, noisy=True, sigma0=2.0))
    return DQN(net, Scalar(), partial(torch.optim.Adam, lr=1e-2), sync or Hard(every_updates=5), Greedy(), double)


def random_batch(seed: int = 0, n: int = 6) -> Batch:
    rng = np.random.default_rng(seed)
    floats = [torch.from_numpy(rng.normal(size=s).astype(np.float32)) for s in ((n, 3), n, (n, 3))]
    action = torch.from_numpy(rng.integers(4, size=n))
    return Batch(floats[0], action, floats[1], torch.full((n,), 0.9), floats[2], torch.ones(n), np.arange(n))


@pytest.mark.parametrize("sync", [Hard(every_updates=5), NoTarget()])
@pytest.mark.parametrize("double", [False, True])
def test_noise_is_drawn_anew_for_every_forward(double: bool, sync: Any) -> None:
    """Of the taken action, of the choice and of the target: the same weights and observation, other values."""
    agent, outputs = noisy_agent(double, sync), []
    for net in {agent.online, agent.target}:
        net.register_forward_hook(lambda _, args, out: outputs.append(out.detach()))
    b = random_batch()
    agent.learn(b._replace(next_obs=b.obs))
    assert len(outputs) == (3 if double else 2)
    for i, x in enumerate(outputs):
        for y in outputs[:i]:
            assert not torch.any(x == y)


def test_policy_explores_and_carries_no_gradient() -> None:
    agent, obs = noisy_agent(), torch.ones(2, 3)
    first, second = agent.training_q_values(obs), agent.training_q_values(obs)
    assert first.shape == (2, 4)
    assert not torch.any(first == second)
    assert not first.requires_grad


@pytest.mark.parametrize("head", [SingleStream, Dueling])
@pytest.mark.parametrize("sync", [Hard(every_updates=5), NoTarget()])
def test_q_values_leaves_no_trace(sync: Any, head: Any) -> None:
    agent, obs = noisy_agent(sync=sync, head=head), torch.ones(2, 3)
    weights, state = agent.online.state_dict(), torch.get_rng_state()
    first, second = agent.q_values(obs), agent.q_values(obs)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(m.training for net in (agent.online, agent.target) for m in net.modules())
    assert all(torch.equal(v, agent.online.state_dict()[k]) for k, v in weights.items())
    assert not first.requires_grad
    # the mean weights: what is left when all sigmas are 0
    with torch.no_grad():
        for layer in (m for m in agent.online.modules() if isinstance(m, NoisyLinear)):
            layer.weight_sigma.zero_()
            layer.bias_sigma.zero_()
    torch.testing.assert_close(agent.training_q_values(obs), first)


def test_sigma_is_learned() -> None:
    agent = noisy_agent()
    before = {k: v.clone() for k, v in agent.online.state_dict().items()}
    agent.learn(random_batch())
    assert all(torch.any(agent.online.state_dict()[k] != v) for k, v in before.items())


@pytest.mark.parametrize("sync", [Hard(every_updates=2), Soft(0.1), NoTarget()])
def test_a_restored_agent_learns_on_bit_for_bit(sync: Any) -> None:
    def learn(agent: DQN, first: int, last: int) -> None:
        for i in range(first, last):
            agent.learn(random_batch(i))
            agent.sync(Clock(updates=i), Clock(updates=i + 1))

    whole, fresh = noisy_agent(sync=sync), noisy_agent(sync=sync)
    with torch.no_grad():
        for p in {*fresh.online.parameters(), *fresh.target.parameters()}:
            p.add_(1.0)  # whatever it was before
    learn(whole, 0, 3)
    state, stream = copy.deepcopy(whole.state_dict()), torch.get_rng_state()
    learn(whole, 3, 6)
    fresh.load_state_dict(state)
    torch.set_rng_state(stream)
    learn(fresh, 3, 6)
    for mine, wanted in ((fresh.online, whole.online), (fresh.target, whole.target)):
        for a, b in zip(mine.state_dict().values(), wanted.state_dict().values(), strict=True):
            assert torch.equal(a, b)


# Every representation with every switch, against float64 numpy.

LOW, HIGH, M, KAPPA = -2.0, 2.5, 5, 0.5
REPRESENTATIONS: dict[str, Any] = {
    "scalar": Scalar("mse"),
    "c51": Categorical(LOW, HIGH, M),
    "qr_dqn": Quantile(M, KAPPA),
    "iqn": ImplicitQuantile(M, KAPPA),
}
ALPHA, TEMPERATURE, CLIP = 0.8, 0.3, -0.5
MUNCHAUSEN = {
    "munchausen": True,
    "munchausen_alpha": ALPHA,
    "munchausen_temperature": TEMPERATURE,
    "munchausen_clip": CLIP,
}
SWITCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "double": {"double": True},
    "munchausen": MUNCHAUSEN,
    "munchausen-double": {**MUNCHAUSEN, "double": True},
}
every_representation = pytest.mark.parametrize("name", REPRESENTATIONS)
every_switch = pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)


class Numbers(nn.Module):
    """Numbers for each of 6 states and 3 actions: (B,) -> (B, 3, M). Implicit quantiles have fixed levels per state."""

    def __init__(self, value: Any, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.q = nn.Parameter(
            torch.from_numpy(rng.normal(size=(6, 3, max(value.outputs_per_action, value.quantile_levels)))).float()
        )
        self.level = torch.from_numpy(rng.uniform(size=(6, value.quantile_levels))).float()

    def forward(self, obs: Tensor) -> Tensor:
        q = self.q[obs]
        if not self.level.shape[1]:
            return q
        return torch.cat([q, self.level[obs][:, None, :].expand_as(q)], dim=-1)


def numbers_agent(name: str, sync: Any = None, **switches: Any) -> DQN:
    """Online and target numbers differ, and what they make of it is not learned."""
    value = REPRESENTATIONS[name]
    agent = DQN(
        Numbers(value, 1), value, partial(torch.optim.SGD, lr=0.0), sync or Hard(every_updates=1), Greedy(), **switches
    )
    if sync is None:
        agent.target.load_state_dict(Numbers(value, 2).state_dict())
    return agent


# States 0 to 3 are learned from, 4 and 5 follow; weights differ, and one window ended by termination.
NUMBERS_BATCH = ([0, 1, 2, 3], [2, 0, 1, 2], [0.5, -0.25, 0.1, 0.3], [0.9, 0.81, 0.0, 0.5], [4, 5, 4, 0])
WEIGHT = [0.5, 1.0, 0.125, 0.75]


def means(name: str, numbers: np.ndarray) -> np.ndarray:
    """(A, M) -> (A,)."""
    if name == "c51":
        return oracle.softmax(numbers) @ np.linspace(LOW, HIGH, M)
    return numbers.mean(axis=1)


def by_hand(
    name: str, agent: DQN, double: bool = False, munchausen: bool = False, alpha: float = ALPHA, **_: Any
) -> tuple[list[float], list[float]]:
    """Loss and priority of each sample of NUMBERS_BATCH, unweighted."""
    losses, priorities = [], []
    online, target = (net.q.detach().double().numpy() for net in (agent.online, agent.target))
    for s, a, reward, discount, following in zip(*NUMBERS_BATCH, strict=True):
        q = means(name, (online if double else target)[following])
        policy = np.eye(3)[q.argmax()]
        if munchausen:
            policy = oracle.softmax(q / TEMPERATURE)
            log_pi = np.log(oracle.softmax(means(name, target[s]) / TEMPERATURE))[a]
            reward += alpha * min(max(TEMPERATURE * log_pi, CLIP), 0.0)
            reward += discount * -TEMPERATURE * sum(p * math.log(p) for p in policy)
        numbers = oracle.softmax(target[following]) if name == "c51" else target[following]
        after = sum(policy[i] * numbers[i] for i in range(3))
        value = online[s, a]
        if name == "scalar":
            error = reward + discount * after[0] - value[0]
            losses.append(error**2)
            priorities.append(abs(error))
        elif name == "c51":
            projected = oracle.project(after, reward, discount, LOW, HIGH)
            losses.append(oracle.cross_entropy(projected, value))
            priorities.append(oracle.divergence(projected, value))
        else:
            level = (np.arange(M) + 0.5) / M if name == "qr_dqn" else agent.online.level[s].double().numpy()
            backup = reward + discount * after
            losses.append(oracle.quantile_huber(value, level, backup, KAPPA))
            priorities.append(abs(backup.mean() - value.mean()))
    return losses, priorities


@every_switch
@every_representation
def test_loss_and_priority_of_each_sample(name: str, switches: dict[str, Any]) -> None:
    agent = numbers_agent(name, **switches)
    losses, priorities = by_hand(name, agent, **switches)
    out = agent.learn(batch(*NUMBERS_BATCH, WEIGHT))
    weighted = sum(w * x for w, x in zip(WEIGHT, losses, strict=True)) / 4
    assert out.metrics["loss"].item() == pytest.approx(weighted, rel=1e-4)
    assert out.priority is not None
    assert out.priority.tolist() == pytest.approx(priorities, rel=1e-4, abs=1e-5)  # not weighted


@every_representation
def test_switches_matter_in_the_case_above(name: str) -> None:
    """Or it would show nothing: all four give other losses."""
    agent = numbers_agent(name)
    losses = [sum(by_hand(name, agent, **switches)[0]) for switches in SWITCHES.values()]
    assert len({round(x, 3) for x in losses}) == 4


def two_states(q_now: list[float], q_next: list[float], **switches: Any) -> DQN:
    agent = DQN(
        Table([[0.0, 0.0], [0.0, 0.0]]),
        Scalar("mse"),
        SGD,
        Hard(every_updates=1),
        Greedy(),
        munchausen=True,
        **switches,
    )
    with torch.no_grad():
        agent.target.q.copy_(torch.tensor([q_now, q_next]))
    return agent


@pytest.mark.parametrize(
    ("q_now", "action", "discount", "target"),
    [
        # pi(.|s) = 1/4, 3/4 and pi(.|s') = 1/2, 1/2: 1 + 0.9 ln pi(a|s) + 0.5 (2 + ln 2)
        ([0.0, math.log(3)], 1, 0.5, 1 + 0.9 * math.log(0.75) + 0.5 * (2 + math.log(2))),
        ([0.0, math.log(3)], 0, 0.5, 1 + 0.9 * -1.0 + 0.5 * (2 + math.log(2))),  # ln 0.25 < -1 is clipped
        ([0.0, 500.0], 0, 0.5, 1 + 0.9 * -1.0 + 0.5 * (2 + math.log(2))),
        ([0.0, 500.0], 1, 0.5, 1 + 0.5 * (2 + math.log(2))),  # ln 1 = 0
        ([0.0, math.log(3)], 1, 0.0, 1 + 0.9 * math.log(0.75)),  # a termination: no value and no entropy
    ],
)
def test_munchausen_target_by_hand(q_now: list[float], action: int, discount: float, target: float) -> None:
    """Equation 1 of Vieillard et al. 2020 with temperature 1, alpha 0.9, clip -1; the online value is 0."""
    agent = two_states(q_now, [2.0, 2.0], munchausen_temperature=1.0)
    out = agent.learn(batch([0], [action], [1.0], [discount], [1]))
    assert out.priority is not None
    assert out.priority.item() == pytest.approx(abs(target), rel=1e-5)
    assert out.metrics["loss"].item() == pytest.approx(target**2, rel=1e-5)


def test_the_clip_is_of_the_temperature_times_the_log_probability() -> None:
    """Temperature 0.5, q 1 apart: 0.5 ln pi = -0.5 ln(1 + e^2) = -1.06 stays with clip -2, not with -0.75."""
    for clip, counted in [(-2.0, -0.5 * math.log(1 + math.e**2)), (-0.75, -0.75)]:
        agent = two_states([0.0, 1.0], [0.0, 0.0], munchausen_temperature=0.5, munchausen_clip=clip)
        out = agent.learn(batch([0], [0], [0.0], [0.0], [1]))
        assert out.priority is not None
        assert out.priority.item() == pytest.approx(0.9 * -counted, rel=1e-5)


@pytest.mark.parametrize("double", [False, True])
@every_representation
def test_munchausen_without_bonus_and_temperature_is_plain(name: str, double: bool) -> None:
    cold = {"munchausen": True, "munchausen_alpha": 0.0, "munchausen_temperature": 1e-5}
    one, other = (numbers_agent(name, double=double, **more).learn(batch(*NUMBERS_BATCH)) for more in (cold, {}))
    torch.testing.assert_close(one.metrics["loss"], other.metrics["loss"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one.priority, other.priority, rtol=1e-3, atol=1e-4)


@every_switch
@every_representation
def test_after_a_termination_nothing_of_the_next_state_counts(name: str, switches: dict[str, Any]) -> None:
    obs, action, reward, *_ = NUMBERS_BATCH
    outs = []
    for shift in (1.0, 30.0):
        agent = numbers_agent(name, **switches)
        with torch.no_grad():
            for net in (agent.online, agent.target):
                net.q[4:] *= shift
        outs.append(agent.learn(batch(obs, action, reward, [0.0] * 4, [4, 5, 4, 5])))
    torch.testing.assert_close(outs[0].metrics["loss"], outs[1].metrics["loss"], rtol=1e-6, atol=0)
    torch.testing.assert_close(outs[0].priority, outs[1].priority, rtol=1e-6, atol=1e-6)


@every_switch
@every_representation
def test_gradient_flows_through_the_taken_action_of_the_online_network_alone(
    name: str, switches: dict[str, Any]
) -> None:
    """Without a target network too, where the same numbers are the target: it is what a frozen copy of them gives."""
    gradients = []
    for sync in (NoTarget(), Hard(every_updates=1)):
        agent = numbers_agent(name, sync=sync, **switches)
        assert torch.equal(agent.target.q, agent.online.q)
        agent.learn(batch(*NUMBERS_BATCH))
        gradients.append(agent.online.q.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    taken = torch.zeros(6, 3, dtype=torch.bool)
    taken[NUMBERS_BATCH[0], NUMBERS_BATCH[1]] = True
    assert torch.all(gradients[0][~taken] == 0)
    assert torch.all(gradients[0][taken].abs().sum(dim=-1) > 0)


@every_switch
@every_representation
def test_importance_weights_multiply_the_losses_of_their_samples(name: str, switches: dict[str, Any]) -> None:
    agent, total, gradient = numbers_agent(name, **switches), 0.0, torch.zeros(())
    for i, weight in enumerate(WEIGHT):
        out = agent.learn(batch(*([x[i]] for x in NUMBERS_BATCH)))
        total += weight * out.metrics["loss"].item() / 4
        gradient = gradient + weight * agent.online.q.grad / 4
    out = agent.learn(batch(*NUMBERS_BATCH, WEIGHT))
    assert out.metrics["loss"].item() == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(agent.online.q.grad, gradient)


def network_agent(name: str, head: Any = SingleStream, **switches: Any) -> DQN:
    torch.manual_seed(0)
    value = REPRESENTATIONS[name]
    net = QNetwork(SPACE, 4, value.outputs_per_action, value.quantile_levels, partial(MLP, sizes=(8,)), head)
    return DQN(net, value, partial(torch.optim.Adam, lr=1e-2), Hard(every_updates=5), Greedy(), **switches)


@pytest.mark.parametrize("n", [1, M, 2 * M, 32])
@every_switch
@every_representation
def test_every_combination_learns_and_gives_priorities(name: str, switches: dict[str, Any], n: int) -> None:
    agent = network_agent(name, partial(Dueling, noisy=True), **switches)
    out = agent.learn(random_batch(n=n))
    assert out.priority is not None
    assert out.priority.shape == (n,)
    assert out.priority.isfinite().all()
    assert (out.priority >= 0).all()
    assert all(x.isfinite() and x.shape == () for x in out.metrics.values())
    assert not any(x.requires_grad for x in (*out.metrics.values(), out.priority))
    assert agent.training_q_values(torch.ones(7, 3)).shape == (7, 4)


@every_representation
def test_munchausen_stands_values_that_lie_far_apart(name: str) -> None:
    """At the paper's temperature of 0.03 all probabilities but one are 0 in single precision."""
    agent = numbers_agent(name, munchausen=True)
    with torch.no_grad():
        for net in (agent.online, agent.target):
            net.q *= 1e4
    out = agent.learn(batch(*NUMBERS_BATCH))
    assert out.priority is not None
    assert out.priority.isfinite().all()
    assert agent.online.q.grad.isfinite().all()


def test_greedy_values_of_implicit_quantiles_do_not_depend_on_chance() -> None:
    agent, obs = network_agent("iqn"), torch.ones(2, 3)
    state = torch.get_rng_state()
    assert torch.equal(agent.q_values(obs), agent.q_values(obs))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.any(agent.training_q_values(obs) == agent.training_q_values(obs))  # levels of their own


@pytest.mark.parametrize(
    ("key", "number", "wanted"),
    [("munchausen_temperature", 0.0, "above"), ("munchausen_clip", 0.0, "below")],
)
def test_munchausen_numbers_out_of_range_are_told(key: str, number: float, wanted: str) -> None:
    with pytest.raises(UserError, match=rf"agent\.{key}: must be {wanted} 0, got 0"):
        DQN(Matrix(W), Scalar(), SGD, NoTarget(), Greedy(), munchausen=True, **{key: number})
    DQN(Matrix(W), Scalar(), SGD, NoTarget(), Greedy(), **{key: number})  # not asked for: not looked at


def test_the_learning_rate_falls_with_the_steps_and_stays() -> None:
    agent = DQN(
        Table([[0.0, 0.0]]), Scalar(), SGD, Hard(), Greedy(), lr_schedule=schedules.LinearSchedule(1e-2, 1e-3, 100)
    )
    rates = []
    for steps in (0, 50, 100, 500):
        agent.sync(Clock(), Clock(steps=steps))
        rates.append(agent.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-2, 5.5e-3, 1e-3, 1e-3])
    agent = DQN(Table([[0.0, 0.0]]), Scalar(), SGD, Hard(), Greedy())
    agent.sync(Clock(), Clock(steps=50))
    assert agent.optimizer.param_groups[0]["lr"] == 0.1


def small_agent(device: str, compiled: bool, noisy: bool) -> DQN:
    torch.manual_seed(0)
    space, head = Box(-1, 1, (3,)), partial(Dueling, noisy=noisy)
    network = QNetwork(
        space, actions=2, outputs_per_action=11, quantile_levels=0, torso=partial(MLP, sizes=(8, 8)), head=head
    )
    network.to(device)
    return DQN(network, Categorical(-2, 2, 11), SGD, Hard(every_updates=1), Greedy(), double=True, compiled=compiled)


def batch_on(device: str, seed: int) -> Batch:
    torch.manual_seed(seed)
    obs, next_obs = torch.randn(2, 16, 3)
    reward, weight = torch.rand(2, 16)
    tensors = [x.to(device) for x in (obs, torch.arange(16) % 2, reward, reward, next_obs, weight)]
    return Batch(*tensors, np.arange(16))


@where_it_compiles
def test_compiled_learning_is_the_plain_one_to_rounding(device: str) -> None:
    """Over several updates, each from the weights of the last; and so are the values to act by."""
    agents = small_agent(device, False, noisy=False), small_agent(device, True, noisy=False)
    outputs, values = [], []  # compared at the end: later updates must not write over what earlier ones returned
    for i in range(3):
        batch = batch_on(device, i)
        for a in agents:
            values.append(a.training_q_values(batch.obs))
            outputs.append(a.learn(batch))
    torch.testing.assert_close(values[1::2], values[::2], rtol=1e-4, atol=1e-5)
    for plain, quick in zip(outputs[::2], outputs[1::2], strict=True):
        assert plain.metrics.keys() == quick.metrics.keys()
        for name, number in plain.metrics.items():
            assert quick.metrics[name].item() == pytest.approx(number.item(), rel=1e-4), name
        assert plain.priority is not None
        assert quick.priority is not None
        torch.testing.assert_close(quick.priority, plain.priority, rtol=1e-4, atol=1e-5)
    for p, q in zip(agents[0].online.parameters(), agents[1].online.parameters(), strict=True):
        torch.testing.assert_close(q, p, rtol=1e-4, atol=1e-6)


@where_it_compiles
def test_compiled_learning_draws_new_noise_for_each_update(device: str) -> None:
    """As many random numbers as without; the compiler may choose which of them goes where."""
    plain, quick = small_agent(device, False, noisy=True), small_agent(device, True, noisy=True)
    batch, start = batch_on(device, 0), copy.deepcopy(quick.state_dict())
    losses, later = [], []
    for seed in (1, 2, 1, 2):
        for a in (plain, quick):
            a.load_state_dict(start)
            torch.manual_seed(seed)
            losses.append(a.learn(batch).metrics["loss"].item())
            later.append(torch.rand(1, device=device).item())
    assert later[::2] == later[1::2]
    assert losses[1::2] == pytest.approx(2 * losses[1:4:2], rel=1e-5)
    assert losses[1] != pytest.approx(losses[3], rel=1e-5)


@pytest.mark.parametrize(
    ("here", "there", "target"),
    [
        ([True, True], [True, False], 1 + 0.9 * math.log(0.75) + 0.5 * 2),  # one action is left: no entropy
        ([False, True], [True, True], 1 + 0.5 * (2 + math.log(2))),  # ln 1 = 0
    ],
)
def test_munchausen_masks_each_state_by_its_own_mask(here: list[bool], there: list[bool], target: float) -> None:
    agent = two_states([0.0, math.log(3)], [2.0, 2.0], munchausen_temperature=1.0)
    data = batch([0], [1], [1.0], [0.5], [1])
    masked = data._replace(action_mask=torch.tensor([here]), next_action_mask=torch.tensor([there]))
    out = agent.learn(masked)
    assert out.priority is not None
    assert out.priority.item() == pytest.approx(target, rel=1e-5)


def test_weights_are_enough_to_act_and_target_and_average_begin_equal() -> None:
    whole, fresh = (
        DQN(Table([[q, 2.0]]), Scalar("mse"), SGD, Hard(every_updates=9), Greedy(), ema_decay=0.5) for q in (1.0, 7.0)
    )
    fresh.load_weights(whole.weights())
    for net in (fresh.online, fresh.target, fresh.average.network):
        assert net.q.tolist() == [[1.0, 2.0]]
