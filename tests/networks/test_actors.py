"""Policies over continuous actions, against numerical integration and the distribution of tanh of a Gaussian."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from scipy.stats import norm

from rl_runner.networks.actors import ActionRange, Deterministic, SquashedGaussian, squashed_sample
from rl_runner.networks.layers import FullyConnected
from rl_runner.types import Evaluate, UserError

GAS = Box(np.array([-1, 0, 0], np.float32), np.array([1, 1, 2], np.float32))  # bounds of a dimension's own


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.3), (-1.5, 0.5), (0.2, 2.0), (3.0, 0.1)])
def test_the_density_of_squashed_actions(mean: float, std: float) -> None:
    """It integrates to 1, and its integral from -1 is the distribution function Phi((atanh a - mean) / std)."""
    noise = torch.linspace(-7, 7, 20_001, dtype=torch.float64)[:, None]
    action, log_p = squashed_sample(torch.full_like(noise, mean), torch.full_like(noise, math.log(std)), noise)
    a, p = action[:, 0].numpy(), log_p.exp().numpy()
    pieces = np.diff(a) * (p[1:] + p[:-1]) / 2
    integral = np.cumsum(pieces)
    assert integral[-1] == pytest.approx(1.0, abs=1e-5)
    inside = np.abs(a[1:]) < 1 - 1e-9
    wanted = norm.cdf((np.arctanh(a[1:][inside]) - mean) / std)
    np.testing.assert_allclose(integral[inside], wanted, atol=1e-5)


def test_dimensions_add_up_and_far_actions_stay_finite() -> None:
    mean, log_std = torch.tensor([[0.3, -2.0]]), torch.tensor([[0.1, -1.0]])
    noise = torch.tensor([[1.0, -0.5]])
    _, both = squashed_sample(mean, log_std, noise)
    alone = [squashed_sample(mean[:, [i]], log_std[:, [i]], noise[:, [i]])[1] for i in (0, 1)]
    torch.testing.assert_close(both, alone[0] + alone[1])
    far = torch.tensor([[60.0], [-60.0]], requires_grad=True)
    action, log_p = squashed_sample(far, torch.zeros(2, 1), torch.zeros(2, 1))
    assert action.tolist() == [[1.0], [-1.0]]
    # log N(0) - 2 (log 2 - 60): the derivative of tanh is 4 exp(-120)
    assert log_p.tolist() == pytest.approx([-0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 60)] * 2)
    log_p.sum().backward()
    assert far.grad is not None
    assert far.grad.flatten().tolist() == pytest.approx([2.0, -2.0])


def test_bounds_of_each_dimension() -> None:
    actions = ActionRange(GAS)
    scaled = np.array([[-1, -1, -1], [1, 1, 1], [0, 0, 0], [0.5, 0.5, -0.5]], np.float32)
    units = actions.to_environment(scaled)
    assert units.tolist() == [[-1, 0, 0], [1, 1, 2], [0, 0.5, 1], [0.5, 0.75, 0.5]]
    assert units.dtype == np.float32
    np.testing.assert_allclose(actions.scaled(torch.from_numpy(units)).numpy(), scaled, atol=1e-7)
    drawn = actions.to_environment(actions.uniform(4000, np.random.default_rng(0)))
    np.testing.assert_allclose(drawn.min(axis=0), GAS.low, atol=0.01)
    np.testing.assert_allclose(drawn.max(axis=0), GAS.high, atol=0.01)
    np.testing.assert_allclose(drawn.mean(axis=0), [0, 0.5, 1], atol=0.03)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_does_not_leave_the_bounds_and_shapes_are_kept(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(-3, 0, (2, 3)).astype(dtype)
    space = Box(low, low + rng.uniform(0.1, 3, (2, 3)).astype(dtype), dtype=dtype)
    actions = ActionRange(space)
    for scaled in (np.ones((1, 6), np.float32), -np.ones((1, 6), np.float32), actions.uniform(50, rng)):
        units = actions.to_environment(scaled)
        assert units.shape == (len(scaled), 2, 3)
        assert all(space.contains(action) for action in units)
        np.testing.assert_allclose(actions.scaled(torch.from_numpy(units)).numpy(), scaled, atol=1e-5)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (Discrete(3), r"the actions are Discrete\(3\); this agent needs continuous ones \(Box\)"),
        (Box(-np.inf, np.inf, (2,)), r"have no bounds; .*agent=ppo needs none; .*env.wrappers="),
        (Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (2,)), "have no bounds"),
        (Box(np.array([-1, -np.inf], np.float32), np.ones(2, np.float32)), "have no bounds"),
        (Box(0, 5, (2,), np.int64), "of type int64; this agent needs floats"),
        (Box(np.zeros(2, np.float32), np.array([0, 1], np.float32)), "a dimension with one value only"),
    ],
    ids=str,
)
def test_other_actions_are_refused(space: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ActionRange(space)


def test_the_epsilon_of_an_evaluation() -> None:
    actions, rng = ActionRange(GAS), np.random.default_rng(0)
    best = np.full((4000, 3), 0.25, np.float32)
    assert np.array_equal(actions.evaluated(best, Evaluate(rng)), actions.to_environment(best))
    random = (actions.evaluated(best, Evaluate(rng, 0.3)) != actions.to_environment(best)).all(axis=1)
    assert random.mean() == pytest.approx(0.3, abs=0.03)


def test_actors() -> None:
    torch.manual_seed(0)
    fc = FullyConnected((8,))
    features = 100 * torch.randn(5, 3)
    assert Deterministic(3, 2, fc)(features).abs().max() <= 1
    mean, log_std = SquashedGaussian(3, 2, fc)(features)
    assert mean.shape == log_std.shape == (5, 2)
    assert log_std.max() <= 2
    small = Deterministic(3, 2, fc, "xavier", 0.3)
    assert 0.1 < small.out.weight.abs().max() <= 0.3
    assert 0 < small.out.bias.abs().max() <= 0.3
    assert not torch.any(small.hidden[0].bias)


def test_tensors_are_brought_into_the_environments_units_as_arrays_are() -> None:
    actions = ActionRange(GAS)
    scaled = np.random.default_rng(0).uniform(-1.1, 1.1, (50, 3)).astype(np.float32)
    given = actions.in_environment(torch.from_numpy(scaled)).numpy()
    assert given.dtype == np.float32
    np.testing.assert_array_equal(given, actions.to_environment(scaled))
