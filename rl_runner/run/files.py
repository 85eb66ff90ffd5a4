"""The names of the files in a run's directory, and what can be done with them without torch.

Whoever writes or reads one of the files imports its name from here.
"""

import contextlib
import json
import math
import os
from pathlib import Path

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


def best_saved(run: Path) -> float:
    """Return the mean return that a run's best agent was kept for; minus infinity if there is none."""
    return max(map(best_score, (run / CHECKPOINTS).glob("best_*")), default=-math.inf)


def best_score(checkpoint: Path) -> float:
    """Return the mean return that the best agent was kept for; minus infinity if that is not a finite number."""
    try:
        score = float(json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["about"]["return"]["mean"])
    except (OSError, ValueError, KeyError, TypeError):
        return -math.inf
    return score if math.isfinite(score) else -math.inf
