"""Discrete SAC: updates by hand, masked actions, resuming, and refusals."""

import copy
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from rl_runner.agents.sac_discrete import SACDiscrete
from rl_runner.networks.actors import Logits
from rl_runner.networks.control import ControlNetwork, Encoder
from rl_runner.networks.renorm import BatchRenorm
from rl_runner.sync import Hard, NoTarget, Soft
from rl_runner.types import Batch, Clock, Evaluate, Train, UserError
from rl_runner.values import Categorical, Quantile, Scalar
from tests.agents.control import SGD, Stub

ADAM = partial(torch.optim.Adam, lr=1e-2)


class Table(nn.Module):
    """The same numbers for each observation: logits (A,), or values of K critics (K, A)."""

    def __init__(self, numbers: list[Any]) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor(numbers))

    def forward(self, obs: Tensor) -> Tensor:
        if self.numbers.dim() == 1:
            return self.numbers.expand(len(obs), -1)
        return self.numbers[:, None, :, None].expand(-1, len(obs), -1, 1)


def tables(logits: list[float], values: list[list[float]]) -> Any:
    return Stub(Table(logits), Table(values))


def batch(action: list[int], reward: list[float], discount: list[float], weight: list[float], **masks: Any) -> Batch:
    n = len(action)
    floats = [torch.tensor(x) for x in (reward, discount)]
    obs = torch.zeros(n, 1)
    return Batch(obs, torch.tensor(action), *floats, obs, torch.tensor(weight), np.arange(n), **masks)


def test_an_update_by_hand() -> None:
    """Two critics of three actions; the policy has the probabilities 1/2, 1/4, 1/4, and its entropy is 1.5 log 2."""
    net = tables([math.log(2.0), 0.0, 0.0], [[1.0, 2.0, 3.0], [2.0, 1.0, 0.0]])
    agent = SACDiscrete(net, 3, Scalar("mse"), SGD, Hard(every_updates=100), initial_alpha=0.5)
    with torch.no_grad():
        agent.target.numbers.copy_(torch.tensor([[4.0, 0.0, 8.0], [5.0, -4.0, 4.0]]))
    out = agent.learn(batch([1, 2], [1.0, -2.0], [0.5, 0.0], [0.5, 2.0]))
    p, entropy = np.array([0.5, 0.25, 0.25]), 1.5 * math.log(2)
    soft = 0.5 * 4 + 0.25 * -4 + 0.25 * 4 + 0.5 * entropy
    error = np.array([[2.0, 3.0], [1.0, 0.0]]) - [1 + 0.5 * soft, -2.0]  # (K, B)
    weight = np.array([0.5, 2.0])
    assert out.metrics["loss"].item() == pytest.approx(float((weight * error**2).sum() / 2), rel=1e-5)
    assert out.priority is not None
    assert out.priority.tolist() == pytest.approx(np.abs(error).mean(axis=0).tolist(), rel=1e-5)
    q = np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 0.0]])
    q[:, 1:] -= 0.1 * weight * error  # each action was taken once; the gradient of the mean of two squares
    np.testing.assert_allclose(net.critic.numbers.detach(), q, rtol=1e-5)
    # The actor climbs sum of p (q - alpha log p), with the critics as they are now.
    gain = q.min(axis=0) - 0.5 * np.log(p)
    logits = np.array([math.log(2.0), 0.0, 0.0]) + 0.1 * p * (gain - (p * gain).sum())
    np.testing.assert_allclose(net.actor.numbers.detach(), logits, rtol=1e-5, atol=1e-6)
    assert out.metrics["entropy"].item() == pytest.approx(entropy, rel=1e-5)
    excess = entropy - 0.98 * math.log(3)
    assert agent.alpha.item() == pytest.approx(0.5 * math.exp(-0.1 * excess), rel=1e-5)
    assert not any(x.requires_grad for x in (*out.metrics.values(), out.priority))


