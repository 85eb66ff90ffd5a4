"""PQN by hand: its targets, one gradient step, its epochs, masks, and what truncation and termination are worth."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl_runner.agents.pqn import PQN
from rl_runner.exploration import EpsilonGreedy
from rl_runner.rollouts import rows_of
from rl_runner.schedules import LinearSchedule
from rl_runner.types import Evaluate, Rollout, Train, UserError
from rl_runner.values import Categorical, Quantile, Scalar
from tests.agents.rollouts import rollout

SGD = partial(torch.optim.SGD, lr=0.1)


class QTable(nn.Module):
    """M numbers for each action of each discrete state, in double precision."""

    normalizer = None

    def __init__(self, q: object, numbers: int = 1) -> None:
        super().__init__()
        table = torch.tensor(q, dtype=torch.float64)
        self.q = nn.Parameter(table[..., None].repeat(1, 1, numbers) if numbers > 1 else table[..., None])

    def forward(self, obs: Tensor) -> Tensor:
        return self.q[obs.long()]


def agent(network: nn.Module, **settings: object) -> PQN:
    given = {"epochs": 1, "batch_size": 100, "clip_grad_norm": None, "gamma": 0.5, **settings}
    value = given.pop("value", Scalar("mse"))
    return PQN(network, value, SGD, EpsilonGreedy(0.3, 0.3, 0), **given)


def targets(learner: PQN, seen: Rollout) -> list[float]:
    return learner._targets(seen, rows_of(seen, torch.device("cpu"))).tolist()


def recursive(best: list[float], seen: Rollout, gamma: float, lam: float) -> list[list[float]]:
    """Return the lambda-returns of a rollout as the paper defines them, step by step, for each environment."""
    steps, envs = seen.reward.shape
    where = {(int(t), int(i)): int(o) for (t, i), o in zip(seen.cut, seen.cut_obs, strict=True)}

    def of(t: int, i: int) -> float:
        reward = seen.reward[t, i]
        if seen.terminal[t, i]:
            return reward
        last = t == steps - 1
        after = where[t, i] if (t, i) in where else int(seen.last_obs[i] if last else seen.obs[t + 1, i])
        if last or seen.ended[t, i]:
            return reward + gamma * best[after]
        return reward + gamma * ((1 - lam) * best[after] + lam * of(t + 1, i))

    return [[of(t, i) for i in range(envs)] for t in range(steps)]


def test_targets_are_the_lambda_returns_of_the_greedy_policy() -> None:
    """Random streams of three environments, with both endings, and lost lives that end nothing but bootstrapping."""
    rng, best_q = np.random.default_rng(0), np.random.default_rng(1).normal(size=(7, 3))
    for lam in (0.0, 0.4, 1.0):
        steps, envs = 12, 3
        terminal, truncated = rng.random((2, steps, envs)) < 0.15
        ended = truncated | (terminal & (rng.random((steps, envs)) < 0.7))
        inside = ended & ~terminal
        inside[-1] = False
        seen = Rollout(
            obs=rng.integers(0, 7, (steps, envs)),
            action=rng.integers(0, 3, (steps, envs)),
            reward=rng.normal(size=(steps, envs)),
            terminal=terminal,
            ended=ended,
            last_obs=rng.integers(0, 7, envs),
            cut_obs=rng.integers(0, 7, int(inside.sum())),
            cut=np.argwhere(inside),
        )
        wanted = recursive(best_q.max(axis=1).tolist(), seen, 0.9, lam)
        given = targets(agent(QTable(best_q.tolist()), gamma=0.9, lam=lam), seen)
        np.testing.assert_allclose(given, np.array(wanted).reshape(-1), rtol=1e-5, atol=1e-6)


def test_truncation_bootstraps_from_the_true_successor_and_termination_does_not() -> None:
    """Gamma 0.5; the best values are 2 and 8. The episode is cut short in state 1, and another begins in state 0."""
    network = QTable([[1.0, 2.0], [8.0, 0.0]])
    cut = rollout([0, 0], [0, 1], [1, 1], [0, 1], [1, 1], cut=[0], cut_obs=[1])
    assert targets(agent(network), cut) == [1 + 0.5 * 8, 1]


def test_one_gradient_step_by_hand() -> None:
    """Two rows of one state. The squared error's gradient is 2 (Q - G) / 2 for each; the learning rate is 0.1."""
    network = QTable([[1.0, 2.0]])
    (metrics,) = agent(network).learn(rollout([0, 0], [0, 1], [4, 6], [1, 1]), 0)
    np.testing.assert_allclose(network.q.detach()[..., 0], [[1 + 0.1 * 3, 2 + 0.1 * 4]])
    assert float(metrics["loss"]) == pytest.approx((3**2 + 4**2) / 2)
    assert float(metrics["td_error"]) == pytest.approx(3.5)
    assert float(metrics["q_mean"]) == 1.5
    assert float(metrics["q_max"]) == 2
    assert float(metrics["target_mean"]) == 5
    assert float(metrics["grad_norm"]) == pytest.approx(5)


