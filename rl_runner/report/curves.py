"""Learning curves: read from the tables of runs, and merged over seeds.

Needs no torch, so that it loads at once.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rl_runner.report.stats import BAND_RUNS, mean_and_band
from rl_runner.run.files import CONFIG, TABLE, saved_step, write_whole

UNITS = ("steps", "frames", "minutes")  # of the horizontal axis
TRAIN, EVAL = "train", "eval"
HEADER = "label,curve"  # how the numbers of a picture begin
MAX_POINTS = 200  # of a training curve; more would not be seen

Array = npt.NDArray[Any]
Table = dict[str, list[tuple[int, float]]]  # name -> (step, value), in the order of the file


class Unreadable(Exception):
    """A directory or a file without what a curve needs; the message is for the user."""


class Series(NamedTuple):
    """One quantity of one run."""

    steps: Array
    values: Array

    def at(self, steps: Array) -> Array:
        """Return the values at some steps, interpolated."""
        return np.interp(steps, self.steps, self.values)


class Run(NamedTuple):
    """What is needed of one run. `x` gives the horizontal position of steps."""

    train: Series
    mean: Series
    std: Series
    x: Callable[[Array], Array]


class Curve(NamedTuple):
    """One line of a picture: the mean over runs, or one of these runs."""

    label: str
    kind: str  # TRAIN or EVAL
    x: Array
    mean: Array
    low: Array
    high: Array
    runs: int
    run: int | None = None  # which of them; None: their mean


# Reading.


def read_run(directory: Path, unit: str = "steps", smooth: int = 1, metric: str | None = None) -> Run:
    """Read what a run has logged.

    Args:
        directory: the run's.
        unit: of the horizontal axis; one of UNITS.
        smooth: training returns are means of this many logged points.
        metric: the name of another curve, read in place of training returns and without evaluations.

    Raises:
        Unreadable: it is no run, or has no such curve yet.
    """
    table = read_table(directory)
    x = horizontal(directory, unit, series(table, "time/seconds"))
    if metric:
        if metric not in table:
            raise Unreadable(f"{directory}/{TABLE} has no {metric}; it has {', '.join(sorted(table)) or 'no rows'}")
        return Run(series(table, metric, smooth), series({}, ""), series({}, ""), x)
    mean, std = series(table, "eval/return_mean"), series(table, "eval/return_std")
    run = Run(series(table, "train/return", smooth), mean, std, x)
    if not len(run.train.steps) and not len(run.mean.steps):
        raise Unreadable(f"{directory}/{TABLE} has neither train/return nor eval/return_mean yet")
    return run


def read_table(directory: Path) -> Table:
    """Read a run's metrics.csv. Lines that are no rows are passed over: a crash of the machine may leave some.

    Raises:
        Unreadable: there is none, or none of its lines is a row.
    """
    table: Table = {}
    damaged = 0  # the first line that is no row
    try:
        with open(directory / TABLE, newline="", encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                try:
                    step, rest = line.split(",", 1)
                    name, value = rest.rsplit(",", 1)
                    point = int(step), float(value)
                    if not 0 <= point[0] < 2**63:  # NumPy keeps steps as int64
                        raise ValueError
                except ValueError:
                    damaged = damaged or (number if number > 1 else 0)
                else:
                    table.setdefault(name, []).append(point)
    except OSError as e:
        raise Unreadable(f"{directory} is no run: it holds no readable {TABLE} ({e.strerror})") from e
    if damaged and not table:
        raise Unreadable(f"{directory}/{TABLE} has a line that is not step,name,value: line {damaged}")
    return table


def final_evaluations(run: Path, table: Table) -> Series:
    """Return the mean returns of a finished run's evaluations, those that are finite.

    Args:
        run: the run's directory.
        table: its metrics.csv.

    Raises:
        Unreadable: the last one, which is of the agent at the end, is not there or not finite. The message begins with
            a verb.
    """
    steps, values = series(table, "eval/return_mean")
    if not len(steps):
        raise Unreadable("left no evaluation")
    if saved_step(run) > steps[-1]:
        raise Unreadable(f"left a {TABLE} without its last evaluation")
    if not math.isfinite(values[-1]):
        raise Unreadable(f"ended with an evaluation of {values[-1]:g}")
    finite = np.isfinite(values)
    return Series(steps[finite], values[finite])


def last_return(run: Path) -> float:
    """Return the mean return of a run's last evaluation; NaN if there is none."""
    try:
        values = series(read_table(run), "eval/return_mean").values
    except Unreadable:
        return math.nan
    return float(values[-1]) if len(values) else math.nan