def test_the_policy_of_a_bandit_tends_to_the_softmax_of_its_values() -> None:
    """The best policy is exp(Q / alpha), normalised, and the soft value alpha log of the sum of exp(Q / alpha)."""
    q, alpha = np.array([1.0, 0.5, -1.0]), 0.5
    net = tables([0.0, 0.0, 0.0], [q.tolist(), (q + 1).tolist()])
    agent = SACDiscrete(net, 3, Scalar("mse"), partial(torch.optim.Adam, lr=0.05), Soft(1.0), alpha=alpha)
    for _ in range(300):
        agent._learn_policy(torch.zeros(1, 1), agent.alpha, None)
    wanted = np.exp(q / alpha) / np.exp(q / alpha).sum()
    np.testing.assert_allclose(net.actor.numbers.detach().softmax(dim=0), wanted, atol=1e-3)
    data = batch([0], [1.0], [0.9], [1.0])
    reward, following = agent._backup(data, data.next_obs, agent.target(data.next_obs), agent.alpha)
    soft = alpha * math.log(np.exp(q / alpha).sum())
    assert (reward + 0.9 * following[:, 0]).item() == pytest.approx(1 + 0.9 * soft, abs=1e-3)


def test_forbidden_actions_have_no_part() -> None:
    """Against the same update of an agent that has the allowed actions alone."""
    allowed = torch.tensor([[True, False, True]])
    masked = tables([0.3, 5.0, -0.2], [[1.0, 50.0, 3.0], [2.0, 60.0, 0.0]])
    alone = tables([0.3, -0.2], [[1.0, 3.0], [2.0, 0.0]])
    one, other = (
        SACDiscrete(net, n, Scalar("mse"), SGD, NoTarget(), initial_alpha=2.0) for net, n in ((masked, 3), (alone, 2))
    )
    out = one.learn(batch([2], [1.0], [0.5], [1.0], action_mask=allowed, next_action_mask=allowed))
    wanted = other.learn(batch([1], [1.0], [0.5], [1.0]))
    assert out.metrics.keys() == wanted.metrics.keys()
    for key, x in wanted.metrics.items():
        torch.testing.assert_close(out.metrics[key], x)
    torch.testing.assert_close(one.alpha, other.alpha)
    torch.testing.assert_close(masked.actor.numbers[[0, 2]], alone.actor.numbers)
    torch.testing.assert_close(masked.critic.numbers[:, [0, 2]], alone.critic.numbers)
    obs, mask = np.zeros((200, 1), np.float32), np.tile(allowed.numpy(), (200, 1))
    one.random_steps = 1
    for mode in (Train(0, np.random.default_rng(0)), Train(1, np.random.default_rng(0))):
        assert set(one.act(obs, None, mode, mask)[0]) == {0, 2}
    assert set(one.act(obs, None, Evaluate(np.random.default_rng(0), 0.5), mask)[0]) == {0, 2}


def test_acting_draws_from_the_policy_in_training_and_takes_its_mode_in_evaluation() -> None:
    agent = SACDiscrete(tables([0.0, 1.0, -1.0], [[0.0] * 3] * 2), 3, Scalar("mse"), ADAM, Soft(0.1), random_steps=10)
    obs = np.zeros((4000, 1), np.float32)
    greedy, _ = agent.act(obs, None, Evaluate(np.random.default_rng(0)))
    assert set(greedy) == {1}
    drawn, _ = agent.act(obs, None, Train(10, np.random.default_rng(0)))
    wanted = np.exp([0.0, 1.0, -1.0]) / np.exp([0.0, 1.0, -1.0]).sum()
    np.testing.assert_allclose(np.bincount(drawn) / 4000, wanted, atol=0.03)
    uniform, _ = agent.act(obs, None, Train(9, np.random.default_rng(0)))
    np.testing.assert_allclose(np.bincount(uniform) / 4000, [1 / 3] * 3, atol=0.03)


