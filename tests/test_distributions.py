"""Distributions over actions against torch.distributions, and against counts of draws."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import distributions as reference

from rl_runner.distributions import Categorical, Gaussian, of_actions
from rl_runner.types import UserError

torch.manual_seed(0)
LOGITS = torch.randn(7, 5)


def test_categorical():
    action = torch.arange(7) % 5
    wanted = reference.Categorical(logits=LOGITS)
    given = Categorical([5])
    torch.testing.assert_close(given.log_prob(LOGITS, action), wanted.log_prob(action))
    torch.testing.assert_close(given.entropy(LOGITS), wanted.entropy())
    assert given.mode(LOGITS).tolist() == wanted.probs.argmax(dim=1).tolist()


def test_several_choices():
    given = of_actions(gym.spaces.MultiDiscrete([2, 3]), "Test-v0")
    parts = [reference.Categorical(logits=x) for x in LOGITS.split([2, 3], dim=1)]
    action = torch.tensor([[i % 2, i % 3] for i in range(7)])
    wanted = parts[0].log_prob(action[:, 0]) + parts[1].log_prob(action[:, 1])
    torch.testing.assert_close(given.log_prob(LOGITS, action), wanted)
    torch.testing.assert_close(given.entropy(LOGITS), parts[0].entropy() + parts[1].entropy())
    modes = given.mode(LOGITS)
    assert modes[:, 0].tolist() == parts[0].probs.argmax(dim=1).tolist()
    assert modes[:, 1].tolist() == parts[1].probs.argmax(dim=1).tolist()


def test_gaussian():
    parameters, action = torch.randn(7, 6), torch.randn(7, 3)
    wanted = reference.Independent(reference.Normal(parameters[:, :3], parameters[:, 3:].exp()), 1)
    given = Gaussian((3,))
    torch.testing.assert_close(given.log_prob(parameters, action), wanted.log_prob(action))
    torch.testing.assert_close(given.entropy(parameters), wanted.entropy())
    assert torch.equal(given.mode(parameters), parameters[:, :3])


def test_a_gaussian_in_units_of_the_bounds():
    """Against the same distribution moved and stretched; a dimension without two bounds is in its own units."""
    space = gym.spaces.Box(np.array([[0, -3], [5, -np.inf]]), np.array([[1, 1], [9, 2]]), dtype=np.float64)
    middle, half = torch.tensor([0.5, -1, 7, 0]), torch.tensor([0.5, 2, 2, 1])
    given, parameters, action = of_actions(space, "Test-v0"), torch.randn(7, 8), torch.randn(7, 2, 2)
    mean, std = middle + half * parameters[:, :4], half * parameters[:, 4:].exp()
    wanted = reference.Independent(reference.Normal(mean, std), 1)
    torch.testing.assert_close(given.log_prob(parameters, action), wanted.log_prob(action.flatten(1)))
    torch.testing.assert_close(given.entropy(parameters), wanted.entropy())
    torch.testing.assert_close(given.mode(parameters), mean.unflatten(1, (2, 2)))
    named = given.named(parameters)
    torch.testing.assert_close(named["mean"], mean)
    torch.testing.assert_close(named["log_std"], std.log())
    noise = torch.randn(7, 4)
    torch.testing.assert_close(given.sample(parameters, noise).flatten(1), mean + std * noise)


def test_bounds_of_one_change_no_bit_and_other_ones_none_if_not_scaled():
    parameters, noise = torch.randn(7, 4), torch.randn(7, 2)
    plain = Gaussian((2,))
    for space, scaled in ((gym.spaces.Box(-1, 1, (2,)), True), (gym.spaces.Box(-2, 5, (2,)), False)):
        given = of_actions(space, "Test-v0", scaled)
        action = given.sample(parameters, noise)
        assert torch.equal(action, plain.sample(parameters, noise))
        assert torch.equal(given.log_prob(parameters, action), plain.log_prob(parameters, action))


def test_bounds_that_are_no_scale_are_left_out():
    """Bounds that stand for none, and bounds that float32 cannot tell apart; then a call in inference mode."""
    low, high = np.array([-1e9, 0, -4.0]), np.array([1e9, 1e-60, 0.0])
    given = of_actions(gym.spaces.Box(low, high, dtype=np.float64), "Test-v0")
    parameters = torch.zeros(1, 6, requires_grad=True)
    with torch.inference_mode():
        assert given.mode(parameters).tolist() == [[0, 0, -2]]
    given.mode(parameters).sum().backward()  # nothing of the call before is left in it
    assert parameters.grad.tolist() == [[1, 1, 2, 0, 0, 0]]
    assert given.log_prob(parameters, torch.zeros(1, 3)).isfinite().all()


def test_one_number_as_an_action():
    given = of_actions(gym.spaces.Box(2, 4, ()), "Test-v0")
    assert given.mode(torch.tensor([[0.5, 0.0]])).tolist() == [3.5]
    wanted = reference.Normal(3.5, 1.0).log_prob(torch.tensor([3.0]))
    torch.testing.assert_close(given.log_prob(torch.tensor([[0.5, 0.0]]), torch.tensor([3.0])), wanted)


def test_draws_are_as_frequent_as_they_are_probable():
    rng, n = np.random.default_rng(0), 20_000
    logits = torch.tensor([[0.0, 1.0, -1.0]])
    given = Categorical([3])
    drawn = given.sample(logits.expand(n, -1), torch.from_numpy(given.noise(n, rng)))
    np.testing.assert_allclose(np.bincount(drawn) / n, logits.softmax(dim=1)[0], atol=0.01)
    gaussian, parameters = Gaussian((2,)), torch.tensor([[1.0, -2.0, 0.5, -1.0]])
    drawn = gaussian.sample(parameters.expand(n, -1), torch.from_numpy(gaussian.noise(n, rng)))
    np.testing.assert_allclose(drawn.mean(dim=0), [1, -2], atol=0.04)
    np.testing.assert_allclose(drawn.std(dim=0), np.exp([0.5, -1.0]), rtol=0.03)


def test_what_is_not_allowed_is_never_drawn_and_leaves_entropy_and_gradient_finite():
    allowed = torch.tensor([[True, False, True, False, False]] * 7)
    logits = LOGITS.clone().requires_grad_()
    given = Categorical([5])
    masked = given.masked(logits, allowed)
    drawn = given.sample(masked.detach(), torch.from_numpy(given.noise(7, np.random.default_rng(0))))
    assert set(drawn.tolist()) <= {0, 2}
    wanted = reference.Categorical(logits=LOGITS[:, [0, 2]])
    torch.testing.assert_close(given.entropy(masked), wanted.entropy())
    (given.entropy(masked).sum() + given.log_prob(masked, drawn).sum()).backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, [1, 3, 4]] == 0).all()


@pytest.mark.parametrize(
    "space", [gym.spaces.Box(0, 255, (2,), np.uint8), gym.spaces.MultiDiscrete([[2, 3]]), gym.spaces.Text(3)]
)
def test_other_actions_are_refused(space):
    with pytest.raises(UserError, match=r"^env: Test-v0 has actions .*this agent needs discrete ones"):
        of_actions(space, "Test-v0")


def test_bits_are_choices_of_two():
    assert of_actions(gym.spaces.MultiBinary(3), "Test-v0").sizes == [2, 2, 2]


def test_divergences():
    other = torch.randn(7, 5)
    given = Categorical([2, 3], joint=True).kl(LOGITS, other)
    pairs = zip(LOGITS.split([2, 3], dim=1), other.split([2, 3], dim=1), strict=True)
    wanted = [reference.kl_divergence(*(reference.Categorical(logits=x) for x in pair)) for pair in pairs]
    torch.testing.assert_close(given, wanted[0] + wanted[1])
    old, new = torch.randn(7, 6), torch.randn(7, 6)
    normals = [reference.Normal(x[:, :3], x[:, 3:].exp()) for x in (old, new)]
    torch.testing.assert_close(Gaussian((3,)).kl(old, new), reference.kl_divergence(*normals).sum(dim=1))


def test_the_divergence_of_masked_actions_is_that_of_the_others():
    given, other = Categorical([5]), torch.randn(7, 5)
    allowed = torch.tensor([True, False, True, True, False]).expand(7, 5)
    old, new = given.masked(LOGITS, allowed), given.masked(other, allowed).requires_grad_()
    rest = [reference.Categorical(logits=x[:, [0, 2, 3]]) for x in (LOGITS, other)]
    divergence = given.kl(old, new)
    torch.testing.assert_close(divergence, reference.kl_divergence(*rest))
    divergence.sum().backward()
    assert new.grad.isfinite().all()
