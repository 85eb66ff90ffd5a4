"""Exploration rules: how often which action is taken. Seeds are fixed; chi^2 against its 99.9 % quantile."""

import numpy as np
import pytest
import torch

from rl_runner.exploration import (
    LONGEST,
    Boltzmann,
    EpsilonGreedy,
    EzGreedy,
    Gaussian,
    Greedy,
    OrnsteinUhlenbeck,
    choose,
    draw,
)
from rl_runner.types import Carry, Evaluate, Train, UserError

N = 40_000
CHI2 = {1: 10.83, 2: 13.82, 3: 16.27}  # 99.9 % quantiles by degrees of freedom


def chi2(action: np.ndarray, probability: np.ndarray) -> float:
    wanted = len(action) * probability
    return float(((np.bincount(action, minlength=len(probability)) - wanted) ** 2 / wanted).sum())


def rows(*q: float) -> np.ndarray:
    return np.tile(np.array(q, dtype=np.float32), (N, 1))


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0])
def test_epsilon_greedy_frequencies(epsilon: float) -> None:
    action = EpsilonGreedy(epsilon, epsilon, 0)(rows(1, 5, 2, -3), 0, np.random.default_rng(0))
    probability = np.full(4, epsilon / 4) + np.array([0, 1 - epsilon, 0, 0])
    assert chi2(action, probability) < CHI2[3]
    assert action.dtype == np.int64
    exploring = np.flatnonzero(action != 1)  # environments explore each by itself, not all at once or in turn
    gaps = np.bincount(np.minimum(np.diff(exploring), 3))[1:]
    p = epsilon * 3 / 4
    assert chi2(np.repeat(np.arange(3), gaps), np.array([p, p * (1 - p), (1 - p) ** 2])) < CHI2[2]


def test_epsilon_zero_is_greedy_and_one_ignores_the_values() -> None:
    q = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)
    assert np.array_equal(EpsilonGreedy(0, 0, 0)(q, 0, np.random.default_rng(2)), q.argmax(axis=1))
    one = EpsilonGreedy(1, 1, 0)
    assert np.array_equal(one(q, 0, np.random.default_rng(2)), one(-q, 0, np.random.default_rng(2)))


def test_epsilon_follows_its_line() -> None:
    rule = EpsilonGreedy(1.0, 0.2, 100)
    assert rule.metrics(50) == {"epsilon": pytest.approx(0.6)}
    assert rule.metrics(1000) == {"epsilon": 0.2}
    action = rule(rows(1, 0), 50, np.random.default_rng(3))
    assert chi2(action, np.array([0.7, 0.3])) < CHI2[1]
    action = rule(rows(1, 0), 1000, np.random.default_rng(3))
    assert chi2(action, np.array([0.9, 0.1])) < CHI2[1]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_boltzmann_frequencies_are_the_softmax(temperature: float) -> None:
    q = np.array([1.0, 2.0, 0.5, 1.9])
    action = Boltzmann(temperature, temperature, 0)(rows(*q), 0, np.random.default_rng(4))
    e = np.exp(q / temperature)
    assert chi2(action, e / e.sum()) < CHI2[3]
    assert action.dtype == np.int64


def test_boltzmann_follows_its_line_and_bears_large_values() -> None:
    rule = Boltzmann(2.0, 1.0, 10)
    assert rule.metrics(5) == {"temperature": 1.5}
    e = np.exp(np.array([0.0, 1.0]) / 1.5)
    assert chi2(rule(rows(0, 1), 5, np.random.default_rng(5)), e / e.sum()) < CHI2[1]
    far = rule(rows(1e6, 1e6 + 100), 10, np.random.default_rng(5))  # exp of these would overflow
    assert np.all(far == 1)


def test_greedy_draws_nothing() -> None:
    rng, q = np.random.default_rng(6), np.array([[1, 3, 2], [5, 4, 4]], dtype=np.float32)
    before = rng.bit_generator.state
    assert Greedy()(q, 0, rng).tolist() == [1, 0]
    assert rng.bit_generator.state == before
    assert Greedy().metrics(0) == {}


