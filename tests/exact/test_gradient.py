"""The exact policy gradient against finite differences, and the gradients that agents take against it."""

import copy
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl_runner import memory
from rl_runner.agents.reinforce import REINFORCE
from rl_runner.distributions import Categorical
from rl_runner.exact.gradient import PolicyGradient
from rl_runner.exact.mdp import MDP, masked
from rl_runner.networks.actor_critic import ActorCritic
from rl_runner.networks.torsos import MLP
from rl_runner.types import Rollout, UserError
from tests.agents import rollouts
from tests.agents.rollouts import SGD, Table
from tests.tables import backup, random_table, values_of

THREE = Categorical([3])
START = np.array([0.1, 0.4, 0.2, 0.3, 0.0])
# Two actions. From 0 to 1 or 2, whose actions end the episode or lead back; the rewards differ.
SMALL = {
    0: {0: [(0.8, 1, 1.0, False), (0.2, 2, 0.0, False)], 1: [(1.0, 2, -0.5, False)]},
    1: {0: [(1.0, 1, 0.5, True)], 1: [(0.5, 0, 2.0, False), (0.5, 1, -1.0, True)]},
    2: {0: [(1.0, 0, -1.0, False)], 1: [(0.7, 2, 1.5, True), (0.3, 0, 0.0, False)]},
}
LOGITS = [[0.3, -0.2], [0.1, 0.4], [-0.5, 0.2]]


def objective(table: Any, start: Any, logits: Tensor, gamma: float, allowed: Any = None) -> float:
    """Return J by plain loops over the table."""
    if allowed is not None:
        logits = logits.masked_fill(~torch.from_numpy(allowed), -torch.inf)
    policy = logits.detach().double().softmax(dim=1).numpy()
    return float(start @ np.array(values_of(table, policy, gamma, 200)))


def differences(table: Any, start: Any, logits: Any, gamma: float, allowed: Any = None) -> Tensor:
    """Return the gradient of J by each logit, by central differences."""
    logits, small = torch.as_tensor(logits, dtype=torch.float64), 1e-5
    gradient = torch.zeros_like(logits)
    for i in np.ndindex(*logits.shape):
        step = torch.zeros_like(logits)
        step[i] = small
        up, down = (objective(table, start, logits + way * step, gamma, allowed) for way in (1, -1))
        gradient[i] = (up - down) / (2 * small)
    return gradient


def by_logits(gradient: Tensor, network: Table) -> Tensor:
    """Return the part of the logits; that of the values, which follow them, must be 0."""
    assert not gradient[network.logits.numel() :].any()
    return gradient[: network.logits.numel()].reshape(network.logits.shape)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_against_finite_differences(seed: int, gamma: float) -> None:
    table, logits = random_table(seed), np.random.default_rng(seed).normal(size=(5, 3))
    network = Table(logits)
    gradient = PolicyGradient(MDP.from_table(table, START, 10, None), network, THREE, gamma)()
    wanted = differences(table, START, logits, gamma)
    torch.testing.assert_close(by_logits(gradient, network), wanted, rtol=1e-4, atol=1e-7)


def test_without_discount() -> None:
    """All episodes end. A state that no episode reaches may continue forever, and does not matter."""
    table = {**SMALL, 3: {a: [(1.0, 3, 7.0, False)] for a in range(2)}}
    logits, start = [*LOGITS, [0.0, 1.0]], np.array([0.6, 0.4, 0.0, 0.0])
    network = Table(logits)
    gradient = PolicyGradient(MDP.from_table(table, start, None, None), network, Categorical([2]), 1.0)()
    wanted = differences(SMALL, start[:3], LOGITS, 1.0)
    torch.testing.assert_close(by_logits(gradient, network)[:3], wanted, rtol=1e-4, atol=1e-7)


def test_forbidden_actions() -> None:
    table, logits = random_table(1), np.random.default_rng(1).normal(size=(5, 3))
    allowed = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=np.bool_)
    mdp, network = masked(MDP.from_table(table, START, 10, None), allowed), Table(logits)
    gradient = by_logits(PolicyGradient(mdp, network, THREE, 0.9)(), network)
    torch.testing.assert_close(gradient, differences(table, START, logits, 0.9, allowed), rtol=1e-4, atol=1e-7)
    assert not gradient[~torch.from_numpy(allowed)].any()


