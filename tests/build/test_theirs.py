"""Exceptions of a user's own code: first the line that names the key, then their traceback and not ours."""

from pathlib import Path

import pytest

import rl_runner
from tests.commandline import SHORT, rlrun

CODE = """
import gymnasium as gym
import numpy as np
import torch


def helper():
    raise ValueError("too\\n  narrow")


class Torso(torch.nn.Module):
    def __init__(self, space):
        super().__init__()
        helper()


class Late(torch.nn.Linear):
    def __init__(self, space):
        super().__init__(space.shape[0], 3)

    def forward(self, obs):
        return super().forward(obs[:, :2])


class Exploration:
    def __init__(self, rate=1):
        helper()


class Env(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.Discrete(2)

    def __init__(self, fail=True, **_):
        if fail:
            helper()

    def reset(self, *, seed=None, options=None):
        helper()


class Closed(Env):
    def __init__(self, **_):
        pass

    def reset(self, *, seed=None, options=None):
        raise SystemExit


class Wrapper(gym.Wrapper):
    def __init__(self, env):
        helper()


gym.register("Raising-v0", Env)
gym.register("Closed-v0", Closed)
"""
ENV = ["env=gym", "env.id=Raising-v0", "env.imports=[raising_pkg]"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["network/torso._target_=raising_pkg.Torso"],
            "network.torso: raising_pkg.Torso raised ValueError: too narrow",
        ),
        (
            ["network/torso._target_=raising_pkg.Late"],
            "network.torso: Late cannot read observations Box(",
        ),
        (
            [
                "exploration._target_=raising_pkg.Exploration",
                *(f"~exploration.{key}" for key in ("start", "end", "steps")),
            ],
            "exploration: raising_pkg.Exploration raised ValueError: too narrow",
        ),
        ([*ENV, "env.kwargs.fail=false"], "env: raising_pkg.Env raised ValueError: too narrow"),
        (["env=gym", "env.id=Closed-v0", ENV[2]], "env: raising_pkg.Closed raised SystemExit"),
        (ENV, "env.id: Raising-v0 cannot be made: too narrow"),
        (
            ["env.wrappers=[{_target_: raising_pkg.Wrapper}]"],
            "env.wrappers[0]: Wrapper cannot wrap CartPole-v1: ValueError: too narrow",
        ),
    ],
)
def test_the_key_then_their_traceback(words: list[str], line: str, workdir: Path) -> None:
    (workdir / "raising_pkg.py").write_text(CODE)
    done = rlrun("train", *SHORT, *words)
    first, *trace = done.err.splitlines()
    assert first.startswith(f"rlrun: {line}")
    assert done.code == (1 if " raised " in line else 2)
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[1].startswith(f'  File "{workdir}/raising_pkg.py"')
    assert "rl_runner" not in done.err
    assert done.err.count("Traceback") == 1


def test_the_python_api_says_the_same(trained: Path) -> None:
    agent = rl_runner.load(trained)
    (Path("raising_pkg.py")).write_text(CODE)
    config = (trained / "config.yaml").read_text()
    (trained / "config.yaml").write_text(config.replace("id: CartPole-v1", "id: raising_pkg:Raising-v0"))
    agent.config["env"]["id"] = "raising_pkg:Raising-v0"
    line = "^env.id: raising_pkg:Raising-v0 cannot be made: too narrow$"
    for call in (rl_runner.evaluate, rl_runner.load):
        with pytest.raises(rl_runner.UserError, match=line) as e:
            call(trained, trust="raising_pkg")
        assert isinstance(e.value.__cause__, rl_runner.UserError)
    with pytest.raises(rl_runner.UserError, match=line):
        agent.make_env()


def test_a_saved_agent_whose_code_raises(workdir: Path) -> None:
    (workdir / "raising_pkg.py").write_text(CODE.replace("obs[:, :2]", "obs[:, :4]"))
    words = ["network/torso._target_=raising_pkg.Late", "hydra.run.dir=run"]
    assert rlrun("train", *SHORT, *words).code == 0
    import raising_pkg  # type: ignore[import-not-found]

    raising_pkg.Late.__init__ = raising_pkg.Torso.__init__
    done = rlrun("eval", "run", "episodes=1")
    assert done.code == 1
    assert done.err.startswith("rlrun: network.torso: raising_pkg.Late raised ")
    assert "\nTraceback" in done.err
