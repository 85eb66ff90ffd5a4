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
    given = Gaussian(3)
    torch.testing.assert_close(given.log_prob(parameters, action), wanted.log_prob(action))
    torch.testing.assert_close(given.entropy(parameters), wanted.entropy())
    assert torch.equal(given.mode(parameters), parameters[:, :3])


def test_draws_are_as_frequent_as_they_are_probable():
    rng, n = np.random.default_rng(0), 20_000
    logits = torch.tensor([[0.0, 1.0, -1.0]])
    given = Categorical([3])
    drawn = given.sample(logits.expand(n, -1), torch.from_numpy(given.noise(n, rng)))
    np.testing.assert_allclose(np.bincount(drawn) / n, logits.softmax(dim=1)[0], atol=0.01)
    gaussian, parameters = Gaussian(2), torch.tensor([[1.0, -2.0, 0.5, -1.0]])
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
    "space", [gym.spaces.Box(0, 255, (2,), np.uint8), gym.spaces.Box(-1, 1, (2, 2)), gym.spaces.Text(3)]
)
def test_other_actions_are_refused(space):
    with pytest.raises(UserError, match=r"^env: Test-v0 has actions .*this agent needs numbered ones"):
        of_actions(space, "Test-v0")


def test_bits_are_choices_of_two():
    assert of_actions(gym.spaces.MultiBinary(3), "Test-v0").sizes == [2, 2, 2]