def network_of(shared: bool, first: int = 0) -> ActorCritic:
    torch.manual_seed(0)
    space = gym.spaces.Discrete(5, start=first)
    return ActorCritic(space, THREE, partial(MLP, sizes=[6]), shared=shared, init="default")


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("first", [0, 7])
def test_through_a_network(shared: bool, first: int) -> None:
    """Along random directions of its parameters, in single precision."""
    table, network = random_table(2), network_of(shared, first)
    gradient = PolicyGradient(MDP.from_table(table, START, 10, None), network, THREE, 0.9, first)()
    states, parameters = torch.arange(5) + first, torch.nn.utils.parameters_to_vector(network.parameters()).detach()

    def at(vector: Tensor) -> float:
        nn.utils.vector_to_parameters(vector, network.parameters())
        return objective(table, START, network.policy(states), 0.9)

    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        step = 1e-3 * torch.randn(len(parameters), generator=generator)
        wanted = (at(parameters + step) - at(parameters - step)) / 2
        assert float(gradient @ step.double()) == pytest.approx(wanted, rel=2e-2, abs=1e-6)
    nn.utils.vector_to_parameters(parameters, network.parameters())
    names = [name for name, p in network.named_parameters() for _ in range(p.numel())]
    moved = {name for name, number in zip(names, gradient.tolist(), strict=True) if number}
    assert moved == {name for name in names if not name.startswith("value")}


def play(table: Any, logits: Any, start: Any, episodes: int, seed: int = 0) -> Rollout:
    """Return so many episodes of the policy, one after the other."""
    rng, rows = np.random.default_rng(seed), []
    policy = torch.tensor(logits, dtype=torch.float64).softmax(dim=1).numpy()
    for _ in range(episodes):
        state, end = int(rng.choice(len(start), p=start)), False
        while not end:
            action = int(rng.choice(len(policy[state]), p=policy[state]))
            outcomes = table[state][action]
            _, after, reward, end = outcomes[rng.choice(len(outcomes), p=[o[0] for o in outcomes])]
            rows.append((state, action, reward, end))
            state = after
    return rollouts.rollout(*zip(*rows, strict=True))


def cosine_of(one: Rollout, gradient: PolicyGradient, agent: REINFORCE) -> float:
    """Return the cosine of the gradient of the agent's next update."""
    cosines: list[Any] = []
    agent.watch = lambda loss: cosines.append(gradient.cosine(loss))
    list(agent.learn(one, 0))
    return float(cosines[0])


@pytest.mark.parametrize("baseline", ["none", "value"])
def test_many_episodes_point_along_the_exact_gradient_and_few_do_not(baseline: str) -> None:
    start = np.array([0.6, 0.4, 0.0])
    mdp, cosines = MDP.from_table(SMALL, start, None, None), []
    for episodes, seed in [(3_000, 0), (3_000, 1), *((5, seed) for seed in range(10))]:
        network = Table(LOGITS, [0.7, -0.3, 1.1])
        agent = REINFORCE(network, rollouts.TWO, SGD, 1.0, returns="to_go", baseline=baseline)
        gradient = PolicyGradient(mdp, network, rollouts.TWO, agent.discount)
        cosines.append(cosine_of(play(SMALL, LOGITS, start, episodes, seed), gradient, agent))
    assert min(cosines[:2]) > 0.99
    assert np.mean(cosines[2:]) < 0.9


def by_the_theorem(logits: Tensor, start: Any, gamma: float, visits_gamma: float) -> Tensor:
    """Return sum_s d(s) sum_a pi(a|s) A(s, a) grad log pi(a|s) by plain loops, with its own discount of the visits."""
    policy = logits.detach().softmax(dim=1)
    values = values_of(SMALL, policy.numpy(), gamma, 100)
    advantage = [[backup(SMALL, s, a, values, gamma) - values[s] for a in SMALL[s]] for s in SMALL]
    visits = now = np.array(start)
    for _ in range(100):
        after = np.zeros(3)
        for s, a in np.ndindex(3, 2):
            for p, to, _, end in SMALL[s][a]:
                after[to] += visits_gamma * now[s] * float(policy[s, a]) * p * (not end)
        visits, now = visits + after, after
    return torch.tensor(visits)[:, None] * policy * torch.tensor(advantage)