@pytest.mark.parametrize("value", [Scalar("mse"), Categorical(-3.0, 3.0, 7), Quantile(5)], ids=["mse", "c51", "qr"])
@pytest.mark.parametrize("alpha", [None, 0.2])
def test_a_restored_agent_learns_on_bit_for_bit(value: Any, alpha: float | None) -> None:
    def made(seed: int) -> SACDiscrete:
        torch.manual_seed(seed)
        space = Box(-1, 1, (3,), np.float32)
        net = ControlNetwork(
            space, 4, value.outputs_per_action, Encoder, Logits, (8, 8), critics=2, normalize=True, discrete=True
        )
        return SACDiscrete(net, 4, value, ADAM, Soft(0.1), alpha=alpha, clip_grad_norm=0.5)

    def learn(agent: SACDiscrete, first: int, last: int) -> None:
        for i in range(first, last):
            rng = np.random.default_rng(i)
            obs, following = (torch.from_numpy(rng.normal(size=(6, 3)).astype(np.float32)) for _ in range(2))
            action, reward = torch.from_numpy(rng.integers(4, size=6)), torch.from_numpy(rng.normal(size=6)).float()
            ones = torch.ones(6)
            agent.learn(Batch(obs, action, reward, 0.9 * ones, following, ones, np.arange(6)))
            agent.act(obs.numpy(), None, Train(i, rng))
            agent.sync(Clock(updates=i), Clock(updates=i + 1))

    whole, fresh = made(0), made(1)
    learn(whole, 0, 3)
    state = copy.deepcopy(whole.state_dict())
    learn(whole, 3, 6)
    fresh.load_state_dict(state)
    learn(fresh, 3, 6)
    assert torch.equal(whole.alpha, fresh.alpha)
    for mine, wanted in ((fresh.network, whole.network), (fresh.target, whole.target)):
        for a, b in zip(mine.state_dict().values(), wanted.state_dict().values(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("switch", "words"),
    [
        ({"target_entropy": 1.5}, r"agent\.target_entropy: must be in \[0, 1\], a share of log A, got 1.5"),
        ({"alpha": -0.1}, r"agent\.alpha: must be 0 or more, or null to learn it, got -0.1"),
        ({"clip_grad_norm": 0.0}, r"agent\.clip_grad_norm: must be above 0, or null for no clipping, got 0.0"),
    ],
)
def test_wrong_numbers_are_told(switch: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        SACDiscrete(tables([0.0, 0.0], [[0.0, 0.0]]), 2, Scalar("mse"), ADAM, Soft(0.1), **switch)


def test_each_observation_has_a_mask_of_its_own() -> None:
    net = tables([0.3, 5.0, -0.2], [[1.0, 50.0, 3.0]])
    agent = SACDiscrete(net, 3, Scalar("mse"), SGD, NoTarget(), alpha=0.5)
    now = torch.tensor([[True, True, True], [True, False, False]])
    after = torch.tensor([[True, False, True], [False, True, False]])
    data = batch([0, 0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0], action_mask=now, next_action_mask=after)
    reward, following = agent._backup(data, data.next_obs, agent.target(data.next_obs), agent.alpha)
    p = np.exp([0.3, -0.2]) / np.exp([0.3, -0.2]).sum()
    assert (reward + following[:, 0]).tolist() == pytest.approx([p @ ([1.0, 3.0] - 0.5 * np.log(p)), 50.0])
    assert float(agent._largest_entropy(now)) == pytest.approx((math.log(3) + math.log(1)) / 2)


def test_an_update_with_batch_normalisation() -> None:
    """Of the critics, against the values of a batch and its successors normalised together."""
    torch.manual_seed(0)
    space = Box(-1, 1, (3,), np.float32)
    net = ControlNetwork(space, 4, 1, Encoder, Logits, (8,), critics=2, batch_norm=True, discrete=True)
    agent = SACDiscrete(net, 4, Scalar("mse"), SGD, NoTarget(), alpha=0.3)
    rows = torch.randn(2, 6, 3)
    action, ones = torch.tensor([0, 3, 1, 2, 2, 0]), torch.ones(6)
    data = Batch(rows[0], action, torch.randn(6), 0.9 * ones, rows[1], ones, np.arange(6))
    copied = copy.deepcopy(net)
    out = agent.learn(data)
    copied.actor.eval()
    log_p = copied.actor(data.next_obs).log_softmax(dim=1)
    values = copied.critic(rows.flatten(0, 1))[..., 0]  # (2, 12, 4)
    soft = (log_p.exp() * (values[:, 6:].amin(dim=0) - 0.3 * log_p)).sum(dim=1)
    target = (data.reward + 0.9 * soft).detach()
    loss = ((values[:, torch.arange(6), action] - target) ** 2).sum(dim=0).mean()
    torch.testing.assert_close(out.metrics["loss"], loss.detach())
    loss.backward()
    for (name, p), trained in zip(copied.critic.named_parameters(), net.critic.parameters(), strict=True):
        torch.testing.assert_close(trained, p - 0.1 * p.grad, msg=name)
    for old, new in zip(copied.critic.buffers(), net.critic.buffers(), strict=True):  # the actor's loss left them
        assert torch.equal(old, new)
    assert all(int(layer.batches) == 1 for layer in net.modules() if isinstance(layer, BatchRenorm))
