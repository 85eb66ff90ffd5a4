"""Command lines run in this process, because another one would import torch for seconds first."""

import contextlib
import io
import os
from pathlib import Path
from typing import NamedTuple

from rl_runner.cli import main as cli

SHORT = ["total_steps=40", "learning_starts=10", "learn_every_steps=4", "updates_per_learn=1", "batch_size=8"]
SHORT += ["eval.episodes=1", "replay.capacity=500"]
SHORT_ATARI = [
    *SHORT,
    "learn_every_steps=16",
    "num_threads=1",
    "env.max_frames=80",
    "env.num_envs=2",
    "eval.num_envs=1",
]


class Done(NamedTuple):
    """What a command line did."""

    code: object
    out: str
    err: str


def rlrun(*args: str) -> Done:
    """Run a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: object = cli.run(list(args))
        except SystemExit as e:
            code = e.code
    return Done(code, out.getvalue(), err.getvalue())


def refused(*args: str) -> str:
    """Run a command line that must be refused in one line, leaving nothing behind; give the line."""
    assert not Path("pyproject.toml").exists(), "needs the fixture workdir: other tests write into the repository"
    before = files()
    done = rlrun(*args)
    assert done.code == 2, done
    assert done.err.startswith("rlrun: "), done.err
    assert done.err.count("\n") == 1, done.err
    assert done.err.endswith("\n")
    assert "Traceback" not in done.err
    assert done.out == "", done.out
    assert files() == before
    return done.err.strip()


def files() -> set[str]:
    """Return all files and directories under the current one, but for those of compiled modules."""
    paths = (os.path.join(d, name) for d, dirs, names in os.walk(".") for name in dirs + names)
    return {path for path in paths if "__pycache__" not in path}


def only_run(pattern: str = "outputs/**/config.yaml") -> Path:
    """Return the one run that is here."""
    (config,) = Path().glob(pattern)
    return config.parent
