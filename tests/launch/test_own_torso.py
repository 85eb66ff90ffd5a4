"""A torso of the user's own, named by its class, under every agent: it gets the keys that were typed, and no others."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rl_runner.launch import tuned
from tests.commandline import rlrun

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
    assert list(tuned.compose(["agent=ppo"]).network.torso) == ["_target_", "_partial_", "sizes", "activation"]


@pytest.mark.parametrize("agent", ["ppo", "a2c", "reinforce", "actor_critic", "dqn network=mlp", "dqn network=dueling"])
def test_any_agent_trains_with_it(agent: str, workdir: Path) -> None:
    Path("my_torso.py").write_text(CODE)
    words = [f"agent={agent}", "env=cartpole", "total_steps=160", "num_threads=1", "eval.episodes=1", "tuned=none"]
    short = ["learning_starts=20", "learn_every_steps=10"] if "dqn" in agent else []
    done = rlrun("train", *" ".join(words).split(), *short, "network/torso._target_=my_torso.Mine")
    assert (done.code, done.err) == (0, ""), done
