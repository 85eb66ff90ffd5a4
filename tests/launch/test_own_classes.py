"""Torsos and agents of the user's own, named by their class: the keys that they get."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rl_runner.launch import tuned
from tests.commandline import refused, rlrun

MINE = "network.torso._target_=my_torso.Mine"
PLAIN = {"_target_": "my_torso.Mine", "_partial_": True}
CODE = """
import torch

class Mine(torch.nn.Module):
    def __init__(self, space, width=7):
        super().__init__()
        self.layer = torch.nn.Linear(space.shape[0], width)

    def forward(self, obs):
        return self.layer(obs).tanh()
"""


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["agent=ppo"], {}),
        (["agent=a2c", "tuned=none"], {}),
        (["network=mlp"], {}),
        (["agent=sac", "env=pendulum"], {}),
        (["agent=ppo", "network.torso.activation=relu"], {"activation": "relu"}),
        (["network=mlp", "+network.torso.width=3"], {"width": 3}),
        (["experiment=atari_cpu", "network.torso.fc=[8]"], {"fc": [8]}),
        (["network/torso=mlp"], {"sizes": [256, 256], "activation": "relu", "layer_norm": False}),
    ],
)
def test_only_keys_that_were_typed_are_passed(words: list[str], keys: dict[str, object]) -> None:
    cfg = tuned.compose([*words, MINE])
    assert OmegaConf.to_container(cfg.network.torso) == {**PLAIN, **keys}


def test_another_torso_keeps_its_keys() -> None:
    assert list(tuned.compose(["agent=ppo"]).network.torso) == [
        *("_target_", "_partial_", "sizes", "activation", "layer_norm")
    ]


@pytest.mark.parametrize("agent", ["ppo", "a2c", "reinforce", "actor_critic", "dqn network=mlp", "dqn network=dueling"])
def test_any_agent_trains_with_it(agent: str, workdir: Path) -> None:
    Path("my_torso.py").write_text(CODE)
    words = [f"agent={agent}", "env=cartpole", "total_steps=160", "num_threads=1", "eval.episodes=1", "tuned=none"]
    short = ["learning_starts=20", "learn_every_steps=10"] if "dqn" in agent else []
    done = rlrun("train", *" ".join(words).split(), *short, "network/torso._target_=my_torso.Mine")
    assert (done.code, done.err) == (0, ""), done


AGENTS = """
import numpy as np
import torch
from rl_runner.agents.dqn import DQN
from rl_runner.exploration import choose
from rl_runner.types import LearnOutput

class Plain:
    def __init__(self, network, value, optimizer, sync, exploration, lr_schedule, scale=1.0):
        self.network, self.exploration, self.scale = network, exploration, scale
        self.optimizer = optimizer(network.parameters())

    def act(self, obs, carry, mode, action_mask=None):
        with torch.no_grad():
            q = self.network(torch.as_tensor(np.asarray(obs))).squeeze(-1)
        return choose(q, self.exploration, mode, action_mask, carry)

    def learn(self, batch):
        q = self.network(batch.obs).squeeze(-1).gather(1, batch.action[:, None])[:, 0]
        loss = self.scale * (batch.reward - q).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return LearnOutput({"loss": loss.detach()}, (batch.reward - q).abs().detach())

    def sync(self, before, now):
        pass

    def metrics(self, step):
        return self.exploration.metrics(step)

    def state_dict(self):
        return {"online": self.network.state_dict()}

    def load_state_dict(self, state):
        self.network.load_state_dict(state["online"])

class Open:
    def __init__(self, **rest):
        pass

class Sub(DQN):
    pass
"""


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["agent._target_=my_agents.Plain"], {"name", "gamma", "n_step"}),
        (
            ["agent._target_=my_agents.Plain", "agent.double=true"],
            {"name", "gamma", "n_step", "double"},
        ),
        (["agent._target_=my_agents.Plain", "+agent.scale=0.5"], {"name", "gamma", "n_step", "scale"}),
        (["agent._target_=my_agents.Sub"], None),
        (["agent._target_=my_agents.Open"], None),
        (["agent._target_=there_is.None"], None),
    ],
)
def test_an_agent_keeps_what_its_class_takes(
    words: list[str], left: set[str] | None, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("my_agents.py").write_text(AGENTS)
    monkeypatch.syspath_prepend(str(workdir))
    whole = {str(key) for key in tuned.compose(["agent=rainbow"]).agent} - {"_target_"}
    cfg = tuned.compose(["agent=rainbow", *words])
    assert {str(key) for key in cfg.agent} - {"_target_"} == (left or whole)
    assert cfg.agent.n_step == 3


def test_an_agent_in_the_place_of_dqn_trains(workdir: Path) -> None:
    Path("my_agents.py").write_text(AGENTS)
    words = ["agent=dqn", "env=cartpole", "total_steps=160", "num_threads=1", "eval.episodes=1", "tuned=none"]
    words += ["learning_starts=20", "learn_every_steps=10", "agent._target_=my_agents.Plain", "agent.scale=0.5"]
    done = rlrun("train", *words)
    assert (done.code, done.err) == (0, ""), done
    assert "agent.double: Plain takes no such argument" in rlrun("train", *words, "agent.double=true").err


def test_a_class_that_there_is_not_is_one_line(workdir: Path) -> None:
    line = refused("train", "agent=dqn", "env=cartpole", "agent._target_=there_is_none.Agent")
    assert line == "rlrun: agent._target_: there is no module 'there_is_none'"


def test_a_class_that_was_changed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    class First:
        def __init__(self, double: bool) -> None: ...

    class Second:
        def __init__(self) -> None: ...

    for cls, kept in ((First, True), (Second, False)):
        monkeypatch.setattr("tests.launch.test_own_classes.Changed", cls, raising=False)
        cfg = tuned.compose(["agent=dqn", "agent._target_=tests.launch.test_own_classes.Changed"])
        assert ("double" in cfg.agent) == kept
