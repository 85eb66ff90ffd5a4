"""An environment in which something happens once to the process of a run, at a step that is known."""

import json
from pathlib import Path

from tests.commandline import SHORT

PACKAGE = """
import os
import signal

import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv


class Trap(CartPoleEnv):
    steps = 0

    def step(self, action):
        Trap.steps += 1
        if Trap.steps == 30:
            try:
                os.rename("trap", "sprung")
            except FileNotFoundError:
                return super().step(action)
            with open("sprung") as file:
                what = file.read()
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif what == "node":  # of Ray: the process that started this one, and this one
                os.kill(os.getppid(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
            elif what == "preempt":
                os.kill(os.getpid(), signal.SIGUSR2)
            elif what == "stop":
                os.kill(os.getppid(), signal.SIGTERM)
        return super().step(action)


gym.register("Trap-v0", Trap, max_episode_steps=500)
"""
WORDS = ["env=gym", "env.id=Trap-v0", "env.imports=[trapped]", *SHORT, "num_threads=1", "checkpoint.every_steps=20"]


def set_trap(directory: Path, what: str) -> list[str]:
    """Write the package; the first run that comes to its step springs the trap. Return the words that use it."""
    (directory / "trapped.py").write_text(PACKAGE)
    (directory / "trap").write_text(what)
    return WORDS


def curves(run: Path) -> list[str]:
    """Return a run's metrics, without those of time."""
    return [line for line in (run / "metrics.csv").read_text().splitlines() if "time/" not in line]


def state(run: Path) -> str:
    return str(json.loads((run / "job.json").read_text())["state"])
