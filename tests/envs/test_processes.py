"""Environments in processes of their own: what reaches the run if one fails, and what is left if the run is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from rl_runner.envs.gym import GymBackend
from rl_runner.envs.processes import Failed
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.types import UserError
from tests.commandline import SHORT, rlrun
from tests.envs import awkward_envs

MODULE = awkward_envs.__name__


def make(name: str, num_envs: int = 2) -> EpisodicVectorEnv:
    return EpisodicVectorEnv(GymBackend(f"{name}-v0", num_envs, [MODULE], processes=True), 0, "train")


def test_an_exception_that_cannot_be_sent_is_named_with_the_traceback_of_its_own_code() -> None:
    envs = make("Unsendable")
    envs.reset()
    with pytest.raises(Failed, match=r"^env: Unsendable-v0 raised Broken: an arm is broken$") as e:  # noqa: PT012
        for _ in range(3):
            envs.send(np.array([0, 1]))
            envs.recv()
    first, *_ = [line for line in e.value.trace.splitlines() if line.startswith("  File")]
    assert "awkward_envs.py" in first
    assert e.value.trace.endswith("Broken: an arm is broken\n")
    assert e.value.exit_code == 1


def test_a_command_shows_it_as_a_bug(workdir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["env=gym", "env.id=Unsendable-v0", f"env.imports=[{MODULE}]", "env.processes=true"]
    done = rlrun("train", *words, *SHORT, "num_threads=1")
    assert done.code == 1
    assert done.err.startswith("rlrun: env: Unsendable-v0 raised Broken: an arm is broken\nTraceback (most recent")
    assert "gymnasium" not in done.err
    assert capfd.readouterr().err == ""  # nor do the processes say anything


def test_an_environment_that_its_process_cannot_make_is_one_line() -> None:
    awkward_envs.SecondFails.made_in.clear()
    with pytest.raises(UserError, match=r"^env.id: SecondFails-v0 cannot be made: port 5000 is taken$") as e:
        make("SecondFails")
    assert e.value.exit_code == 2


def test_processes_end_when_the_run_is_killed_and_say_nothing() -> None:
    code = (
        "import numpy as np, os, signal\n"
        "from rl_runner.envs.gym import GymBackend\n"
        "backend = GymBackend('CartPole-v1', 3, processes=True)\n"
        "backend.reset(np.ones(3, dtype=bool), [1, 2, 3])\n"
        "backend.send(np.array([0, 1, 0]))\n"
        "print(*(p.pid for p in backend._envs.processes), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The processes hold its output open: this returns when the last one has ended.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(done.stdout.split()) == 3
    assert done.stderr == ""


@pytest.mark.parametrize("read", [0, 1])
def test_processes_that_are_stepping_end_when_they_are_closed(read: int) -> None:
    """An exception, such as Ctrl-C, may come after some of the answers were read."""
    backend = GymBackend("CartPole-v1", 2, processes=True)
    backend.reset(np.ones(2, np.bool_), [0, 1])
    backend.send(np.zeros(2, np.int64))
    for pipe in backend._envs.parent_pipes[:read]:
        pipe.recv()
    closing = threading.Thread(target=backend.close, daemon=True)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
    assert not any(process.is_alive() for process in backend._envs.processes)
