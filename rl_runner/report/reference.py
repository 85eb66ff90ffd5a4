"""Published scores, each with its source and protocol, and what in that protocol is not as in the runs beside it."""

from __future__ import annotations

import csv
import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

from rl_runner.catalogue import without_version
from rl_runner.report import groups

DIRECTORY = Path(__file__).with_name("reference")


class Published(NamedTuple):
    """One published score."""

    game: str
    source: str
    agent: str
    protocol: str
    frames: str  # emulator frames; where there are none, steps; empty: unknown
    score: str
    spread: str


@functools.cache
def human_scores() -> dict[str, tuple[float, float]]:
    """Return the scores of a random agent and of a human in each of 57 Atari games."""
    with open(DIRECTORY / "atari57_random_human.csv", newline="", encoding="utf-8") as file:
        return {row["game"]: (float(row["random"]), float(row["human"])) for row in csv.DictReader(file)}


@functools.cache
def _all() -> list[Published]:
    with open(DIRECTORY / "published_scores.csv", newline="", encoding="utf-8") as file:
        return [Published(**row) for row in csv.DictReader(file)]


def published(environment: str) -> list[Published]:
    """Return what was published of an environment, other versions of it included."""
    return [score for score in _all() if without_version(score.game) == without_version(environment)]


def differences(score: Published, config: dict[str, Any]) -> list[str]:
    """Return how the protocol of a published score differs from that of a run, or is not known to agree.

    Args:
        score: the published one.
        config: the run's, by dotted keys.
    """
    here, said = groups.environment(config), score.protocol
    found = [] if score.game == here else [f"of {score.game}, here {here}"]
    atari = "env.game" in config
    own_sticky = float(config.get("env.sticky") or 0)
    if atari and (sticky := _sticky(said)) != own_sticky:
        stated = "stickiness not stated" if sticky is None else f"sticky {sticky:g}"
        found.append(f"{stated}, here {own_sticky:g}")
    if training := re.search(r"\btrain|last 100 training", said):
        found.append("training returns, here evaluations")
    elif not re.search(r"\beval|greedy|episode|\btrack|\bbest|games", said):
        found.append("training or evaluation not stated")
    if "best" in said.split(", ")[-1] or "best of" in said or re.search(r"\bbest\b", score.agent):
        found.append("best chosen, here the agent at the end")
    epsilon = 0.0 if "greedy" in said else float(e[1]) if (e := re.search(r"eval eps ([\d.]+)", said)) else None
    own = float(config.get("eval.epsilon") or 0)
    if epsilon is not None and epsilon != own:
        found.append(f"eval epsilon {epsilon:g}, here {own:g}")
    if epsilon is None and own and not training:
        found.append(f"eval epsilon not stated, here {own:g}")
    return [*found, *_budget(score, config)]


def _budget(score: Published, config: dict[str, Any]) -> list[str]:
    """Return how the budgets differ, in frames on Atari and else in steps."""
    steps, skip = config.get("total_steps"), config.get("env.frame_skip") or 1
    if not isinstance(steps, int):
        return []
    unit = "frames" if "env.game" in config else "steps"
    own = steps * skip if unit == "frames" else steps
    if not score.frames:
        return ["budget not stated"] if score.agent != "random" else []
    return [] if int(score.frames) == own else [f"{int(score.frames):,} {unit}, here {own:,}"]


def _sticky(protocol: str) -> float | None:
    if "no sticky" in protocol:
        return 0.0
    found = re.search(r"sticky ([\d.]+)", protocol)
    return float(found[1]) if found else None
