"""What parts return is tried before training: each mistake is one line, and rlrun's own parts have none."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl_runner.build.contracts import check_actor_critic, check_metrics, check_q_network, check_sampler, check_value
from rl_runner.distributions import Categorical
from rl_runner.exploration import Greedy
from rl_runner.replay.samplers import Prioritized, Uniform
from rl_runner.types import UserError
from rl_runner.values import Categorical as CategoricalValue
from rl_runner.values import ImplicitQuantile, Quantile, Scalar

SPACE = gym.spaces.Box(-1, 1, (4,), np.float32)
DISCRETE = gym.spaces.Discrete(3, start=5)


# Values.


class NoMean(Scalar):
    def mean(self, values: Tensor) -> Tensor:
        return values


class Nothing(Scalar):
    def mean(self, values: Tensor) -> None:  # type: ignore[override]
        return None


class LossOfTheBatch(Scalar):
    def loss(self, values, next_values, reward, discount):
        loss, priority = super().loss(values, next_values, reward, discount)
        return loss.mean(), priority


class NoPriority(Scalar):
    def loss(self, values, next_values, reward, discount):
        return super().loss(values, next_values, reward, discount)[0]


class NoGradient(Scalar):
    def loss(self, values, next_values, reward, discount):
        loss, priority = super().loss(values, next_values, reward, discount)
        return loss.detach(), priority


class Whole(Scalar):
    def mean(self, values: Tensor) -> Tensor:
        return super().mean(values).long()


class NotANumber(Scalar):
    def mean(self, values: Tensor) -> Tensor:
        return super().mean(values) / 0.0


class Negative(Scalar):
    def loss(self, values, next_values, reward, discount):
        loss, priority = super().loss(values, next_values, reward, discount)
        return loss, priority - 1.0


class Arrays(Scalar):
    def loss(self, values, next_values, reward, discount):
        loss, priority = super().loss(values, next_values, reward, discount)
        return loss, priority.numpy()


class Text(Scalar):
    outputs_per_action = "3"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (NoMean, r"NoMean\.mean must return \(2, 3\) for values \(2, 3, 1\), got \(2, 3, 1\)$"),
        (Nothing, r"Nothing\.mean must return \(2, 3\) for values \(2, 3, 1\), got a NoneType$"),
        (LossOfTheBatch, r"LossOfTheBatch\.loss must return the loss \(B,\) and the priority \(B,\)"),
        (NoPriority, r"NoPriority\.loss must return the loss \(B,\) and the priority \(B,\)"),
        (Arrays, r"Arrays\.loss must return the loss \(B,\) and the priority \(B,\)"),
        (Whole, r"Whole\.mean must return finite floats, got \[0, 0, 0, 0, 0, 0\] for zeros$"),
        (NotANumber, r"NotANumber\.mean must return finite floats, got \[nan, "),
        (Negative, r"the priority of Negative\.loss must be 0 or more, got \[-1\.0, -1\.0\] for zeros$"),
        (NoGradient, r"the loss of NoGradient\.loss has no gradient"),
        (Text, r"Text\.outputs_per_action must be a whole number, 1 or more, got '3'$"),
    ],
)
def test_a_value_representation_that_returns_something_else_is_named(kind: type, line: str) -> None:
    with pytest.raises(UserError, match=f"^value: {line}"):
        check_value(kind())


def test_the_values_of_rlrun_keep_the_contract() -> None:
    for value in (Scalar(), CategoricalValue(-1.0, 1.0), Quantile(), ImplicitQuantile()):
        check_value(value)


# Networks.


class Returns(nn.Module):
    """Returns the same whatever it sees; with a layer whose mode must stay."""

    def __init__(self, returned: object) -> None:
        super().__init__()
        self.returned, self.seen = returned, Tensor()
        self.drop = nn.Dropout()

    def forward(self, obs: Tensor) -> object:
        assert not self.drop.training
        self.seen = obs
        return self.returned


def test_a_q_network_returns_values_of_each_action() -> None:
    check_q_network(network := Returns(torch.zeros(2, 3, 1)), SPACE, 3, Scalar())
    assert network.seen.shape == (2, 4)
    assert network.drop.training
    check_q_network(network := Returns(torch.zeros(2, 3, 51)), DISCRETE, 3, CategoricalValue(-1.0, 1.0))
    assert network.seen.tolist() == [5, 5]  # the lowest state
    check_q_network(Returns(torch.zeros(2, 3, 64)), SPACE, 3, ImplicitQuantile())  # more levels than in training


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (
            torch.zeros(2, 2, 1),
            r"Returns must return action values \(B, A, M\), here \(2, 3, 1\) for two observations, ",
        ),
        (torch.zeros(2, 3), r"Returns must return action values .*, got \(2, 3\)$"),
        (torch.zeros(1, 3, 1), r"Returns must return action values .*, got \(1, 3, 1\)$"),
        (np.zeros((2, 3, 1)), r"Returns must return a tensor for two observations, got a ndarray$"),
        ((torch.zeros(2, 3, 1), torch.zeros(2)), r"Returns must return a tensor .*, got a Tensor, a Tensor$"),
    ],
)
def test_a_network_that_returns_something_else_is_named(returned: object, says: str) -> None:
    with pytest.raises(UserError, match=f"^network: {says}"):
        check_q_network(Returns(returned), SPACE, 3, Scalar())


def test_what_is_no_network_is_named() -> None:
    with pytest.raises(UserError, match=r"^network: must be an nn\.Module, got a function$"):
        check_q_network(lambda obs: obs, SPACE, 3, Scalar())


def test_a_network_of_policy_and_value_returns_both() -> None:
    two = Categorical([2])
    check_actor_critic(Returns((torch.zeros(2, 2), torch.zeros(2))), SPACE, two)
    wanted = r"^network: Returns must return parameters \(B, P\) and state values \(B,\), here \(2, 2\) and \(2,\)"
    with pytest.raises(UserError, match=rf"{wanted} for two observations, got \(2, 2\) and \(2, 1\)$"):
        check_actor_critic(Returns((torch.zeros(2, 2), torch.zeros(2, 1))), SPACE, two)
    with pytest.raises(UserError, match=r"must return 2 tensors for two observations, got a Tensor$"):
        check_actor_critic(Returns(torch.zeros(2, 2)), SPACE, two)


# What is reported and saved.


class Words(Greedy):
    def metrics(self, step):
        return {"epsilon": "high"}


class Silent(Uniform):
    def metrics(self, step):
        return None


class Stateless(Uniform):
    def state_dict(self):
        return None


def test_a_part_reports_numbers_and_saves_a_dict() -> None:
    for sampler in (Uniform(4), Prioritized(4)):
        check_sampler(sampler)
    with pytest.raises(
        UserError, match=r"^exploration: Words\.metrics must return a dict of numbers, got {.epsilon.: "
    ):
        check_metrics("exploration", Words())
    with pytest.raises(UserError, match=r"^replay\.sampler: Silent\.metrics must return a dict of numbers, got None$"):
        check_sampler(Silent(4))
    with pytest.raises(UserError, match=r"^replay\.sampler: Stateless\.state_dict must return a dict, got None$"):
        check_sampler(Stateless(4))
