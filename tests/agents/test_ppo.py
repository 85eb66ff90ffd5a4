"""PPO by hand: its losses at the borders of the clip, its first gradient, its epochs and its stop."""

import math

import numpy as np
import pytest
import torch

from rl_runner.agents.a2c import A2C
from rl_runner.agents.ppo import PPO, policy_losses, value_losses
from rl_runner.schedules import LinearSchedule
from rl_runner.types import UserError
from tests.agents.rollouts import SGD, TWO, Table, rollout
from tests.compilers import where_it_compiles

# ratio, advantage, loss, gradient of the loss by the ratio (0 where the clip holds), for clip 0.2
BORDERS = [
    (1.0, 2.0, -2.0, -2.0),
    (1.1, 2.0, -2.2, -2.0),
    (1.3, 2.0, -2.4, 0.0),
    (0.7, 2.0, -1.4, -2.0),  # less probable though it was good: not clipped
    (1.3, -2.0, 2.6, 2.0),  # more probable though it was bad: not clipped
    (0.9, -2.0, 1.8, 2.0),
    (0.7, -2.0, 1.6, 0.0),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "slope"), BORDERS)
def test_the_clipped_loss_and_its_gradient(ratio: float, advantage: float, loss: float, slope: float) -> None:
    log_ratio = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    given = policy_losses(log_ratio, torch.tensor([advantage], dtype=torch.float64), torch.tensor(0.2))
    assert float(given) == pytest.approx(loss)
    given.sum().backward()
    assert float(log_ratio.grad) == pytest.approx(slope * ratio)  # d ratio / d log ratio = ratio


@pytest.mark.parametrize(
    ("value", "loss", "slope"),
    [
        (1.0, 9.0, -6.0),  # old 1, target 4
        (1.5, 6.25, -5.0),
        (3.0, 6.25, 0.0),  # beyond the clip towards the target: as if at 1.5
        (0.0, 16.0, -8.0),  # beyond it on the wrong side: the larger loss is the value's own
    ],
)
def test_the_clipped_value(value: float, loss: float, slope: float) -> None:
    v = torch.tensor([value], requires_grad=True)
    given = value_losses(v, torch.tensor([1.0]), torch.tensor([4.0]), 0.5)
    assert float(given) == pytest.approx(loss)
    given.sum().backward()
    assert float(v.grad) == pytest.approx(slope)


