"""What values mean and their losses, by hand and against slow loops over Python floats."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rl_runner.types import UserError
from rl_runner.values import Categorical, ImplicitQuantile, Quantile, Scalar, quantile_huber, scattered, weighted
from tests import oracle

Q, NEXT = torch.tensor([[2.0], [3.0], [1.0]]), torch.tensor([[10.0], [1e9], [2.0]])
REWARD, DISCOUNT = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([0.9, 0.0, 0.75])
# targets 1 + 0.9 * 10 = 10, -2 + 0 = -2, 0 + 0.75 * 2 = 1.5; errors 8, -5, 0.5
ERROR = [8.0, 5.0, 0.5]

M = 7  # numbers per action value of the distributions below
REPRESENTATIONS = [Scalar("mse"), Scalar(), Categorical(-3.0, 4.0, M), Quantile(M, 0.5), ImplicitQuantile(M)]
IDS = ["mse", "huber", "categorical", "quantile", "implicit"]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def numbers(value: Any, *shape: int, seed: int = 0) -> Tensor:
    """Random numbers (..., M) for a representation; an implicit one's second half are levels in (0, 1)."""
    draw = rng(seed)
    if isinstance(value, ImplicitQuantile):
        parts = (
            draw.normal(size=(*shape, value.quantile_levels)),
            draw.uniform(0.05, 0.95, size=(*shape, value.quantile_levels)),
        )
        return torch.from_numpy(np.concatenate(parts, axis=-1)).float()
    return torch.from_numpy(draw.normal(size=(*shape, value.outputs_per_action))).float()


