"""The end of `rlrun train -m`: what each configuration gave over its seeds, as a table, a CSV file and a picture.

Runs that did not come to their end are not in the numbers; each of them is named.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from rl_runner.report.curves import Curve, merge_evaluation
from rl_runner.report.results import MEASURES, NEVER_BEGAN, Row, names, summarise, swept
from rl_runner.report.stats import LEAST_RUNS, mean_and_ci
from rl_runner.report.tables import Column, places, print_fitted, print_words
from rl_runner.run import notes
from rl_runner.run.files import NOTE
from rl_runner.run.terminal import make_console

RETURNS = ("last", "best", "area")
EXPENDABLE = ("steps", "best", "area")  # columns that a narrow terminal does without, the first one first
CAPTION = """\
raw returns; ±: 95 % confidence interval of the mean over 3 or more seeds (Student's t)
last: the evaluation at a run's end, the number to trust, unless stop.eval_return ended the run
best: a run's highest evaluation, chosen afterwards, so it is biased upwards
area: mean return over a run's budget (area under its curve): how fast it learned"""


def report(directory: Path, planned: Sequence[list[str]] = ()) -> None:
    """Print the table of a sweep; write it as `results.csv`, and as `results.png` where matplotlib is installed."""
    rows = summarise(directory, planned)
    if all(job.state == NEVER_BEGAN for row in rows for job in row.jobs.values()):
        return
    console = make_console()
    _show(console, directory, rows)
    try:
        _write(directory / "results.csv", rows)
        said = f"written to {directory}/results.csv"
        if any(row.evaluations for row in rows):
            draw(directory / "results.png", rows, f"{directory.name}: {_common(rows)}")
            said += " and results.png"
    except ImportError:
        said += "; for a picture too: pip install 'rlrun[plot]'"
    except OSError as e:
        said = f"{e.filename or directory} cannot be written: {e.strerror}"
    console.print(said, markup=False)


def show(directory: Path, planned: Sequence[list[str]] = ()) -> None:
    """Print the table of a sweep, as far as it has come."""
    if rows := summarise(directory, planned):
        _show(make_console(), directory, rows)


def _show(console: Console, directory: Path, rows: Sequence[Row]) -> None:
    planned = sum(len(row.jobs) for row in rows)
    finished = sum(len(row.evaluations) for row in rows)
    console.print(f"\n{directory}: {finished} of {planned} runs finished", markup=False)
    print_words(console, f"all with {_common(rows)}")
    if finished:
        _show_table(console, rows)
    for row in rows:
        for line in _missing(row):
            console.print(Text(f"{row.label}: {line}" if len(rows) > 1 else line, style="red"))
    for run, note in notes.of_sweep(directory):
        if note is None:
            console.print(Text(f"{run} left no readable note ({NOTE}), not in the numbers", style="red"))
    if finished:
        print_words(console, CAPTION, style="dim")


def _common(rows: Sequence[Row]) -> str:
    """Return what all jobs were told, except for the seed."""
    return " ".join(word for word in rows[0].overrides if all(word in row.overrides for row in rows)) or "the defaults"


def _show_table(console: Console, rows: Sequence[Row]) -> None:
    """Print a table with one column for each swept key, as far as the width allows."""
    keys = [Column(key, [row.settings.get(key, "default") for row in rows]) for key in swept(rows)]
    largest = max(map(_largest, rows))
    cells = zip(*(_cells(row, largest) for row in rows), strict=True)
    numbers = [Column(name, _aligned(column)) for name, column in zip(("seeds", *MEASURES), cells, strict=True)]
    print_fitted(console, keys, numbers, EXPENDABLE, "results.csv")


def _aligned(cells: Sequence[str]) -> list[str]:
    """Set the ± of a column, where there are some, below each other."""
    width = max(len(cell.partition("±")[2]) for cell in cells)
    return [f"{mean}{sign}{half:>{width}}" for mean, sign, half in (cell.partition("±") for cell in cells)]


def _largest(row: Row) -> float:
    return max((abs(value) for name in RETURNS for value in row.measured(name)), default=0.0)


def _cells(row: Row, largest: float) -> list[str]:
    """Return the cells of a row, rounded to four digits of the largest return in the table."""
    finished, all_of_them = len(row.evaluations), len(row.jobs)
    seeds = str(finished) if finished == all_of_them else f"{finished} of {all_of_them}"
    if not finished:
        return [seeds, *("-" for _ in MEASURES)]
    scale = largest if _largest(row) > largest / 100 else _largest(row)
    digits = places([scale])
    return [seeds, *(_cell(row.measured(name), digits) for name in RETURNS), _steps(row)]


def _cell(values: Sequence[float], digits: int) -> str:
    mean, half = mean_and_ci(values)
    return f"{mean:,.{digits}f} ± {f'{half:,.{digits}f}' if len(values) >= LEAST_RUNS else '-'}"


def _steps(row: Row) -> str:
    steps = row.measured("steps")
    return f"{steps[0]:,.0f}" if len(set(steps)) == 1 else _cell(steps, 0)


def _missing(row: Row) -> Iterator[str]:
    """Name the runs that are not in the numbers."""
    states = dict.fromkeys(job.state for job in row.jobs.values() if job.evaluations is None)
    for state in states:
        seeds = [seed for seed, job in row.jobs.items() if job.state == state]
        which = f": {', '.join(seeds)}" if all(seeds) else ""  # a job that was told no seed has none to name
        yield f"{len(seeds)} of {len(row.jobs)} seeds {state}, not in the numbers{which}"


def _write(path: Path, rows: Sequence[Row]) -> None:
    columns = [f"{name}_{part}" for name in MEASURES for part in ("mean", "ci95")]
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["configuration", "overrides", "seeds", "seeds_missing", *columns])
        for row in rows:
            seeds = len(row.evaluations)
            cells: list[str] = []
            for name in MEASURES:
                mean, half = mean_and_ci(row.measured(name)) if seeds else (math.nan, math.nan)
                cells += [f"{mean:.10g}" if seeds else "", f"{half:.10g}" if seeds >= LEAST_RUNS else ""]
            table.writerow([row.label, " ".join(row.overrides), seeds, len(row.jobs) - seeds, *cells])


def draw(path: Path, rows: Sequence[Row], title: str) -> None:
    """Draw the last evaluations, the best configuration first, and the learning curves where they can be told apart.

    Raises:
        ImportError: there is no matplotlib.
    """
    from rl_runner.report import pictures

    keys, scores, curves = swept(rows), dict[str, list[float]](), list[Curve]()
    order = names(rows)
    for row, name in sorted(zip(rows, order, strict=True), key=lambda pair: _last(pair[0]), reverse=True):
        scores[name] = row.measured("last")
        if row.evaluations and len(rows) <= pictures.MAX_CURVES:
            curves += merge_evaluation(name, row.evaluations)
    pictures.compare(path, curves, scores, title, keys[0] if len(keys) == 1 else "configuration", order=order)


def _last(row: Row) -> float:
    """Return the mean of the last evaluations, by which rows are sorted; those without any come last."""
    values = row.measured("last")
    return sum(values) / len(values) if values else -math.inf
