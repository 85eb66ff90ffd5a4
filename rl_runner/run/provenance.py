"""Where a run's numbers come from: provenance.json, with one entry for each start and each resume."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rl_runner.run.files import PROVENANCE, read_json, write_whole
from rl_runner.types import State
from rl_runner.version import __version__

PACKAGES = ("torch", "numpy", "gymnasium", "ale-py", "hydra-core")


def record(run: Path, overrides: Sequence[str]) -> None:
    """Append an entry to a run's provenance.json. On OSError (a full disk) report it; the run does not need the file.

    Args:
        run: the run's directory.
        overrides: the words that this job was configured with.
    """
    file = run / PROVENANCE
    try:
        write_whole(file, json.dumps([*_entries(file), entry(overrides)], indent=1) + "\n")
    except OSError as e:
        print(f"{file} cannot be written ({e.strerror or e}); the run goes on without it")


def first_words(run: Path) -> list[str]:
    """Return the words that a run was started with; none if that cannot be read."""
    try:
        return list(map(str, read_json(run / PROVENANCE)[0]["overrides"]))
    except (OSError, ValueError, LookupError, TypeError):
        return []


def entry(overrides: Sequence[str]) -> State:
    """Return what is known of this process. Environment variables are left out: they may hold secrets."""
    return {
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(sys.orig_argv),
        "overrides": list(overrides),
        "directory": os.getcwd(),
        "git": git_state(Path.cwd()),
        "versions": versions(),
        "host": {
            "name": platform.node(),
            "system": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def versions() -> State:
    """Return the versions of Python, rlrun and the packages that results depend on."""
    return {"python": platform.python_version(), "rlrun": __version__, **dict(map(_version, PACKAGES))}


def published(run: Path) -> list[State]:
    """Return of each start and resume of a run what may be published: the time, the versions and the commit.

    Command lines, directories and the machine are left out. A file that cannot be read counts as empty.
    """
    try:
        found = read_json(run / PROVENANCE)
        return [{key: one.get(key) for key in ("started", "versions", "git")} for one in found]
    except (OSError, ValueError, TypeError, AttributeError):
        return []


def git_state(directory: Path) -> State | None:
    """Return the commit that is checked out in a directory, and whether tracked files differ from it.

    Returns:
        None if the directory is in no git repository with a commit, or there is no git.
    """
    commit = _output("git", "-C", str(directory), "rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    options = ["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"]
    return {"commit": commit, "dirty": bool(_output("git", "-C", str(directory), *options))}


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:  # not Linux
        names = [_output("sysctl", "-n", "machdep.cpu.brand_string")]
    return next(filter(None, names), "") or platform.processor() or platform.machine()


def _entries(file: Path) -> list[Any]:
    """Return the entries in a file. One that cannot be read is kept under another name."""
    try:
        found = read_json(file)
        if isinstance(found, list):
            return found
    except FileNotFoundError:
        return []
    except ValueError:
        pass
    os.replace(file, file.with_suffix(".damaged"))
    return []


def _version(package: str) -> tuple[str, str | None]:
    try:
        return package, importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return package, None


def _output(*command: str) -> str:
    """Return what a command prints; empty if it fails or takes long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