def some(batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rewards and discounts, one of them 0."""
    draw = rng(seed)
    discount = draw.uniform(0.5, 1.0, batch)
    discount[-1] = 0.0
    return torch.from_numpy(draw.normal(size=batch)).float(), torch.from_numpy(discount).float()


# Every representation.


@pytest.mark.parametrize("value", REPRESENTATIONS, ids=IDS)
@pytest.mark.parametrize("batch", [1, 2, M, 2 * M])
def test_each_sample_of_a_batch_counts_by_itself(value: Any, batch: int) -> None:
    values, following, (reward, discount) = numbers(value, batch), numbers(value, batch, seed=1), some(batch)
    loss, priority = value.loss(values, following, reward, discount)
    assert loss.shape == priority.shape == (batch,)
    assert loss.dtype == priority.dtype == torch.float32
    for b in range(batch):
        one = slice(b, b + 1)
        alone = value.loss(values[one], following[one], reward[one], discount[one])
        torch.testing.assert_close(torch.cat(alone), torch.stack([loss[b], priority[b]]))


@pytest.mark.parametrize("value", REPRESENTATIONS, ids=IDS)
def test_priorities_are_not_negative_and_carry_no_gradient(value: Any) -> None:
    values, following = numbers(value, 50).requires_grad_(), numbers(value, 50, seed=1)
    loss, priority = value.loss(values, following, *some(50))
    assert torch.all(priority >= 0)
    assert torch.any(priority > 0.01)
    assert loss.requires_grad
    assert not priority.requires_grad


@pytest.mark.parametrize("value", REPRESENTATIONS, ids=IDS)
def test_what_follows_a_termination_does_not_matter(value: Any) -> None:
    values, reward, none = numbers(value, 4), torch.tensor([0.5, -1.0, 3.7, -50.0]), torch.zeros(4)
    one = value.loss(values, numbers(value, 4, seed=1), reward, none)
    other = value.loss(values, 100 * numbers(value, 4, seed=2), reward, none)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("value", REPRESENTATIONS, ids=IDS)
def test_under_a_certain_action_its_numbers_count_alone(value: Any) -> None:
    batch, actions = 6, 4
    values = numbers(value, batch, actions)
    chosen = [3, 0, 1, 2, 2, 0]
    values[0, 0] = 1e6  # another action's numbers, however large
    policy = torch.zeros(batch, actions)
    for b, a in enumerate(chosen):
        policy[b, a] = 1.0
    wanted = torch.stack([values[b, a] for b, a in enumerate(chosen)])
    found = value.expectation(values, policy)
    if isinstance(value, Categorical):  # logits mean the same when a constant is added
        found, wanted = found.softmax(dim=-1), wanted.softmax(dim=-1)
        torch.testing.assert_close(found, wanted)
    else:
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("value", REPRESENTATIONS, ids=IDS)
def test_the_mean_under_a_policy_is_the_average_of_the_means(value: Any) -> None:
    values = numbers(value, 5, 3)
    policy = torch.from_numpy(rng(9).dirichlet([1.0, 1.0, 1.0], size=5)).float()
    means = value.mean(values)
    assert means.shape == (5, 3)
    wanted = [sum(policy[b, a].item() * means[b, a].item() for a in range(3)) for b in range(5)]
    assert value.mean(value.expectation(values, policy)).tolist() == pytest.approx(wanted, abs=1e-5)


# Scalar.


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        ("mse", [64.0, 25.0, 0.25]),
        ("huber", [7.5, 4.5, 0.125]),  # |e| - 0.5 beyond 1, e^2 / 2 within
    ],
)
def test_loss_and_error_per_sample(loss: str, wanted: list[float]) -> None:
    losses, priority = Scalar(loss).loss(Q, NEXT, REWARD, DISCOUNT)
    assert losses.tolist() == pytest.approx(wanted)
    assert priority.tolist() == pytest.approx(ERROR)


@pytest.mark.parametrize(("loss", "gradient"), [("mse", [-16.0, 10.0, -1.0]), ("huber", [-1.0, 1.0, -0.5])])
def test_gradient(loss: str, gradient: list[float]) -> None:
    """d/dq: -2 e for mse; for huber the error clipped to [-1, 1], negated."""
    q = Q.clone().requires_grad_()
    losses, _ = Scalar(loss).loss(q, NEXT, REWARD, DISCOUNT)
    losses.sum().backward()
    assert q.grad is not None
    assert q.grad[:, 0].tolist() == pytest.approx(gradient)


def test_huber_is_the_default() -> None:
    assert Scalar().loss(Q, NEXT, REWARD, DISCOUNT)[0].tolist() == pytest.approx([7.5, 4.5, 0.125])


def test_mean_drops_the_last_axis() -> None:
    assert Scalar.outputs_per_action == 1
    assert torch.equal(Scalar().mean(torch.arange(6.0).reshape(3, 2, 1)), torch.arange(6.0).reshape(3, 2))
    assert Scalar().mean(torch.zeros(1, 1, 1)).shape == (1, 1)  # only the last one


def test_unknown_loss_is_told() -> None:
    with pytest.raises(UserError, match=r"value\.loss: must be one of mse, huber.*, got 'l1'"):
        Scalar("l1")


# Categorical.

SUPPORTS = [(-10.0, 10.0, 51), (-1.0, 1.0, 2), (0.0, 5.0, 11), (-2.0, 3.0, 6), (-0.1, 0.3, 7), (90.0, 100.0, 31)]
DISCOUNTS = [0.0, 1.0, 0.99, 0.99**3, 0.99**5, 0.5, 0.25]


@st.composite
def backups(draw: Any) -> tuple[Any, ...]:
    low, high, atoms = draw(st.sampled_from(SUPPORTS))
    span = high - low
    batch = draw(st.integers(1, 5))
    on_an_atom = st.integers(-2 * atoms, 2 * atoms).map(lambda i: i * span / (atoms - 1))
    at_an_end = st.sampled_from([low, high])
    anywhere = st.floats(-3, 3).map(lambda x: x * span)
    far = st.sampled_from([-1e4, 1e4])
    reward = draw(st.lists(st.one_of(on_an_atom, at_an_end, anywhere, far), min_size=batch, max_size=batch))
    discount = draw(st.lists(st.sampled_from(DISCOUNTS), min_size=batch, max_size=batch))
    # Probabilities: some certain, some with many zeros, some spread out
    sharpness = draw(st.sampled_from([0.02, 0.3, 1.0, 10.0]))
    probability = rng(draw(st.integers(0, 10**6))).dirichlet([sharpness] * atoms, size=batch)
    floats = [np.asarray(x, dtype=np.float32) for x in (probability, reward, discount)]
    return low, high, atoms, *floats


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(backups())
def test_projection(case: Any) -> None:
    """Against algorithm 1 of the paper. Single precision may misplace a return by some 1e-7 of its size."""
    low, high, atoms, probability, reward, discount = case
    value, size = Categorical(low, high, atoms), max(abs(low), abs(high))
    spacing = (high - low) / (atoms - 1)
    projected = value.project(*map(torch.from_numpy, (probability, reward, discount))).double().numpy()
    atol = 1e-6 + 5e-7 * size / spacing
    for b in range(len(reward)):
        wanted = oracle.project(probability[b].tolist(), float(reward[b]), float(discount[b]), low, high)
        np.testing.assert_allclose(projected[b], wanted, atol=atol)
        assert projected[b].min() >= 0
        assert projected[b].sum() == pytest.approx(probability[b].sum(dtype=np.float64), abs=2e-6)
        returns = low + spacing * np.arange(atoms)
        moved = reward[b] + float(discount[b]) * returns
        if moved.min() >= low and moved.max() <= high:  # nothing saturates: the mean is kept
            wanted_mean = (probability[b] * moved).sum()
            assert projected[b] @ returns == pytest.approx(wanted_mean, abs=2e-6 * size)


def test_sharing_without_scattered_sums_is_the_same() -> None:
    """As a GPU does it: random positions, some at an atom, at both ends, and several at one place."""
    generator = torch.Generator().manual_seed(0)
    position = torch.rand(64, 51, generator=generator) * 50
    position[:16] = position[:16].round()
    position[16:24], position[24:32], position[32:40] = 0.0, 50.0, 7.25
    probability = torch.randn(64, 51, generator=generator).softmax(dim=1)
    torch.testing.assert_close(weighted(position, probability), scattered(position, probability), rtol=1e-5, atol=1e-6)
    assert weighted(position[32:33], probability[32:33])[0, [6, 7, 8, 9]].tolist() == pytest.approx([0, 0.75, 0.25, 0])


def test_projection_by_hand() -> None:
    """Returns 0, 1, 2, 3, 4 with probabilities 0.1 to 0.4 and 0."""
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0]])
    project = Categorical(0.0, 4.0, 5).project
    cases = [
        ((0.0, 1.0), [0.1, 0.2, 0.3, 0.4, 0.0]),  # as it is
        ((1.0, 1.0), [0.0, 0.1, 0.2, 0.3, 0.4]),  # one atom up
        ((2.0, 1.0), [0.0, 0.0, 0.1, 0.2, 0.7]),  # 5 counts as 4
        ((-1.0, 1.0), [0.3, 0.3, 0.4, 0.0, 0.0]),  # -1 counts as 0
        ((0.5, 1.0), [0.05, 0.15, 0.25, 0.35, 0.2]),  # half way
        ((0.0, 0.5), [0.2, 0.6, 0.2, 0.0, 0.0]),  # 0, 0.5, 1, 1.5: 0.1+0.1, 0.1+0.3+0.2, 0.2
        ((1.25, 0.0), [0.0, 0.75, 0.25, 0.0, 0.0]),  # a termination: 1.25 for certain
        ((99.0, 0.0), [0.0, 0.0, 0.0, 0.0, 1.0]),
        ((-99.0, 0.9), [1.0, 0.0, 0.0, 0.0, 0.0]),
    ]
    for (reward, discount), wanted in cases:
        found = project(p, torch.tensor([reward]), torch.tensor([discount]))[0]
        assert found.tolist() == pytest.approx(wanted, abs=1e-6), (reward, discount)


def test_integer_positions_of_51_atoms_stay_whole() -> None:
    """Spacing 0.4 is not a binary number, and yet a move by whole atoms splits none of them."""
    value, p = Categorical(-10.0, 10.0, 51), torch.eye(51)
    for atoms in (-3, 0, 1, 7):
        projected = value.project(p, torch.full((51,), 0.4 * atoms), torch.ones(51))
        wanted = np.eye(51)[np.clip(np.arange(51) + atoms, 0, 50)]
        np.testing.assert_allclose(projected, wanted, atol=1e-5)


def categorical_case(seed: int = 0) -> tuple[Categorical, Tensor, Tensor, Tensor, Tensor, np.ndarray]:
    """Logits, what follows them, and the projected target in float64."""
    value = Categorical(-3.0, 4.0, M)
    values, following, (reward, discount) = numbers(value, 6, seed=seed), 3 * numbers(value, 6, seed=seed + 1), some(6)
    target = [
        oracle.project(p, r, d, -3.0, 4.0)
        for p, r, d in zip(oracle.softmax(following.numpy()), reward.tolist(), discount.tolist(), strict=True)
    ]
    return value, values, following, reward, discount, np.array(target)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_categorical_loss_is_the_cross_entropy_and_its_priority_the_divergence(seed: int) -> None:
    value, values, following, reward, discount, target = categorical_case(seed)
    loss, priority = value.loss(values, following, reward, discount)
    rows = list(zip(target, values.tolist(), strict=True))
    assert loss.tolist() == pytest.approx([oracle.cross_entropy(*row) for row in rows], rel=1e-5)
    assert priority.tolist() == pytest.approx([oracle.divergence(*row) for row in rows], abs=3e-6)


def test_categorical_gradient_is_probability_minus_target() -> None:
    value, values, following, reward, discount, target = categorical_case()
    values.requires_grad_()
    value.loss(values, following, reward, discount)[0].sum().backward()
    np.testing.assert_allclose(values.grad, oracle.softmax(values.detach().numpy()) - target, atol=2e-6)


def test_priority_is_zero_where_nothing_is_left_to_learn_and_only_there() -> None:
    value, values, following, reward, discount, target = categorical_case()
    learned = torch.from_numpy(np.log(np.maximum(target, 1e-30))).float()
    assert value.loss(learned, following, reward, discount)[1].tolist() == pytest.approx([0.0] * 6, abs=2e-6)
    assert value.loss(values, following, reward, discount)[1].min() > 0.01


def test_categorical_mean() -> None:
    logits = torch.log(torch.tensor([[[0.1, 0.2, 0.7], [0.5, 0.5, 1e-30]]])) + torch.tensor([3.0, -40.0])[:, None]
    assert Categorical(-1.0, 2.0, 3).mean(logits)[0].tolist() == pytest.approx([1.4, -0.25])  # returns -1, 0.5, 2


def test_categorical_under_a_policy_is_the_mixture_of_the_distributions() -> None:
    value = Categorical(-3.0, 4.0, M)
    values, policy = 4 * numbers(value, 5, 3), rng(1).dirichlet([0.5] * 3, size=5)
    mixed = value.expectation(values, torch.from_numpy(policy).float()).softmax(dim=-1)
    p = oracle.softmax(values.numpy())
    wanted = [[sum(policy[b, a] * p[b, a, m] for a in range(3)) for m in range(M)] for b in range(5)]
    np.testing.assert_allclose(mixed, wanted, rtol=1e-4, atol=1e-7)


def test_certain_and_impossible_returns_give_finite_losses() -> None:
    """Logits far apart: probabilities that are 0 in single precision."""
    value = Categorical(0.0, 2.0, 3)
    sure = torch.tensor([[1e4, 0.0, 0.0], [0.0, -1e4, 1e4]])
    values = sure.flip(0).clone().requires_grad_()
    following = value.expectation(sure[:, None, :], torch.ones(2, 1))  # holds -inf
    loss, priority = value.loss(values, following, torch.zeros(2), torch.ones(2))
    loss.sum().backward()
    # 0 for certain, where the logits 0, -1e4, 1e4 say 2 for certain: 1e4. The other way round: 1e4 and 0, so 1e4.
    assert loss.tolist() == pytest.approx([1e4, 1e4])
    assert priority.tolist() == pytest.approx([1e4, 1e4])
    assert values.grad is not None
    assert values.grad.tolist() == [[-1.0, 0.0, 1.0], [1.0, 0.0, -1.0]]


def test_returns_are_evenly_spaced_kept_and_never_changed() -> None:
    value, cpu = Categorical(-10.0, 10.0, 51), torch.device("cpu")
    before = value.returns(cpu).clone()
    np.testing.assert_allclose(before, [-10 + 0.4 * i for i in range(51)], atol=2e-6)
    value.loss(numbers(value, 4), numbers(value, 4), *some(4))
    value.mean(numbers(value, 4))
    assert value.returns(cpu) is value.returns(cpu)
    assert torch.equal(value.returns(cpu), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("value", REPRESENTATIONS, ids=IDS)
def test_devices_may_take_turns(value: Any) -> None:
    case = (numbers(value, 4), numbers(value, 4, seed=1), *some(4))
    wanted = value.loss(*case)
    for device in ("cuda", "cpu", "cuda"):
        found = value.loss(*(x.to(device) for x in case))
        torch.testing.assert_close([x.cpu() for x in found], list(wanted))


@pytest.mark.parametrize(("low", "high", "atoms", "key"), [(1.0, 1.0, 51, "high"), (0.0, 1.0, 1, "atoms")])
def test_supports_that_are_none_are_told(low: float, high: float, atoms: int, key: str) -> None:
    with pytest.raises(UserError, match=rf"value\.{key}: must be"):
        Categorical(low, high, atoms)


@pytest.mark.parametrize("bounds", [(None, 1.0), (0.0, None)])
def test_a_support_that_nobody_has_chosen_is_asked_for(bounds: Any) -> None:
    with pytest.raises(UserError, match=r"value\.low, value\.high: .*choose them"):
        Categorical(*bounds)


# Quantiles.


@st.composite
def regressions(draw: Any) -> tuple[Any, ...]:
    batch, k, targets = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    kappa = draw(st.sampled_from([0.0, 0.3, 1.0, 2.5]))
    halves = st.integers(-8, 8).map(lambda i: i / 2)  # so that errors of 0 and of kappa happen
    number = st.one_of(halves, st.floats(-5, 5))
    array = lambda *shape: np.array(  # noqa: E731
        draw(st.lists(number, min_size=math.prod(shape), max_size=math.prod(shape)))
    ).reshape(shape)
    level = rng(draw(st.integers(0, 10**6))).uniform(0, 1, size=(batch, k) if draw(st.booleans()) else k)
    return array(batch, k), level, array(batch, targets), kappa


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(regressions())
def test_quantile_huber_loss(case: Any) -> None:
    quantiles, level, targets, kappa = case
    loss = quantile_huber(*map(torch.from_numpy, (quantiles, level, targets)), kappa)
    levels = np.broadcast_to(level, quantiles.shape)
    wanted = [oracle.quantile_huber(*row, kappa) for row in zip(quantiles, levels, targets, strict=True)]
    assert loss.tolist() == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0])
def test_quantile_huber_gradient(kappa: float) -> None:
    """Against central differences of the slow loop."""
    draw, h = rng(3), 1e-6
    q, level, targets = draw.normal(size=(3, 4)), draw.uniform(size=(3, 4)), draw.normal(size=(3, 5))
    quantiles = torch.from_numpy(q).requires_grad_()
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (weight * quantile_huber(quantiles, torch.from_numpy(level), torch.from_numpy(targets), kappa)).sum().backward()
    for b in range(3):
        for k in range(4):
            moved = [q[b] + s * h * np.eye(4)[k] for s in (1, -1)]
            up, down = (oracle.quantile_huber(x, level[b], targets[b], kappa) for x in moved)
            wanted = weight[b].item() * (up - down) / (2 * h)
            assert quantiles.grad is not None
            assert quantiles.grad[b, k].item() == pytest.approx(wanted, abs=1e-5)


def test_a_high_level_minds_being_too_low() -> None:
    """Level 0.9: a target 10 above costs 0.9 (10 - 0.5), a target 10 below 0.1 (10 - 0.5)."""
    q, level = torch.zeros(2, 1), torch.tensor([0.9])
    target = torch.tensor([[10.0], [-10.0]])
    assert quantile_huber(q, level, target, 1.0).tolist() == pytest.approx([8.55, 0.95])
    assert quantile_huber(q, level, target, 0.0).tolist() == pytest.approx([9.0, 1.0])
    assert quantile_huber(q, level, target / 20, 1.0).tolist() == pytest.approx([0.9 / 8, 0.1 / 8])  # 0.5^2 / 2


def test_quantile_loss_is_that_of_levels_in_the_middle_of_equal_parts() -> None:
    value = Quantile(4, kappa=0.5)
    values, following, (reward, discount) = numbers(value, 3), numbers(value, 3, seed=1), some(3)
    loss, priority = value.loss(values, following, reward, discount)
    for b in range(3):
        target = [reward[b].item() + discount[b].item() * x for x in following[b].tolist()]
        q = values[b].tolist()
        wanted = oracle.quantile_huber(q, [0.125, 0.375, 0.625, 0.875], target, 0.5)
        assert loss[b].item() == pytest.approx(wanted, rel=1e-5)
        assert priority[b].item() == pytest.approx(abs(sum(target) - sum(q)) / 4, abs=1e-6)


def learn_quantiles(value: Quantile, draw: Any, steps: int) -> list[float]:
    """Descend on samples as rewards of last steps, 256 a time, the rate going down as 1 / step."""
    q = torch.zeros(value.outputs_per_action, requires_grad=True)
    for step in range(steps):
        reward = torch.from_numpy(draw(256)).float()
        values = q.expand(256, -1)
        loss = value.loss(values, torch.full((256, value.outputs_per_action), 9.0), reward, torch.zeros(256))[0].mean()
        (gradient,) = torch.autograd.grad(loss, q)
        with torch.no_grad():
            q -= 2.0 / (1 + step / 50) * gradient
    return q.tolist()


def test_descent_finds_the_quantiles_of_a_continuous_distribution() -> None:
    """Exponential: the quantile at level t is -log(1 - t). Within 0.05 with kappa 0."""
    draw = rng(0)
    found = learn_quantiles(Quantile(5, kappa=0.0), lambda n: draw.exponential(size=n), 1000)
    assert found == pytest.approx([-math.log(1 - t) for t in (0.1, 0.3, 0.5, 0.7, 0.9)], abs=0.05)


def test_descent_finds_the_quantiles_of_a_discrete_distribution() -> None:
    """1 with probability 0.3, else 0: the levels up to 0.65 have quantile 0, those from 0.75 have 1."""
    draw = rng(0)
    found = learn_quantiles(Quantile(10, kappa=0.0), lambda n: (draw.random(n) < 0.3).astype(float), 1000)
    assert found == pytest.approx([0.0] * 7 + [1.0] * 3, abs=0.05)


def test_with_a_wide_kappa_descent_finds_expectiles() -> None:
    """All errors in the square part: t p (1 - q) = (1 - t) (1 - p) q, so q = t p / (t p + (1 - t) (1 - p))."""
    draw, p = rng(0), 0.3
    found = learn_quantiles(Quantile(5, kappa=1.0), lambda n: (draw.random(n) < p).astype(float), 1000)
    wanted = [t * p / (t * p + (1 - t) * (1 - p)) for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert found == pytest.approx(wanted, abs=0.03)


# Implicit quantiles.


def test_implicit_quantiles_take_each_sample_at_its_own_levels() -> None:
    value = ImplicitQuantile(M, kappa=0.5)
    values, following, (reward, discount) = numbers(value, 4), numbers(value, 4, seed=1), some(4)
    loss, priority = value.loss(values, following, reward, discount)
    for b in range(4):
        q, level = values[b, :M].tolist(), values[b, M:].tolist()
        target = [reward[b].item() + discount[b].item() * x for x in following[b, :M].tolist()]
        assert loss[b].item() == pytest.approx(oracle.quantile_huber(q, level, target, 0.5), rel=1e-5)
        assert priority[b].item() == pytest.approx(abs(sum(target) - sum(q)) / M, abs=1e-6)


def test_no_gradient_flows_through_levels() -> None:
    value = ImplicitQuantile(M)
    values, following = numbers(value, 4).requires_grad_(), numbers(value, 4, seed=1)
    value.loss(values, following, *some(4))[0].sum().backward()
    assert values.grad is not None
    assert torch.all(values.grad[:, M:] == 0)
    assert torch.all(values.grad[:, :M] != 0)


def test_the_levels_of_what_follows_do_not_matter() -> None:
    value, (reward, discount) = ImplicitQuantile(M), some(4)
    values, following = numbers(value, 4), numbers(value, 4, seed=1)
    one = value.loss(values, following, reward, discount)
    following[:, M:] = 77.0
    torch.testing.assert_close(value.loss(values, following, reward, discount), one, rtol=0, atol=0)


def test_the_mean_of_implicit_quantiles_leaves_the_levels_out() -> None:
    """However many there are: in evaluation there may be more than in training."""
    value = ImplicitQuantile(2)
    assert value.mean(torch.tensor([[[1.0, 5.0, 0.3, 0.9]]])).tolist() == [[3.0]]
    assert value.mean(torch.tensor([[1.0, 5.0, 0.0, 2.0, 0.3, 0.9, 0.5, 0.5]])).tolist() == [2.0]


def test_what_the_network_must_give() -> None:
    said = {
        name: (value.outputs_per_action, value.quantile_levels)
        for name, value in zip(IDS, REPRESENTATIONS, strict=True)
    }
    assert said == {"mse": (1, 0), "huber": (1, 0), "categorical": (M, 0), "quantile": (M, 0), "implicit": (1, M)}


@pytest.mark.parametrize(("make", "key"), [(Quantile, "quantiles"), (ImplicitQuantile, "samples")])
def test_wrong_quantiles_are_told(make: Any, key: str) -> None:
    with pytest.raises(UserError, match=rf"value\.{key}: must be at least 1, got 0"):
        make(0)
    with pytest.raises(UserError, match=r"value\.kappa: must be 0 or more, got -1"):
        make(5, kappa=-1.0)