def test_the_first_step_on_a_whole_rollout_is_that_of_an_actor_critic() -> None:
    """At a ratio of 1 the clipped loss has the gradient of log pi times the advantage (Huang et al. 2022)."""
    tables = [Table([[0.3, -0.1], [0.2, 0.5]], [1.0, 2.0]) for _ in range(2)]
    seen = rollout([0, 1, 0, 1], [0, 1, 1, 0], [1, 2, -1, 0.5], [0, 0, 1, 0], last_obs=[1])
    settings = {"gamma": 0.9, "lam": 0.8, "entropy_coef": 0.1, "normalize_advantages": False}
    list(A2C(tables[0], TWO, SGD, **settings).learn(seen, 0))
    (metrics,) = PPO(tables[1], TWO, SGD, epochs=1, batch_size=10, **settings).learn(seen, 0)
    for a, b in zip(tables[0].parameters(), tables[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    assert float(metrics["kl"]) == 0.0
    assert float(metrics["clipped"]) == 0.0


def test_it_stops_when_the_policy_has_moved_far_enough() -> None:
    table = Table([[0.0, 0.0]])
    moving = torch.optim.SGD(table.parameters(), lr=0.1)
    agent = PPO(table, TWO, lambda _: moving, gamma=0.9, epochs=50, batch_size=2, target_kl=0.01, clip_grad_norm=None)
    done = list(agent.learn(rollout([0, 0], [0, 1], [1, -1], [1, 1]), 0))
    assert 3 <= len(done) < 50
    assert all(float(m["kl"]) <= 0.015 for m in done[:-1])
    assert float(done[-1]["kl"]) > 0.015  # of the batch that it stopped at, so that too large a step is seen
    probability = table.logits.detach().softmax(dim=1)[0]
    kl = float((probability.log().neg() + math.log(0.5)).mean())  # of the even policy that acted, from the new one
    assert kl > 0.01


def test_clip_and_learning_rate_follow_their_schedules() -> None:
    agent = PPO(
        Table([[0.0, 0.0]]),
        TWO,
        SGD,
        gamma=0.9,
        clip=0.4,
        clip_end=0.0,
        clip_steps=100,
        lr_schedule=LinearSchedule(1, 0, 10),
    )
    list(agent.learn(rollout([0], [0], [1], [1]), 5))
    assert agent.optimizer.param_groups[0]["lr"] == 0.5
    assert agent.clip(50) == pytest.approx(0.2)


def test_without_a_clip_the_ratio_counts_however_large_it_is() -> None:
    """Gradient steps on one row, of which the action was good: unclipped, each of them makes it more probable."""

    def chosen(clip: float | None) -> float:
        table = Table([[0.0, 0.0]])
        agent = PPO(table, TWO, SGD, 0.9, epochs=3, clip=clip, value_coef=0.0, normalize_advantages=False)
        done = list(agent.learn(rollout([0], [0], [1], [1]), 0))
        assert math.isfinite(float(done[-1]["loss"]))
        assert (clip is None) == (float(done[-1]["clipped"]) == 0.0)
        return float(table.logits.detach().softmax(dim=1)[0, 0])

    assert chosen(None) > chosen(0.05) > 0.5
    with pytest.raises(UserError, match=r"^agent.clip_end: must be null where agent.clip is null, got 0.1"):
        PPO(Table([[0.0, 0.0]]), TWO, SGD, gamma=0.9, clip=None, clip_end=0.1)
    with pytest.raises(UserError, match=r"^agent.clip_steps: must be 0 or more, got -1"):
        PPO(Table([[0.0, 0.0]]), TWO, SGD, gamma=0.9, clip_steps=-1)


def test_normalised_advantages_of_one_row_are_zero_and_not_nan() -> None:
    table = Table([[0.0, 0.0]])
    list(PPO(table, TWO, SGD, gamma=0.9, epochs=1, value_coef=0.0).learn(rollout([0], [0], [1], [1]), 0))
    np.testing.assert_array_equal(table.logits.detach(), [[0.0, 0.0]])


@pytest.mark.parametrize("key", ["clip", "clip_value", "target_kl"])
def test_what_is_wrong_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=f"^agent.{key}: must be above 0, got 0.0"):
        PPO(Table([[0.0, 0.0]]), TWO, SGD, gamma=0.9, **{key: 0.0})


@where_it_compiles
def test_compiled_learning_is_the_plain_one_to_rounding(device: str) -> None:
    """Over two rollouts, with a clip that shrinks."""
    if device == "cuda":
        pytest.skip("the tables of these tests are on the CPU")
    clips = {"clip": 0.3, "clip_end": 0.1, "clip_steps": 20, "clip_value": 0.5, "entropy_coef": 0.1, "target_kl": 1.0}
    tables = [Table([[0.3, -0.1], [0.2, 0.5]], [1.0, 2.0]) for _ in range(2)]
    agents = [
        PPO(t, TWO, SGD, gamma=0.9, epochs=3, batch_size=2, compiled=c, **clips)  # type: ignore[arg-type]
        for t, c in zip(tables, (False, True), strict=True)
    ]
    for step in (0, 10):
        seen = rollout([0, 1, 0, 1], [0, 1, 1, 0], [1, 2, -1, 0.5], [0, 0, 1, 0], last_obs=[1])
        learned = []
        for agent in agents:
            torch.manual_seed(step)
            learned.append([{k: float(v) for k, v in metrics.items()} for metrics in agent.learn(seen, step)])
        assert len(learned[0]) == len(learned[1]) == 6
        for plain, quick in zip(*learned, strict=True):
            assert quick == pytest.approx(plain, rel=1e-4, abs=1e-6)
    for a, b in zip(tables[0].parameters(), tables[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_learning_uses_the_clip_of_its_step() -> None:
    """At step 100 the clip is 0: in the second epoch both ratios have left 1, one upwards and one downwards."""
    settings = {"epochs": 2, "clip": 0.4, "clip_end": 0.0, "clip_steps": 100}
    for step, wanted in ((0, [0.0, 0.0]), (100, [0.0, 1.0])):
        agent = PPO(Table([[0.0, 0.0]]), TWO, SGD, gamma=0.9, **settings)
        done = list(agent.learn(rollout([0, 0], [0, 1], [1, -1], [1, 1]), step))
        assert [float(m["clipped"]) for m in done] == wanted