def test_targets_stay_for_all_epochs() -> None:
    """The state follows itself, so its target would move with each step if it were computed anew."""
    network = QTable([[0.0]])
    seen = rollout([0], [0], [1], [0], [0], last_obs=[0])
    done = list(agent(network, epochs=3).learn(seen, 0))
    assert len(done) == 3
    assert {float(metrics["target_mean"]) for metrics in done} == {1.0}


def test_forbidden_actions_are_worth_nothing() -> None:
    """In rows, after the last row, and where an episode was cut short; gamma 0.5, lambda 0."""
    network, no, yes = QTable([[9.0, 2.0], [9.0, 4.0]]), [False, True], [True, True]
    seen = rollout([0, 0, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0], [1, 0, 0], last_obs=[1], cut=[0], cut_obs=[1])
    masked = seen._replace(action_mask=np.array([[yes], [yes], [no]]), end_mask=np.array([yes, no]))
    assert targets(agent(network, lam=0.0), masked) == [0.5 * 4, 0.5 * 4, 0.5 * 9]
    assert targets(agent(network, lam=0.0), seen) == [0.5 * 9] * 3


@pytest.mark.parametrize("value", [Categorical(-1.0, 3.0, 5), Quantile(5)], ids=["c51", "qr_dqn"])
def test_a_distribution_learns_that_of_the_returns(value: Categorical | Quantile) -> None:
    """Returns of 0 and 2 in equal shares. C51's atoms are -1, 0, 1, 2 and 3.

    A quantile q below 1 is pulled down by (1 - level) q and up by level, for the Huber loss is linear beyond 1.
    """
    network = QTable([[0.0]], numbers=5).float()
    learner = PQN(network, value, partial(torch.optim.Adam, lr=0.02), EpsilonGreedy(0, 0, 0), 0.5, epochs=1000)
    list(learner.learn(rollout([0, 0], [0, 0], [0, 2], [1, 1]), 0))
    assert float(learner.q_values(torch.tensor([0]))) == pytest.approx(1, abs=0.05)
    numbers = network.q.detach()[0, 0]
    if isinstance(value, Categorical):
        np.testing.assert_allclose(numbers.softmax(0), [0, 0.5, 0, 0.5, 0], atol=0.02)
    else:
        np.testing.assert_allclose(numbers, [1 / 9, 3 / 7, 1, 2 - 3 / 7, 2 - 1 / 9], atol=0.02)


def test_learning_rate_and_rewards_are_scaled() -> None:
    learner = agent(QTable([[0.0]]), normalize_rewards=True, lr_schedule=LinearSchedule(1, 0, 10))
    (metrics,) = learner.learn(rollout([0, 0], [0, 0], [100, 300], [1, 1]), 5)
    assert learner.optimizer.param_groups[0]["lr"] == 0.5
    assert float(metrics["target_mean"]) == pytest.approx(2, rel=1e-3)  # 100 and 300 have a deviation of 100
    learner.cut(np.array([True]))
    assert learner.state_dict()["reward_scale"]["running"].tolist() == [0.0]


def test_it_explores_in_training_and_is_greedy_in_evaluation() -> None:
    learner, obs = agent(QTable([[0.0, 1.0]])), np.zeros(4000, dtype=np.int64)
    action, _ = learner.act(obs, None, Train(0, np.random.default_rng(0)))
    assert np.mean(action == 0) == pytest.approx(0.15, abs=0.02)  # half of epsilon 0.3
    action, _ = learner.act(obs, None, Evaluate(np.random.default_rng(0)))
    assert (action == 1).all()
    assert learner.metrics(0) == {"epsilon": 0.3}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"lam": 1.1}, r"^agent.lam: must be in \[0, 1\], got 1.1"),
        ({"epochs": 0}, "^agent.epochs: must be at least 1, got 0"),
        ({"batch_size": 0}, "^agent.batch_size: must be at least 1, got 0"),
        ({"clip_grad_norm": 0.0}, "^agent.clip_grad_norm: must be above 0, or null"),
    ],
)
def test_what_is_wrong_is_refused(settings: dict[str, float], line: str) -> None:
    with pytest.raises(UserError, match=line):
        agent(QTable([[0.0]]), **settings)
