"""The names of the files in a run's directory, and what can be done with them without torch.

Whoever writes or reads one of the files imports its name from here.
"""

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rl_runner.types import UserError

OUTPUTS = "outputs"  # the directory for runs, in the current one
CONFIG = "config.yaml"
LOG = "train.log"
TABLE = "metrics.csv"
CURVES = "tensorboard"
CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"  # of a checkpoint
NOTE = "job.json"
EPISODES = "episodes.csv"
CHANGES = "changes.csv"
EVALUATIONS = "evaluations.jsonl"
PROVENANCE = "provenance.json"
LOCK = ".lock"
BIN = ".bin"  # a directory of runs that were removed; whoever looks for runs passes it over


def remove_unused(directory: Path) -> None:
    """Remove a directory that was made for nothing if it is empty, and the empty ones above it up to `outputs`.

    Above a directory that the user chose, nothing is removed: an empty one may have been there before.

    Args:
        directory: relative to the current directory if it lies below it.
    """
    with contextlib.suppress(OSError):
        directory.rmdir()
        for above in directory.parents:
            if above.parts[:1] == (OUTPUTS,):
                above.rmdir()


def runs_under(place: Path) -> Iterator[Path]:
    """Yield a directory if it is a run's, else the runs in it. Hidden directories are passed over."""
    for directory, inner, files in os.walk(place):
        if CONFIG in files and ({TABLE, LOG, PROVENANCE, NOTE} & set(files) or CHECKPOINTS in inner):
            inner.clear()
            yield Path(directory)
        inner[:] = sorted((name for name in inner if not name.startswith(".")), key=_in_order)


def latest_run() -> Path:
    """Return the newest run under `outputs`.

    Raises:
        UserError: there is none.
    """
    newest = max(runs_under(Path(OUTPUTS)), key=lambda run: modified(run / CONFIG), default=None)
    if newest is None:
        raise UserError(f"latest: no runs under {OUTPUTS}/ in this directory yet")
    return newest


def _in_order(name: str) -> list[tuple[bool, float, str]]:
    """Return what sorts names with numbers in them: 9 before 10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)  # every second one is a number
    return [(i % 2 == 1, float(part) if i % 2 else 0.0, part) for i, part in enumerate(parts)]


def write_whole(file: Path, text: str) -> None:
    """Write a file so that whoever reads it, after a crash of the machine too, finds it whole or as it was before.

    Raises:
        OSError: it cannot be written; one that stands there already stays.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(temporary, file)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read_json(file: Path) -> Any:
    """Return what a file of JSON holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or nested too deeply.
    """
    return parse_json(file.read_text(encoding="utf-8"))


def parse_json(text: str) -> Any:
    """Return what a text of JSON holds.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as e:
        raise ValueError("nested too deeply") from e


def modified(file: Path) -> float:
    """Return when a file was last written, in seconds since 1970; 0 if there is none, or none any more."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def saved_step(run: Path) -> int:
    """Return the step of a run's newest checkpoint; 0 if there is none."""
    steps = [file.parent.name.removeprefix("step_") for file in (run / CHECKPOINTS).glob(f"step_*/{MANIFEST}")]
    return max((int(step) for step in steps if step.isdecimal()), default=0)


def best_checkpoint(checkpoints: Path) -> Path | None:
    """Return the best agent among a run's checkpoints, if there is one.

    A save that was killed may leave two: the higher score counts.
    """
    steps = {path: path.name.removeprefix("best_") for path in checkpoints.glob("best_*") if path.is_dir()}
    found = [path for path, step in steps.items() if step.isdecimal()]
    return max(found, key=lambda path: (_best_score(path), int(steps[path])), default=None)


def best_saved(run: Path) -> float:
    """Return the mean return that a run's best agent was kept for; minus infinity if there is none."""
    best = best_checkpoint(run / CHECKPOINTS)
    return _best_score(best) if best else -math.inf


def _best_score(checkpoint: Path) -> float:
    """Return the mean return that the best agent was kept for; minus infinity if that is not a finite number."""
    try:
        score = float(read_json(checkpoint / MANIFEST)["about"]["return"]["mean"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return -math.inf
    return score if math.isfinite(score) else -math.inf