def area(evaluations: Series, total_steps: int) -> float:
    """Return the mean return over a run's budget: the area under its curve by steps, how fast it learned.

    Each evaluation stands for the steps since the one before. After an early stop the last one stands for the rest, so
    that a run is not the worse for having reached its goal sooner.

    Args:
        evaluations: at least one.
        total_steps: the budget; 0: unknown, up to the last evaluation.
    """
    steps, values = evaluations
    widths = np.diff(np.append(0, steps)).astype(float)
    widths[-1] += max(total_steps - steps[-1], 0)
    return float(np.average(values, weights=widths) if widths.any() else values[-1])


def last_step(table: Table) -> int:
    """Return the last step of a table; 0 if it has no rows. Rows need not be in the order of their steps."""
    return max((step for points in table.values() for step, _ in points), default=0)


def total_steps(directory: Path) -> int:
    """Return the budget of a run, by its configuration; 0 if that cannot be read."""
    return _configured(directory, "total_steps") or 0


def seed(directory: Path) -> int | None:
    """Return the seed of a run, by its configuration; None if that cannot be read."""
    return _configured(directory, "seed")


def _configured(directory: Path, key: str) -> int | None:
    """Return a whole number of a run's configuration, which is searched as text: a YAML parser takes too long."""
    try:
        config = (directory / CONFIG).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    found = re.search(rf"^{key}: (\d+)$", config, re.MULTILINE)
    return int(found[1]) if found else None


def series(table: Table, name: str, window: int = 1) -> Series:
    """Return one quantity, each value the mean of the last `window` logged ones."""
    points = sorted(table.get(name, []), key=lambda point: point[0])
    steps, values = np.array([p[0] for p in points], dtype=int), np.array([p[1] for p in points])
    last = np.append(np.diff(steps) > 0, True)[: len(steps)]  # of several values at one step
    return Series(steps[last], trailing_mean(values[last], window))


def trailing_mean(values: Array, window: int) -> Array:
    """Return the means of the last `window` values, of fewer at the start; NaN where one of them is."""
    return np.array([values[max(0, end - window) : end].mean() for end in range(1, len(values) + 1)])


def horizontal(directory: Path, unit: str, seconds: Series) -> Callable[[Array], Array]:
    """Return what turns a run's steps into the unit of the horizontal axis."""
    if unit == "frames":
        try:
            config = (directory / CONFIG).read_text(encoding="utf-8")
        except OSError as e:
            why = "which says how many frames a step takes, cannot be read; use --x steps"
            raise Unreadable(f"{directory}/{CONFIG}, {why}") from e
        skip = re.search(r"^\s+frame_skip:\s*(\d+)", config, re.MULTILINE)
        frames = int(skip[1]) if skip else 1
        return lambda steps: steps * frames
    if unit == "minutes":
        if not len(seconds.steps) or not np.isfinite(seconds.values).all():
            raise Unreadable(f"{directory}/{TABLE} has no finite time/seconds; use --x steps")
        clock = from_start(seconds)
        return lambda steps: clock.at(steps) / 60
    return lambda steps: steps


def from_start(seconds: Series) -> Series:
    """Return the seconds that a run logged with those of its start, 0 at step 0."""
    return Series(np.append(0, seconds.steps), np.append(0.0, seconds.values))


# Merging over runs.


