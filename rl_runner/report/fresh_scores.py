"""Scores of `rlrun eval` by which runs can be compared: of one kind of evaluation, which all of them have."""

from __future__ import annotations

import json
from pathlib import Path

from rl_runner.report.runs import Run
from rl_runner.run.files import CHECKPOINTS, best_checkpoint
from rl_runner.types import State

Kind = tuple[int, int, str]  # of an evaluation: its episodes, its seed, its protocol


def by_kind(every: list[Run], fresh: dict[Path, list[State]], prefix: str) -> list[dict[Kind, State]]:
    """Return what `rlrun eval` gave for each run's last or best agent, by kind of evaluation.

    Args:
        every: the runs.
        fresh: what `runs.scores` returned, by the runs' paths.
        prefix: of the checkpoints' names: "step_" for last agents, "best_" for the best ones.
    """
    kinds = []
    for run in every:
        of_run = [score for score in fresh[run.path] if score["checkpoint"].startswith(prefix)]
        if prefix == "step_":
            of_run = [score for score in of_run if score["step"] >= run.evaluations.steps[-1]]
        elif best := best_checkpoint(run.path / CHECKPOINTS):  # training that went on may have found a better one since
            of_run = [score for score in of_run if score["checkpoint"] == best.name]
        kinds.append({_kind(score): score for score in of_run})
    return kinds


def common(every: list[Run], kinds: list[dict[Kind, State]]) -> tuple[dict[Path, float], str]:
    """Return the scores of the kind of evaluation that all runs have, by path, and its name; both empty: none.

    Of several kinds that of the runs' own protocol counts, then the one with the most episodes.

    Args:
        every: the runs.
        kinds: what `by_kind` returned.
    """
    shared = set.intersection(*map(set, kinds))
    if not shared:
        return {}, ""
    kind = max(shared, key=lambda kind: (sum(of_run[kind]["own"] for of_run in kinds), kind))
    episodes, seed, protocol = kind
    where = f"rlrun eval, {episodes} episodes of fresh seeds (seed {seed}; {protocol.strip('{}')})"
    return {run.path: of_run[kind]["mean"] for run, of_run in zip(every, kinds, strict=True)}, where


def _kind(score: State) -> Kind:
    return int(score["episodes"]), int(score["seed"]), json.dumps(score["protocol"], sort_keys=True).replace('"', "")
