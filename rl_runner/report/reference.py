"""Published scores, each with its source and protocol, and what in that protocol is not as in the runs beside it."""

from __future__ import annotations

import csv
import functools
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
    protocol: str  # in words
    sticky: str  # probability that an Atari game repeats an action; empty: not stated
    measured: str  # training or evaluation; empty: not stated
    chosen: str  # best: of several evaluations or agents; empty: none was chosen
    eval_epsilon: str  # empty: not stated
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
    here = groups.environment(config)
    found = [] if score.game == here else [f"of {score.game}, here {here}"]
    sticky = float(config.get("env.sticky") or 0)
    if "env.game" in config and (not score.sticky or float(score.sticky) != sticky):
        stated = f"sticky {score.sticky}" if score.sticky else "stickiness not stated"
        found.append(f"{stated}, here {sticky:g}")
    if score.measured != "evaluation":
        found.append("training returns, here evaluations" if score.measured else "training or evaluation not stated")
    if score.chosen:
        found.append("best chosen, here the agent at the end")
    epsilon = float(config.get("eval.epsilon") or 0)
    if score.eval_epsilon and float(score.eval_epsilon) != epsilon:
        found.append(f"eval epsilon {score.eval_epsilon}, here {epsilon:g}")
    if not score.eval_epsilon and epsilon and score.measured != "training":
        found.append(f"eval epsilon not stated, here {epsilon:g}")
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