def test_repeated_actions_are_those_of_a_naive_loop() -> None:
    """Environment by environment, with the same draws; episodes end, and actions are forbidden, on the way."""
    n, actions, epsilon = 5, 4, 0.3
    rule, rng, own, world = EzGreedy(epsilon, epsilon, 0), *map(np.random.default_rng, (0, 0, 1))
    carry, left, repeated, repeats = None, [0] * n, [0] * n, 0
    for step in range(400):
        q = world.normal(size=(n, actions))
        q[np.arange(n), world.integers(actions, size=n)] = np.where(world.random(n) < 0.2, -np.inf, 0.1)
        ended = world.random(n) < 0.1
        carry = Carry.begin(carry, ended)
        action, carry = rule.explore(q, carry, step, rng)
        chance, any_allowed = own.random(n), own.random((n, actions)) if np.isneginf(q).any() else None
        drawn = own.integers(actions, size=n) if any_allowed is None else None
        durations = own.zipf(2.0, size=n)
        for i in range(n):
            if ended[i] or q[i, repeated[i]] == -np.inf:
                left[i] = 0
            repeats += left[i] > 0
            if left[i] == 0 and chance[i] < epsilon:
                left[i] = min(int(durations[i]), 10_000)
                allowed = np.flatnonzero(q[i] > -np.inf)
                repeated[i] = drawn[i] if any_allowed is None else allowed[any_allowed[i, allowed].argmax()]
            if left[i] > 0:
                left[i] -= 1
                assert action[i] == repeated[i]
            else:
                assert action[i] == q[i].argmax()
    assert repeats > 200


def test_the_number_of_repetitions_has_the_zeta_distribution() -> None:
    """P(n) = 6 / (pi n)^2 for mu = 2; of 500 actions two in a row are seldom the same by chance."""
    n = 4_000
    rule, rng, carry, q = EzGreedy(1.0, 1.0, 0), np.random.default_rng(3), None, np.zeros((n, 500), dtype=np.float32)
    first, carry = rule.explore(q, carry, 0, rng)
    length, going_on = np.ones(n, dtype=np.int64), np.ones(n, dtype=np.bool_)
    for step in range(1, 4):
        action, carry = rule.explore(q, carry, step, rng)
        going_on &= action == first
        length += going_on
    probability = 6 / (np.pi * np.arange(1, 4)) ** 2
    assert chi2(length - 1, np.append(probability, 1 - probability.sum())) < CHI2[3]


def test_a_rule_with_a_memory_is_handed_the_carry_in_training_only() -> None:
    rule, rng = EzGreedy(1.0, 1.0, 0), np.random.default_rng(0)
    q = torch.tensor([[3.0, 7.0, 1.0]] * 50)
    long = Carry({"action": np.full(50, 2), "left": np.full(50, 9)}, np.arange(50) < 25)
    action, carry = choose(q, rule, Train(0, rng), None, long)
    assert carry is not None
    assert action[25:].tolist() == [2] * 25
    assert carry.state["left"][25:].tolist() == [8] * 25
    assert len(set(action[:25].tolist())) == 3  # these began an episode
    assert not carry.reset.any()
    action, carry = choose(q, rule, Evaluate(rng), None, long)
    assert action.tolist() == [1] * 50
    assert carry is long
    assert (
        rule(q.numpy(), 0, np.random.default_rng(5)).tolist()
        == EpsilonGreedy(1, 1, 0)(q.numpy(), 0, np.random.default_rng(5)).tolist()
    )