def merge(label: str, runs: list[Run]) -> list[Curve]:
    """Return the curves of the runs that share a label: training and evaluation.

    Of few runs each one's line is added to their mean, for evaluation or, without any, for training.
    """
    evaluation = merge_evaluation(label, [run.mean for run in runs], lambda steps: position(runs, steps))
    if evaluation and len(runs) == 1 and len(runs[0].std.steps):
        (curve,), std = evaluation, runs[0].std.at(shared([runs[0].mean])[0])
        evaluation = [curve._replace(low=curve.mean - std, high=curve.mean + std)]
    training = merge_training(label, runs)
    return [*(training[:1] if evaluation else training), *evaluation]


def merge_training(label: str, runs: list[Run]) -> list[Curve]:
    """Merge at every step that some run logged, from where all have begun to where the first ends."""
    logged = [run.train for run in runs]
    if not all(len(s.steps) for s in logged):
        return []
    first, last = max(s.steps[0] for s in logged), min(s.steps[-1] for s in logged)
    steps = np.unique(np.concatenate([s.steps for s in logged]))
    steps = steps[(steps >= first) & (steps <= last)]
    if len(steps) > MAX_POINTS:
        steps = steps[np.linspace(0, len(steps) - 1, MAX_POINTS).round().astype(int)]
    return _lines(label, TRAIN, position(runs, steps), [s.at(steps) for s in logged])


def merge_evaluation(
    label: str, evaluations: Sequence[Series], x: Callable[[Array], Array] = lambda steps: steps
) -> list[Curve]:
    """Merge at the steps where all runs were evaluated; nothing is interpolated."""
    steps, values = shared(evaluations)
    return _lines(label, EVAL, x(steps), values)


def _lines(label: str, kind: str, x: Array, values: Sequence[Array]) -> list[Curve]:
    """Return the mean over runs and, of few runs, each one's own line."""
    if not len(x):
        return []
    runs = len(values)
    each = [Curve(label, kind, x, v, v, v, runs, i) for i, v in enumerate(values)] if 1 < runs < BAND_RUNS else []
    return [Curve(label, kind, x, *mean_and_band(values), runs), *each]


def shared(evaluations: Sequence[Series]) -> tuple[Array, list[Array]]:
    """Return the steps where all runs were evaluated, and each run's values there."""
    steps = evaluations[0].steps
    for other in evaluations[1:]:
        steps = np.intersect1d(steps, other.steps)
    return steps, [e.values[np.isin(e.steps, steps)] for e in evaluations]


def position(runs: list[Run], steps: Array) -> Array:
    """Return where steps stand on the horizontal axis: minutes differ from run to run, so their mean is taken."""
    where: Array = np.mean([run.x(steps) for run in runs], axis=0)
    return where


# The numbers of a picture.


def write_merged(path: Path, unit: str, curves: Sequence[Curve]) -> None:
    """Write the numbers of a picture; the third column is named after the unit of its horizontal axis."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*HEADER.split(","), unit, "mean", "low", "high", "runs", "run"])
    for c in curves:
        run = "" if c.run is None else c.run
        for x, *y in zip(c.x, c.mean, c.low, c.high, strict=True):
            table.writerow([c.label, c.kind, f"{x:.10g}", *(f"{v:.6g}" for v in y), c.runs, run])
    write_whole(path, text.getvalue())


def read_merged(path: Path) -> tuple[str, list[Curve]]:
    """Read what `write_merged` wrote: the unit and the curves. Older files lack the lines of single runs.

    Raises:
        Unreadable: it is no such file.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            (_, _, unit, *_), *rows = csv.reader(file)
        grouped: dict[tuple[str, str, int, int | None], list[list[float]]] = {}
        for label, kind, *numbers, n, run in (row if len(row) == 8 else [*row, ""] for row in rows):
            key = (label, kind, int(n), int(run) if run else None)
            grouped.setdefault(key, []).append([float(number) for number in numbers])
        curves = []
        for (label, kind, runs, index), points in grouped.items():
            x, mean, low, high = np.array(points).T
            curves.append(Curve(label, kind, x, mean, low, high, runs, index))
        return UNITS[UNITS.index(unit)], curves
    except OSError as e:
        raise Unreadable(f"{path}: {e.strerror}") from e
    except (KeyError, TypeError, ValueError, csv.Error) as e:
        raise Unreadable(f"{path} is no CSV file that rlrun plot has written") from e