def test_with_discount_the_usual_estimator_has_another_direction() -> None:
    """It leaves out gamma^t: states count as often as they are visited, without discount."""
    start, gamma, network = [1.0, 0.0, 0.0], 0.3, Table(LOGITS)
    exact = PolicyGradient(MDP.from_table(SMALL, start, None, None), network, rollouts.TWO, gamma)
    right, usual = (by_the_theorem(network.logits, start, gamma, visits_gamma) for visits_gamma in (gamma, 1.0))
    torch.testing.assert_close(by_logits(exact(), network), right)
    agent = REINFORCE(network, rollouts.TWO, SGD, gamma, baseline="none")
    cosine = cosine_of(play(SMALL, LOGITS, start, 6_000), exact, agent)
    expected = float(torch.cosine_similarity(right.ravel(), usual.ravel(), dim=0))
    assert expected < 0.95
    assert cosine == pytest.approx(expected, abs=0.02)


def test_a_loss_of_the_opposite_sign_has_the_opposite_cosine() -> None:
    network = network_of(shared=True)
    gradient = PolicyGradient(MDP.from_table(random_table(2), START, 10, None), network, THREE, 0.9)
    direction = gradient()
    loss = sum((p.double() * g.reshape(p.shape)).sum() for p, g in parts(network, direction))
    assert float(gradient.cosine(-loss)) == pytest.approx(1.0, abs=1e-6)
    assert float(gradient.cosine(3 * loss)) == pytest.approx(-1.0, abs=1e-6)


def parts(network: nn.Module, vector: Tensor) -> Any:
    parameters = list(network.parameters())
    return zip(parameters, vector.split([p.numel() for p in parameters]), strict=True)


def test_where_a_gradient_is_zero_or_the_objective_infinite_there_is_no_cosine() -> None:
    table = {0: {0: [(1.0, 0, 1.0, False)], 1: [(1.0, 0, 2.0, False)]}}
    network, mdp = Table([[0.3, -0.2]]), MDP.from_table(table, [1.0], None, None)
    loss = network.logits[0, 0] * 2.0
    assert PolicyGradient(mdp, network, rollouts.TWO, 1.0).cosine(loss) is None
    finite = PolicyGradient(mdp, network, rollouts.TWO, 0.5)
    assert finite.cosine(loss * 0.0) is None
    assert finite.cosine(loss) is not None


class Dropping(nn.Module):
    """A torso that draws random numbers in training."""

    def __init__(self, space: Any) -> None:
        super().__init__()
        self.inner = MLP(space, sizes=[6])
        self.dropout = nn.Dropout(0.5)

    def forward(self, obs: Tensor) -> Tensor:
        return self.dropout(self.inner(obs))


def test_measuring_leaves_no_trace() -> None:
    torch.manual_seed(0)
    network = ActorCritic(gym.spaces.Discrete(5), THREE, Dropping)
    loss = network.policy(torch.arange(5)).log_softmax(dim=1)[:, 0].sum()
    gradient = PolicyGradient(MDP.from_table(random_table(2), START, 10, None), network, THREE, 0.9)
    frozen = next(layer for layer in network.modules() if isinstance(layer, nn.Dropout)).eval()
    before, stream = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    assert float(gradient.cosine(loss)) == float(gradient.cosine(loss))
    assert torch.equal(torch.get_rng_state(), stream)
    assert network.training
    assert not frozen.training
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    loss.backward()  # its graph is still there


def test_more_states_than_there_is_memory_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 100)
    with pytest.raises(UserError, match=r"the exact value of a policy in 3 states"):
        PolicyGradient(MDP.from_table(SMALL, [1.0, 0.0, 0.0], None, None), Table(LOGITS), rollouts.TWO, 0.9)