@pytest.mark.parametrize("rule", [EpsilonGreedy(0.5, 0.5, 0), Boltzmann(1, 1, 0)])
def test_the_stream_decides(rule: EpsilonGreedy | Boltzmann) -> None:
    q = rows(1, 1.5, 1)[:50]
    first, again, other = (rule(q, 0, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_wrong_numbers_are_told() -> None:
    with pytest.raises(UserError, match=r"exploration\.start: must be a probability in \[0, 1\], got 1.5"):
        EpsilonGreedy(1.5, 0.1, 10)
    with pytest.raises(UserError, match=r"exploration\.end: .* got -0.1"):
        EpsilonGreedy(1.0, -0.1, 10)
    with pytest.raises(UserError, match=r"exploration\.steps: must be 0 or more, got -1"):
        EpsilonGreedy(1.0, 0.1, -1)
    with pytest.raises(UserError, match=r"exploration\.mu: must be above 1, got 1"):
        EzGreedy(1.0, 0.1, 10, mu=1)
    with pytest.raises(UserError, match=r"exploration\.end: must be a temperature above 0, got 0.0"):
        Boltzmann(1.0, 0.0, 10)
    with pytest.raises(UserError, match=r"exploration\.steps: must be 0 or more, got -1"):
        Boltzmann(1.0, 1.0, -1)


@pytest.mark.parametrize(
    "rule", [EpsilonGreedy(0.6, 0.6, 0), Boltzmann(1.0, 1.0, 0), Greedy()], ids=lambda r: type(r).__name__
)
def test_an_action_worth_minus_infinity_is_never_taken_and_the_others_as_if_it_were_not_there(rule) -> None:
    action = rule(rows(-np.inf, 1, -np.inf, 2, 0.5), 0, np.random.default_rng(0))
    assert set(action.tolist()) <= {1, 3, 4}
    alone = rule(rows(1, 2, 0.5), 0, np.random.default_rng(1))
    share = np.bincount(action, minlength=5)[[1, 3, 4]] / N
    np.testing.assert_allclose(share, np.bincount(alone, minlength=3) / N, atol=4 * np.sqrt(0.5 / N))


def test_choosing_is_greedy_in_evaluation_and_follows_the_rule_in_training() -> None:
    seen = []

    class Rule:
        def __call__(self, q: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
            seen.append((q.tolist(), step, rng))
            return np.array([0])

        def metrics(self, step: int) -> dict[str, float]:
            return {}

    rng = np.random.default_rng(0)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        q = torch.tensor([[3.0, 7.0]], dtype=dtype)
        assert choose(q, Rule(), Train(42, rng), None, None)[0].tolist() == [0]
        assert choose(q, Rule(), Evaluate(rng), None, None)[0].tolist() == [1]
    assert seen == [([[3.0, 7.0]], 42, rng)] * 3


def test_the_epsilon_of_an_evaluation() -> None:
    action, _ = choose(torch.from_numpy(rows(1, 5)), Greedy(), Evaluate(np.random.default_rng(0), 0.3), None, None)
    assert chi2(action, np.array([0.15, 0.85])) < CHI2[1]


@pytest.mark.parametrize(
    ("returned", "got"),
    [
        ([0, 0], "a list"),
        (np.zeros((2, 3), np.float32), r"float32 \(2, 3\)"),
        (np.zeros((2, 1), np.int64), r"int64 \(2, 1\)"),
        (np.zeros(2), r"float64 \(2,\)"),
    ],
    ids=str,
)
def test_a_rule_that_returns_no_actions_is_named(returned: object, got: str) -> None:
    class Mine(Greedy):
        def __call__(self, q, step, rng):
            return returned

    wanted = r"^exploration: Mine must return actions \(N,\) as an array of whole numbers, here \(2,\), got "
    with pytest.raises(UserError, match=f"{wanted}{got}$"):
        choose(torch.zeros(2, 3), Mine(), Train(0, np.random.default_rng(0)), None, None)


@pytest.mark.parametrize(
    ("returned", "wanted"),
    [
        (np.zeros((2, 1)), r"noise and a Carry \(.*\) or None, got float64 \(2, 1\)$"),
        (None, r"noise and a Carry \(.*\) or None, got a NoneType$"),
        ((np.zeros((2, 1)), np.zeros(2)), r"noise and a Carry \(.*\) or None, got a tuple$"),
        ((np.zeros(2), None), r"an array of noise \(N, D\), here \(2, 1\), got float64 \(2,\)$"),
        ((0.0, None), r"an array of noise \(N, D\), here \(2, 1\), got a float$"),
        ((np.array([["a"], ["b"]]), None), r"an array of noise \(N, D\), here \(2, 1\), got <U1 \(2, 1\)$"),
        ((np.array([[0.0], [np.nan]]), None), r"finite noise, got \[\[0\.0\], \[nan\]\]$"),
    ],
    ids=str,
)
def test_noise_that_is_none_is_named(returned: object, wanted: str) -> None:
    class Mine(Gaussian):
        def __call__(self, shape, carry, step, rng):
            return returned

    mode = Train(0, np.random.default_rng(0))
    drawn, carry = draw(OrnsteinUhlenbeck(0.1, 0.1, 1), (2, 1), mode, None)
    assert (drawn.shape, draw(Gaussian(0.1, 0.1, 1), (2, 1), mode, carry)[1]) == ((2, 1), carry)
    with pytest.raises(UserError, match=rf"^exploration: Mine must return {wanted}"):
        draw(Mine(0.1, 0.1, 1), (2, 1), mode, None)


NO = np.zeros(2, bool)


@pytest.mark.parametrize(
    ("returned", "wanted"),
    [
        (np.zeros(2, int), r"actions and a Carry \(.*\) or None, got int64 \(2,\)$"),
        ((np.zeros(2, int), {"x": 1}), r"actions and a Carry \(.*\) or None, got a tuple$"),
        ((np.zeros(2, int), Carry({}, None)), r"actions and .*, here \(2,\), got a dict and a NoneType$"),  # type: ignore[arg-type]
        ((np.zeros(2, int), Carry({}, NO[:1])), r"actions and .*, here \(2,\), got a dict and bool \(1,\)$"),
        ((np.zeros(2, int), Carry(NO, NO)), r"actions and .*, here \(2,\), got bool \(2,\) and bool \(2,\)$"),  # type: ignore[arg-type]
        (([0, 1], None), r"actions \(N,\) as an array of whole numbers, here \(2,\), got a list$"),
    ],
)
def test_a_rule_with_a_memory_that_returns_something_else_is_named(returned: object, wanted: str) -> None:
    class Mine(Greedy):
        def explore(self, q, carry, step, rng):
            return returned

    with pytest.raises(UserError, match=rf"^exploration: Mine(\.explore)? must return {wanted}"):
        choose(torch.zeros(2, 3), Mine(), Train(0, np.random.default_rng(0)), None, None)


@pytest.mark.parametrize(("returned", "mask"), [([0, 3], False), ([-1, 0], False), ([1, 2], True)])
def test_a_rule_that_returns_actions_that_cannot_be_taken_is_named(returned: list[int], mask: bool) -> None:
    class Mine(Greedy):
        def __call__(self, q, step, rng):
            return np.array(returned)

    allowed = np.array([[True, True, True], [True, True, False]]) if mask else None
    with pytest.raises(UserError) as caught:
        choose(torch.zeros(2, 3), Mine(), Train(0, np.random.default_rng(0)), allowed, None)
    wanted = "exploration: Mine must return actions from 0 to 2, and none of value -inf, got"
    assert str(caught.value) == f"{wanted} {returned}"


def test_actions_that_the_mask_does_not_allow_are_not_taken() -> None:
    q = torch.tensor([[9.0, 1.0], [9.0, 1.0], [1.0, 9.0]])
    mask = np.array([[True, True], [False, True], [True, False]])
    assert choose(q, Greedy(), Evaluate(np.random.default_rng(0)), mask, None)[0].tolist() == [0, 1, 0]
    mode, always = Train(0, np.random.default_rng(0)), EpsilonGreedy(1, 1, 0)
    actions = np.array([choose(q, always, mode, mask, None)[0] for _ in range(50)])
    assert [set(actions[:, i].tolist()) for i in range(3)] == [{0, 1}, {1}, {0}]


def test_gaussian_noise_is_independent_and_follows_its_line() -> None:
    rule, rng = Gaussian(0.5, 0.1, 100), np.random.default_rng(0)
    assert rule.metrics(50) == {"noise_std": pytest.approx(0.3)}
    for step, std in [(0, 0.5), (50, 0.3), (1000, 0.1)]:
        noise, carry = rule((20_000, 2), None, step, rng)
        assert carry is None
        assert noise.dtype == np.float32
        np.testing.assert_allclose(noise.std(axis=0), std, rtol=0.03)
        np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.03 * std)
        assert abs(np.corrcoef(noise.T)[0, 1]) < 0.03  # of the dimensions
        assert abs(np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1]) < 0.03  # of the environments


def test_ornstein_uhlenbeck_noise_begins_at_zero_and_keeps_its_share() -> None:
    """An autoregression x' = 0.8 x + c noise of deviation 1, from 0: after t steps its variance is 1 - 0.8^(2 t)."""
    rule, rng, carry = OrnsteinUhlenbeck(0.5, 0.5, 0, theta=0.2), np.random.default_rng(0), None
    before = None
    for t in range(1, 30):
        noise, carry = rule((20_000, 2), carry, 0, rng)
        assert noise.std() == pytest.approx(0.5 * np.sqrt(1 - 0.8 ** (2 * t)), rel=0.03)
        if before is not None:
            slope = (noise * before).sum() / (before**2).sum()
            assert slope == pytest.approx(0.8, abs=0.03)
        before = noise
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.03
    assert carry is not None
    begun = Carry.begin(carry, np.arange(20_000) < 10_000)
    noise, after = rule((20_000, 2), begun, 0, rng)
    assert noise[:10_000].std() == pytest.approx(0.5 * 0.6, rel=0.03)
    assert noise[10_000:].std() == pytest.approx(0.5, rel=0.03)
    assert not after.reset.any()


@pytest.mark.parametrize("kind", [Gaussian, OrnsteinUhlenbeck])
def test_wrong_noise_is_told(kind) -> None:
    with pytest.raises(UserError, match=r"exploration\.end: must be a standard deviation, 0 or more, got -0.1"):
        kind(1.0, -0.1, 10)
    with pytest.raises(UserError, match=r"exploration\.steps: must be 0 or more, got -1"):
        kind(1.0, 0.1, -1)
    with pytest.raises(UserError, match=r"exploration\.theta: must be in \(0, 1\], got 1.5"):
        OrnsteinUhlenbeck(1.0, 0.1, 1, theta=1.5)


def test_no_action_is_repeated_for_ever() -> None:
    rule = EzGreedy(1.0, 1.0, 0, mu=1.01)
    _, carry = rule.explore(np.zeros((200, 3), np.float32), None, 0, np.random.default_rng(0))
    assert carry is not None
    assert carry.state["left"].max() == LONGEST - 1
