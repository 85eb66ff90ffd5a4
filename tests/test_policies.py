"""What agents that learn a policy share: acting, the values of successors, running statistics."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from rl_runner.agents.a2c import A2C
from rl_runner.agents.ppo import PPO
from rl_runner.agents.reinforce import REINFORCE
from rl_runner.distributions import Categorical, Gaussian
from rl_runner.networks.actor_critic import ActorCritic
from rl_runner.networks.torsos import MLP
from rl_runner.policies import PolicyLearner, standardized
from rl_runner.types import Evaluate, Rollout, Train
from tests.agents.rollouts import SGD, TWO, Table, rollout

SPACE = Box(-1, 1, (3,), np.float32)


def agent(distribution: Any = TWO, **settings: Any) -> A2C:
    torch.manual_seed(0)
    return A2C(ActorCritic(SPACE, distribution, partial(MLP, sizes=(8,)), **settings), distribution, SGD, gamma=0.9)


def test_evaluation_takes_the_most_probable_action_and_draws_a_share_of_epsilon() -> None:
    three = A2C(Table([[0.0, 0.1, 0.0]]), Categorical([3]), SGD, gamma=0.9)
    obs, rng = np.zeros(4000, dtype=np.int64), np.random.default_rng(0)
    best, _ = three.act(obs, None, Evaluate(rng))
    assert set(best.tolist()) == {1}
    some, _ = three.act(obs, None, Evaluate(rng, epsilon=0.3))
    assert np.mean(some != 1) == pytest.approx(0.3 * 2 * 0.322, abs=0.03)
    drawn, _ = three.act(obs, None, Train(0, rng))
    np.testing.assert_allclose(np.bincount(drawn) / 4000, [0.322, 0.356, 0.322], atol=0.03)


def test_masked_actions_are_never_taken() -> None:
    mask = np.tile([[True, False, True]], (50, 1))
    three = A2C(Table([[0.0, 9.0, 0.1]]), Categorical([3]), SGD, gamma=0.9)
    for mode in (Train(0, np.random.default_rng(0)), Evaluate(np.random.default_rng(0))):
        action, _ = three.act(np.zeros(50, dtype=np.int64), None, mode, mask)
        assert 1 not in action


def test_continuous_actions_are_in_the_spaces_type() -> None:
    action, _ = agent(Gaussian((2,))).act(np.zeros((5, 3), np.float32), None, Train(0, np.random.default_rng(0)))
    assert action.dtype == np.float32
    assert action.shape == (5, 2)


def test_successors_of_cut_episodes_are_the_true_ones() -> None:
    """State k is worth 10 k. Environment 0 is cut short after the first step, environment 1 goes on."""
    table = Table([[0.0, 0.0]] * 9, [10.0 * k for k in range(9)])
    learner = A2C(table, TWO, SGD, gamma=0.9)
    obs, flags = np.array([[1, 2], [3, 4]]), np.zeros((2, 2), dtype=bool)
    ended = np.array([[True, False], [False, False]])
    seen = Rollout(
        *(obs, obs * 0, obs * 0.0, flags, ended),
        last_obs=np.array([5, 6]),
        cut_obs=np.array([8]),
        cut=np.array([[0, 0]]),
    )
    now, after = learner.values(seen, table.value(torch.from_numpy(obs.ravel())))
    assert now.tolist() == [[10, 20], [30, 40]]
    assert after.tolist() == [[80, 40], [50, 60]]


def test_observations_are_learned_with_the_statistics_with_which_was_acted() -> None:
    learner = agent(normalize=True)
    obs = np.random.default_rng(0).normal(5.0, 3.0, size=(20, 2, 3)).astype(np.float32)
    zero = np.zeros((20, 2))
    seen = Rollout(obs, zero.astype(int), zero, zero > 0, zero > 0, obs[0], obs[0, :0], np.zeros((0, 2), dtype=int))
    counts = []
    learner.step = lambda loss: counts.append(float(learner.network.normalizer.count)) or loss.detach()
    list(learner.learn(seen, 0))
    assert counts == [0.0]
    np.testing.assert_allclose(learner.network.normalizer.mean, obs.reshape(-1, 3).mean(axis=0), rtol=1e-6)
    learner.act(obs[0], None, Evaluate(np.random.default_rng(0)))
    assert float(learner.network.normalizer.count) == 40


def test_dropout_of_a_users_torso_is_off_where_the_policy_acts() -> None:
    def torso(space: Any) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.Dropout(0.5))

    learner = A2C(ActorCritic(SPACE, Gaussian((1,)), torso, init="default"), Gaussian((1,)), SGD, gamma=0.9)
    obs, rng = np.ones((40, 3), np.float32), np.random.default_rng(0)
    action, _ = learner.act(obs, None, Evaluate(rng))
    assert (action == action[0]).all()
    learner.network.log_std.data.fill_(-100.0)  # what is left of the spread is the dropout's
    action, _ = learner.act(obs, None, Train(0, rng))
    np.testing.assert_allclose(action, np.broadcast_to(action[0], action.shape), atol=1e-6)
    assert all(module.training for module in learner.network.modules())


@pytest.mark.parametrize(
    "learner",
    [
        A2C(Table([[0.0, 0.5]]), TWO, SGD, gamma=0.9, entropy_coef=5.0),
        REINFORCE(Table([[0.0, 0.5]]), TWO, SGD, gamma=0.9, entropy_coef=5.0),
        PPO(Table([[0.0, 0.5]]), TWO, SGD, gamma=0.9, entropy_coef=5.0, epochs=3, normalize_advantages=False),
    ],
    ids=lambda learner: type(learner).__name__,
)
def test_the_policys_loss_is_shown_once_before_the_gradient_step(learner: PolicyLearner) -> None:
    """One step with action 0: the advantage is 2, and the gradient of log pi(0) is (1 - pi(0), -pi(1))."""
    shown: list[torch.Tensor] = []

    def watch(loss: torch.Tensor) -> None:
        shown.append(torch.autograd.grad(loss, learner.network.logits, retain_graph=True)[0])

    one = rollout([0], [0], [2.0], [True])
    learner.watch = watch
    list(learner.learn(one, 0))
    list(learner.learn(one, 0))
    assert len(shown) == 1
    probability = 1 / (1 + np.exp(0.5))
    np.testing.assert_allclose(shown[0][0], [-2 * (1 - probability), 2 * (1 - probability)], rtol=1e-5)


@pytest.mark.parametrize("number", [3.633974075317383, 0.1, -7.3, 1e-6, 12345.678])
@pytest.mark.parametrize("count", [2, 3, 1500, 4097])
def test_equal_advantages_are_standardized_to_zero(number: float, count: int) -> None:
    """Their mean is rounded, and so small a difference is not to be divided by itself."""
    np.testing.assert_allclose(standardized(torch.full((count,), number)), np.zeros(count), atol=1e-3)


def test_standardized_advantages_are_those_of_float64() -> None:
    drawn = np.random.default_rng(0).normal(3.0, 2.0, 4097)
    wanted = (drawn - drawn.mean()) / drawn.std()
    np.testing.assert_allclose(standardized(torch.from_numpy(drawn).float()), wanted, atol=2e-6)


def test_the_discount_is_that_of_the_returns() -> None:
    table = Table([[0.0, 0.0]])
    assert A2C(table, TWO, SGD, gamma=0.9).discount == 0.9
    assert REINFORCE(table, TWO, SGD, gamma=0.9).discount == 0.9
    assert REINFORCE(table, TWO, SGD, gamma=0.9, returns="to_go").discount == 1.0
