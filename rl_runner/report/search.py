"""The end of a search: its trials as a table and a CSV file, what mattered, and the command that uses the best one."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from rl_runner.report.tables import Column, fitted, stacked
from rl_runner.run.terminal import make_console

SHOWN = 10  # trials in the table; trials.csv has all
LEAST_TRIALS = 10  # finished ones, below which the importances say little


class Trial(NamedTuple):
    """One configuration that was tried."""

    number: int
    state: str  # finished, pruned, unfinished or failed
    value: float | None  # the mean over its seeds; of a pruned trial the last evaluation of its first seed
    steps: int  # of all its seeds
    params: dict[str, str]


def show(
    directory: Path, trials: Sequence[Trial], measure: str, importances: Mapping[str, float], command: str | None
) -> None:
    """Print what a search has found, and write `trials.csv` and, where matplotlib is installed, `importance.png`.

    Args:
        directory: the search's.
        trials: the best one first.
        measure: what they were judged by.
        importances: share of each key.
        command: trains with the best configuration; None: there is none.
    """
    if not trials:
        return
    console = make_console()
    counts = Counter(trial.state for trial in trials)
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    steps = sum(trial.steps for trial in trials)
    console.print(f"\n{directory}: {len(trials)} trials: {told}; {steps:,} steps", markup=False)
    names = list(dict.fromkeys(key for trial in trials for key in trial.params))
    _show_table(console, trials[:SHOWN], names, measure)
    _write(directory / "trials.csv", trials, names, measure)
    written = "trials.csv"
    if importances:
        few = counts["finished"] < LEAST_TRIALS
        shares = ", ".join(f"{key} {share:.0%}" for key, share in importances.items())
        console.print(f"importance: {shares}{' (of few trials, so it says little)' if few else ''}", markup=False)
        written += _draw(directory / "importance.png", importances, counts["finished"])
    console.print(f"written to {directory}: {written}", markup=False)
    if counts["unfinished"]:
        console.print(f"continue with:  the same command and hydra.sweep.dir={directory}", markup=False)
    if command:
        console.print(f"train with the best:  {command}", markup=False)


def _show_table(console: Console, trials: Sequence[Trial], names: Sequence[str], measure: str) -> None:
    keys = [Column("trial", [str(trial.number) for trial in trials])]
    keys += [Column(name, [short(trial.params.get(name, "-")) for trial in trials]) for name in names]
    numbers = [
        Column("state", [trial.state for trial in trials]),
        Column(measure, ["-" if trial.value is None else f"{trial.value:,.2f}" for trial in trials]),
        Column("steps", [f"{trial.steps:,}" for trial in trials]),
    ]
    table, _ = fitted(keys, numbers, console.width, ("steps",))
    for line in [table] if table else stacked(keys, numbers):
        console.print(line, markup=False)


def short(value: str) -> str:
    """Return a value as a table shows it: a number with four digits."""
    try:
        return value if value.lstrip("+-").isdigit() else f"{float(value):.4g}"
    except ValueError:
        return value


def _write(path: Path, trials: Sequence[Trial], names: Sequence[str], measure: str) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["trial", "state", measure, "steps", *names])
        for trial in sorted(trials):
            value = "" if trial.value is None else f"{trial.value:.10g}"
            table.writerow([trial.number, trial.state, value, trial.steps, *(trial.params.get(n, "") for n in names)])


def _draw(path: Path, importances: Mapping[str, float], trials: int) -> str:
    """Draw the importances; return what to say of it."""
    try:
        from rl_runner.report import pictures
    except ImportError:
        return "; for a picture too: pip install 'rlrun[plot]'"
    pictures.bars(path, importances, "Importance (PED-ANOVA)", f"{path.parent.name}: {trials} finished trials")
    return f", {path.name}"
