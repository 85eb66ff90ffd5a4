"""What is measured of a saved agent."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rl_runner.doctor import played
from rl_runner.types import Evaluate


def test_realised_returns() -> None:
    reward = np.array([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])
    terminal = np.array([[False], [True], [False], [False], [False], [False]])
    ended = np.array([[False], [True], [False], [True], [False], [False]])  # the second episode is cut, the third runs
    returns, known = played.realised(reward, terminal, ended, gamma=0.5)
    assert returns[:, 0].tolist() == [1 + 0.5 * 2, 2, 3 + 0.5 * 4, 4, 5 + 0.5 * 6, 6]
    assert known[:, 0].tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9])
def test_a_cut_hides_the_states_shortly_before_it(gamma: float) -> None:
    steps = 60
    none = np.zeros((steps, 1), dtype=np.bool_)
    _, known = played.realised(np.ones((steps, 1)), none, none, gamma)
    for t in range(steps):  # what lies beyond the cut weighs at most 5 %
        assert known[t, 0] == (gamma ** (steps - t) <= 0.05)


def test_dead_units_are_counted_by_layer() -> None:
    network = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    for layer in (network[0], network[2]):
        nn.init.constant_(layer.weight, 1.0)
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        network[0].bias[1] = -100.0  # dead for observations in [0, 1]
        network[2].bias[:2] = -100.0
    agent: Any = SimpleNamespace(
        network=network, act=lambda obs, carry, mode, mask: (network(torch.as_tensor(obs)).detach().numpy(), carry)
    )
    obs = np.random.default_rng(0).random((50, 2), dtype=np.float32)
    assert played.dead_units(agent, obs, Evaluate(np.random.default_rng(0))) == {"1": (1, 4), "3": (2, 3)}
    assert not network[1]._forward_hooks


def test_dead_units_are_those_of_the_network_that_acts_and_of_each_call_of_a_layer() -> None:
    """With averaged weights an evaluation passes a copy of the network only."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ModuleList([nn.ReLU() for _ in range(11)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for i in (10, 1, 1):
                x = self.relu[i](x)
            return x

    acting = Twice()
    agent: Any = SimpleNamespace(network=Twice(), acting=acting, act=lambda obs, *_: acting(torch.as_tensor(obs)))
    obs = np.array([[1.0, -1.0, 0.5]], dtype=np.float32)
    dead = played.dead_units(agent, obs, Evaluate(np.random.default_rng(0)))
    assert dead == {"relu.10": (1, 3), "relu.1": (1, 3), "relu.1 (2)": (1, 3)}


def test_dead_filters_of_a_convolution() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    with torch.no_grad():
        network[0].weight[:] = 1.0
        network[0].bias[:] = torch.tensor([0.0, -100.0])
    agent: Any = SimpleNamespace(network=network, act=lambda obs, *_: network(torch.as_tensor(obs)))
    obs = np.ones((5, 1, 6, 6), dtype=np.float32)
    assert played.dead_units(agent, obs, Evaluate(np.random.default_rng(0))) == {"1": (1, 2)}
