"""The evaluations of a run, read from its files: those of `rlrun eval`, and those of training.

Needs no torch, so that it loads at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rl_runner.run.files import EVALUATIONS, parse_json, read_json
from rl_runner.types import State


def of_checkpoint(directory: Path, checkpoint: str) -> list[State]:
    """Return what `rlrun eval` wrote about one checkpoint: the run's own protocol first, then by number of episodes.

    Files that cannot be read are left out.

    Args:
        directory: that holds them, a run's `eval/`.
        checkpoint: its name.
    """
    found = [result for result in fresh(directory) if result["checkpoint"] == checkpoint]
    return sorted(found, key=lambda result: (not of_own_protocol(result["file"]), -result["episodes"]))


def fresh(directory: Path) -> Iterator[State]:
    """Yield what `rlrun eval` wrote, with the file's name, and the checkpoint's name in the place of its path.

    Files that cannot be read are left out.

    Args:
        directory: that holds them, a run's `eval/`.
    """
    for path in sorted(directory.glob("*.json")):
        try:
            result = read_json(path)
            if _is_score(result):
                yield {"file": path.name, **result, "checkpoint": Path(result["checkpoint"]).name}
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            continue


def of_own_protocol(file: str) -> bool:
    """Return whether `rlrun eval` wrote a file by the run's own protocol; the name says what else was asked for."""
    return not any(f"_{name}_" in file for name in ("sticky", "epsilon"))


def of_training(run: Path) -> list[State]:
    """Return the evaluations while training: step, statistics of returns, and each episode's seed and return."""
    steps: dict[int, list[State]] = {}
    for row in _rows(run / EVALUATIONS):
        steps.setdefault(row["step"], []).append({"seed": row["seed"], "return": row["return"]})
    return [{"step": step, **_summary(episodes), "per_episode": episodes} for step, episodes in sorted(steps.items())]


def _rows(file: Path) -> Iterator[State]:
    """Yield the rows of a file of JSON lines; a last one that is not whole is left out."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        try:
            row = parse_json(line)
            yield {"step": int(row["step"]), "seed": int(row["seed"]), "return": float(row["return"])}
        except (ValueError, KeyError, TypeError, OverflowError):
            continue


def _summary(episodes: list[State]) -> State:
    x = np.array([episode["return"] for episode in episodes])
    std = float(x.std(ddof=1)) if len(x) > 1 else 0.0
    statistics = {"mean": float(x.mean()), "std": std, "min": float(x.min()), "max": float(x.max())}
    return {"return": statistics, "episodes": len(x)}


def _is_score(result: Any) -> bool:
    numbers = [*(result["return"][name] for name in ("mean", "std", "min", "max")), *result["return"]["ci95"]]
    whole = all(isinstance(result[name], int) for name in ("episodes", "seed", "step"))
    finite = all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers)
    return whole and finite and isinstance(result["protocol"], dict)
