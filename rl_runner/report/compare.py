"""The comparison of groups of runs: every number that `rlrun compare` shows, none of them averaged over environments.

Only where all environments are Atari games are they brought together, by human-normalised scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rl_runner.report import fresh_scores, reference, runs, stats
from rl_runner.report import groups as grouping
from rl_runner.report.curves import (
    Curve,
    Unreadable,
    area,
    final_evaluations,
    from_start,
    merge_evaluation,
    series,
    total_steps,
)
from rl_runner.report.groups import Group, Grouping
from rl_runner.report.protocol import tells_apart
from rl_runner.report.runs import Run
from rl_runner.report.stats import Array, Estimate
from rl_runner.types import UserError

TRAINING = "the last evaluation while training"
FLATTERS = "the highest evaluation while training, which flatters"
PROFILE_POINTS = 101


class Reached(NamedTuple):
    """When the runs of a group reached a threshold in an evaluation."""

    threshold: float
    runs: int  # that did
    steps: float  # median over all runs; infinite: half of them or fewer did
    minutes: float  # the same; NaN: no times were logged


class Row(NamedTuple):
    """One group in one environment."""

    label: str
    runs: list[Run]
    scores: list[float]  # of the agents at the end, one for each run
    last: Estimate  # their mean
    iqm: Estimate
    best: float  # mean score of the agents that training's evaluations chose
    area: Estimate  # mean return over a run's budget
    reached: Reached | None
    better: Estimate | None  # probability that a run scores higher than one of the first group
    detectable: float | None  # difference from the first group that could have been seen
    curves: list[Curve]


class Block(NamedTuple):
    """All groups in one environment."""

    environment: str
    rows: list[Row]
    protocol: dict[str, dict[str, str]]  # what differs in it: {key: {label: value}}
    training: dict[str, dict[str, str]]  # what differs in training's evaluations, where the scores are not from them
    source: str  # what the scores at the end are from
    chosen: str  # what the scores of the best agents are from
    without: list[Path]  # runs that `rlrun eval` has not evaluated at their end
    profile: list[Curve]  # shares of runs above each threshold, with bootstrap bands


class Games(NamedTuple):
    """One group over several Atari games, by human-normalised scores."""

    label: str
    runs: int
    iqm: Estimate
    mean: Estimate
    median: Estimate
    better: Estimate | None


class Overall(NamedTuple):
    """Groups over several Atari games."""

    games: list[str]
    rows: list[Games]
    profile: list[Curve]  # as of a block


class Comparison(NamedTuple):
    """Everything that is shown."""

    blocks: list[Block]
    overall: Overall | None
    grouping: Grouping
    notes: list[str]  # what a reader must know: runs left out, protocols that differ, too few seeds


def compare(
    names: Sequence[str],
    by: Sequence[str] = (),
    threshold: float | None = None,
    resamples: int = stats.RESAMPLES,
) -> Comparison:
    """Compare the runs that are named.

    Args:
        names: directories of runs or of what they are in, and patterns.
        by: keys that tell the groups apart; none: all that differ.
        threshold: a return; when was it reached?
        resamples: of the bootstrap.

    Raises:
        UserError: no run can be compared, or groups would mix protocols.
    """
    finished, notes = _finished(names)
    found = grouping.group(finished, by)
    origins = {run.path: str(run.config.get("init_from")) for run in finished}
    kept = [g._replace(runs=_one_per_seed(g, found.within, origins, notes)) for g in found.groups]
    notes += [note for g in kept for run in g.runs for note in _changes(run)]
    first = kept[0].label
    places = dict.fromkeys(g.environment for g in kept)
    resamples = 0 if found.within else resamples  # runs of different configurations are not draws of one thing
    blocks = [_block([g for g in kept if g.environment == place], threshold, resamples) for place in places]
    for block in blocks:
        notes += _warnings(block, len(blocks) > 1)
    if found.within:
        mixed = ", ".join(found.within)
        notes.append(f"groups mix runs with different {mixed}: no interval, P(better) or detectable difference")
    overall = _overall(blocks, first, notes, resamples) if len(blocks) > 1 else None
    return Comparison(blocks, overall, found, notes)


def _finished(names: Sequence[str]) -> tuple[list[Run], list[str]]:
    """Return the runs that can be compared, and a line for each that cannot."""
    kept, notes = [], []
    for path in runs.find(names):
        try:
            run = runs.read(path)
        except Unreadable as e:
            notes.append(f"left out: {e}")
            continue
        if run.state != runs.FINISHED:
            notes.append(f"left out: {path} is {run.state} at step {run.step:,}, not finished")
            continue
        try:
            final_evaluations(path, run.table)
        except Unreadable as e:
            notes.append(f"left out: {path} {e}")
        else:
            kept.append(run)
    if not kept:
        raise UserError("; ".join(["compare: none of these runs has finished with an evaluation", *notes[:3]]))
    return kept, notes


def _one_per_seed(group: Group, within: Sequence[str], origins: Mapping[Path, str], notes: list[str]) -> list[Run]:
    """Return the newest run of each seed and origin: runs of one seed and configuration are not independent."""
    newest: dict[tuple[str, ...], Run] = {}
    for run in sorted(group.runs, key=lambda run: runs.changed(run.path)):
        key = (run.seed, origins[run.path], *(grouping.value(run, name) for name in within))
        if key in newest:
            notes.append(f"left out: {newest[key].path}; a later run of {group.label} has seed {run.seed} too")
        newest[key] = run
    return [run for run in group.runs if any(run is kept for kept in newest.values())]


def _changes(run: Run) -> Iterator[str]:
    """Yield a line for each value that changed when a run was resumed, and on which its results depend."""
    for change in runs.changes(run.path):
        if tells_apart(change.key) and change.key != "total_steps":
            yield f"{run.path}: {change.key} was changed from {change.before} to {change.after} at step {change.step}"


# One environment.


def _block(groups: list[Group], threshold: float | None, resamples: int) -> Block:
    every = [run for group in groups for run in group.runs]
    fresh = {run.path: runs.scores(run.path) for run in every}
    of_last, of_best = fresh_scores.by_kind(every, fresh, "step_"), fresh_scores.by_kind(every, fresh, "best_")
    last, source = fresh_scores.common(every, of_last)
    best, chosen = fresh_scores.common(every, of_best)
    without = [run.path for run, kinds in zip(every, of_last, strict=True) if not kinds]
    last = last or {run.path: float(run.evaluations.values[-1]) for run in every}
    best = best or {run.path: float(run.evaluations.values.max()) for run in every}
    protocol = grouping.protocol_differences(groups)
    training = {key: by for key, by in protocol.items() if source and key.startswith("eval.")}
    protocol = {key: by for key, by in protocol.items() if key not in training}
    scores = [np.array([last[run.path] for run in group.runs]) for group in groups]
    rows = []
    for group, own in zip(groups, scores, strict=True):
        same = all(by[group.label] == by[groups[0].label] for by in protocol.values())
        enough = min(len(own), len(scores[0])) >= stats.LEAST_RUNS
        versus = scores[0] if same and enough and resamples and group is not groups[0] else None
        rows.append(_row(group, own, [best[run.path] for run in group.runs], versus, threshold, resamples))
    labels = [group.label for group in groups]
    profile = _profiles(labels, [[s] for s in scores], resamples)
    place, source, chosen = groups[0].environment, source or TRAINING, chosen or FLATTERS
    return Block(place, rows, protocol, training, source, chosen, without, profile)


def _row(
    group: Group, scores: Array, best: list[float], versus: Array | None, threshold: float | None, resamples: int
) -> Row:
    areas = np.array([area(run.evaluations, total_steps(run.path)) for run in group.runs])
    better = None if versus is None else _better([scores], [versus], resamples)
    return Row(
        label=group.label,
        runs=group.runs,
        scores=scores.tolist(),
        last=stats.estimate(stats.mean, [scores], resamples),
        iqm=stats.estimate(stats.iqm, [scores], resamples),
        best=float(np.mean(best)),
        area=stats.estimate(stats.mean, [areas], resamples),
        reached=None if threshold is None else _reached(group.runs, threshold),
        better=better,
        detectable=None if versus is None else stats.detectable_difference(versus.tolist(), scores.tolist()),
        curves=_learning(group, bool(resamples)),
    )


def _learning(group: Group, bands: bool) -> list[Curve]:
    """Return the learning curve of a group, with those of few runs beside it, or the mean alone without bands."""
    curves = merge_evaluation(group.label, [run.evaluations for run in group.runs])
    if bands:
        return curves
    return [curve._replace(low=curve.mean, high=curve.mean, runs=1) for curve in curves if curve.run is None]


def _better(scores: list[Array], versus: list[Array], resamples: int) -> Estimate:
    """Return the probability that a run of one group scores higher than one of another, with its interval."""
    count = len(scores)
    return stats.estimate(lambda drawn: stats.improvement(drawn[:count], drawn[count:]), [*scores, *versus], resamples)


def _reached(group: list[Run], threshold: float) -> Reached:
    """Return when the runs of a group first reached a threshold."""
    steps, minutes = [], []
    for run in group:
        above = run.evaluations.steps[run.evaluations.values >= threshold]
        steps.append(float(above[0]) if len(above) else math.inf)
        clock = series(run.table, "time/seconds")
        seconds = from_start(clock).at(above[:1]) if len(clock.steps) else [math.nan]
        minutes.append(float(seconds[0]) / 60 if len(above) else math.inf)
    return Reached(threshold, sum(map(math.isfinite, steps)), float(np.median(steps)), float(np.median(minutes)))


def _profiles(labels: Sequence[str], scores: list[list[Array]], resamples: int) -> list[Curve]:
    """Return the performance profiles of groups, each with the scores of its environments."""
    every = np.concatenate([s for of_group in scores for s in of_group])
    margin = 0.02 * (np.ptp(every) or 1)
    thresholds = np.linspace(every.min() - margin, every.max() + margin, PROFILE_POINTS)
    curves = []
    for label, of_group in zip(labels, scores, strict=True):
        share = stats.profile(of_group, thresholds)
        low, high = share, share
        least = min(map(len, of_group)) if resamples else 1
        if least >= stats.LEAST_RUNS:
            low, high = stats.bootstrap(partial(stats.profile, thresholds=thresholds), of_group, resamples)
        curves.append(Curve(label, "profile", thresholds, share, low, high, least))
    return curves


def _warnings(block: Block, several: bool) -> list[str]:
    """Return what a reader must know of one environment."""
    where = f"{block.environment}: " if several else ""
    found = [
        f"{where}PROTOCOL DIFFERS in {key}: {_listed(key, by)}; these scores are not comparable"
        for key, by in block.protocol.items()
    ]
    found += [
        f"{where}training's evaluations differ in {key}: "
        f"{_listed(key, by)}; areas, thresholds and the choice of the best "
        f"agents are not comparable"
        for key, by in block.training.items()
    ]
    if block.source == TRAINING:
        found += _about_training(block, where)
    few = [f"{row.label} ({len(row.runs)})" for row in block.rows if len(row.runs) < stats.LEAST_RUNS]
    if few:
        found.append(
            f"{where}no interval, P(better) or detectable difference from fewer than {stats.LEAST_RUNS} seeds: "
            f"{', '.join(few)}"
        )
    return found


def _listed(key: str, by: Mapping[str, str]) -> str:
    """Return the value of a key in each group; a group that is named by that value needs no name."""
    return ", ".join(value if label == f"{key}={value}" else f"{label} {value}" for label, value in by.items())


def _about_training(block: Block, where: str) -> Iterator[str]:
    """Yield why scores are from training's evaluations although `rlrun eval` has some, and whether these flatter."""
    every = [run for row in block.rows for run in row.runs]
    if not block.without:
        yield f"{where}rlrun eval has evaluated these runs in different ways, so none of its scores count"
    elif len(block.without) < len(every):
        named = ", ".join(map(str, block.without[:3])) + (", ..." if len(block.without) > 3 else "")
        yield (
            f"{where}scores of rlrun eval do not count, because {len(block.without)} of {len(every)} runs have none of "
            f"their last agent: {named}"
        )
    if any(run.config.get("stop.eval_return") is not None for run in every):
        yield (
            f"{where}stop.eval_return ends a run at an evaluation that is high enough, so its last one flatters; "
            "use rlrun eval"
        )


