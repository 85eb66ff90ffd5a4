"""Networks as files of other programs: they compute what the agent does, and a file that does not is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl_runner.build import jobs, saved
from rl_runner.build.environments import environments
from rl_runner.commands import network_files
from rl_runner.commands.export import observed
from rl_runner.launch.composed import compose
from rl_runner.types import Array, Evaluate, HasOutputs, UserError

IQN = ["env=frozenlake", "value=iqn"]
SAC = ["env=pendulum", "agent=sac", "network.normalize=true"]
KINDS = [
    (IQN, ["q", "quantiles", "action"]),
    (SAC, ["mean", "log_std", "action"]),
    (["env=cartpole", "agent=rainbow"], ["q", "probabilities", "action"]),
    (["env=cartpole", "agent=ppo"], ["logits", "action"]),
    (["env=pendulum", "agent=a2c"], ["mean", "log_std", "action"]),
    (["env=pendulum", "agent=td3"], ["action"]),
]


def untrained(words: list[str]) -> tuple[Any, Array]:
    """Return an agent with random weights, and 40 observations."""
    cfg = saved.plain(compose(words)[0])
    envs = environments(cfg["env"], 4, 0, "test")
    torch.manual_seed(0)
    agent = jobs.learner_of(cfg, envs, torch.device("cpu")).agent
    return agent, observed(agent, envs, 40, np.random.default_rng(0))


@pytest.mark.parametrize(("words", "names"), KINDS, ids="-".join)
def test_what_an_agent_says_is_what_it_does(words: list[str], names: list[str]) -> None:
    agent, obs = untrained(words)
    assert isinstance(agent, HasOutputs)
    found = network_files.outputs(agent, obs)
    assert list(found) == names
    action, _ = agent.act(obs, None, Evaluate(np.random.default_rng(0)))
    np.testing.assert_array_equal(found["action"], action)
    assert found["action"].dtype == action.dtype
    again = network_files.outputs(agent, obs)  # nothing is drawn, although acting puts the network into training mode
    assert all((found[name] == again[name]).all() for name in names)
    if "q" in found:
        np.testing.assert_array_equal(found["q"], agent.q_values(torch.from_numpy(obs)).numpy())
    if "quantiles" in found:
        np.testing.assert_allclose(found["quantiles"].mean(axis=2), found["q"], atol=1e-6)
    if "probabilities" in found:
        np.testing.assert_allclose(found["probabilities"].sum(axis=2), 1.0, atol=1e-6)


@pytest.mark.parametrize("words", [IQN, SAC], ids="-".join)
def test_onnxruntime_computes_the_same(words: list[str], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    agent, obs = untrained(words)
    network_files.write_onnx(agent, obs, tmp_path / "model.onnx")
    found = network_files.check_onnx(tmp_path / "model.onnx", agent, obs)
    assert found is not None
    assert found.observations == 40
    assert max(found.largest.values()) <= 1e-5
    with torch.no_grad():
        for parameter in agent.network.parameters():  # now the file is of another agent
            parameter.add_(1e-2)
    with pytest.raises(UserError, match="in onnxruntime"):
        network_files.check_onnx(tmp_path / "model.onnx", agent, obs)


class Stub:
    """An agent of a test's own."""

    def __init__(self, network: nn.Module) -> None:
        self.acting = network

    def outputs(self, obs: Tensor) -> dict[str, Tensor]:
        q = self.acting(obs)
        return {"q": q, "action": q.argmax(dim=1)}

    def act(self, obs: Array, carry: Any, mode: Any, action_mask: Any = None) -> tuple[Array, Any]:
        return self.acting(torch.from_numpy(obs)).argmax(dim=1).numpy(), carry


class OneSize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros(2).expand(len(x), 2)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


@pytest.mark.parametrize(
    ("network", "says"),
    [(OneSize(), r"OneSize is written for one size .* x.shape\[0\]"), (Branching(), "Branching cannot be written as")],
)
def test_networks_that_cannot_be_written(network: nn.Module, says: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    obs = np.ones((4, 2), np.float32)
    with pytest.raises(UserError, match=says):
        network_files.write_onnx(Stub(network), obs, tmp_path / "model.onnx")  # type: ignore[arg-type]


def test_differences_are_in_proportion_to_large_numbers() -> None:
    large, small = np.array([[1000.0, 0.0], [0.5, 0.0]]), np.array([[1000.0, 0.001], [0.5, 0.0]])
    assert network_files._difference(large, small) == pytest.approx(1e-6)
    assert network_files._difference(large[1:] + 0.1, large[1:]) == pytest.approx(0.1)


def test_two_best_actions() -> None:
    expected = {"q": np.array([[1.0, 1.0 + 1e-6], [0.0, 1.0]]), "action": np.array([1, 1])}
    assert network_files._check_actions(expected, {"action": np.array([1, 1])}) == 0
    assert network_files._check_actions(expected, {"action": np.array([0, 1])}) == 1
    with pytest.raises(UserError, match="another action is the best in 1 of 2 observations"):
        network_files._check_actions(expected, {"action": np.array([0, 0])})