# Several games.


def _overall(blocks: Sequence[Block], first: str, notes: list[str], resamples: int) -> Overall | None:
    """Return groups over games; None, with a note, where their scores have no common scale."""
    scale = reference.human_scores()
    unknown = [block.environment for block in blocks if block.environment not in scale]
    if unknown:
        have = "has" if len(unknown) == 1 else "have"
        notes.append(f"nothing is averaged over environments: {', '.join(unknown)} {have} no human-normalised score")
        return None
    by_label: dict[str, list[Array]] = {}
    for block in blocks:
        for row in block.rows:
            random, human = scale[block.environment]
            by_label.setdefault(row.label, []).append((np.array(row.scores) - random) / (human - random))
    partial_ones = [label for label, scores in by_label.items() if len(scores) < len(blocks)]
    if partial_ones:
        notes.append(f"not averaged over games, because a game is missing: {', '.join(partial_ones)}")
    whole = {label: scores for label, scores in by_label.items() if label not in partial_ones}
    if not whole:
        return None
    comparable = resamples and not any(block.protocol for block in blocks)
    sources = {block.environment: block.source for block in blocks}
    if len({source == TRAINING for source in sources.values()}) > 1:
        of_training = [environment for environment, source in sources.items() if source == TRAINING]
        notes.append(f"scores of {', '.join(of_training)} are from training, those of the other games from rlrun eval")
    rows = []
    for label, scores in whole.items():
        versus = whole.get(first) if comparable and label != first else None
        better = None if versus is None else _better(scores, versus, resamples)
        iqm, mean, median = (stats.estimate(of, scores, resamples) for of in (stats.iqm, stats.mean, stats.median))
        rows.append(Games(label, sum(map(len, scores)), iqm, mean, median, better))
    return Overall([b.environment for b in blocks], rows, _profiles(list(whole), list(whole.values()), resamples))
