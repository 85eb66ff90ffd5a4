"""How the jobs of a sweep stand, while it runs or later. Only notes and metrics are read, so from any process."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from rl_runner.report.curves import Unreadable, last_step, read_table, series, total_steps
from rl_runner.report.tables import Column, fitted, stacked
from rl_runner.run import notes
from rl_runner.run.files import LOG, TABLE, modified
from rl_runner.run.terminal import duration, make_console

STATES = {notes.UNFINISHED: "running", notes.INTERRUPTED: "interrupted", notes.PRUNED: "pruned"}  # of one job, in short
FIRST = ("running", "silent", notes.FAILED, "interrupted")  # of the states in the table; the others follow
SILENT = 600  # seconds without a sign of a running job, after which its process may be dead
EXPENDABLE = ("left", "evaluation")  # columns that a narrow terminal does without, the first one first


class Standing(NamedTuple):
    """How a job stands."""

    name: str
    state: str
    step: int
    total: int | None  # steps of the whole run; None: unknown
    evaluation: float  # mean return of the last one; NaN: there was none
    left: float | None  # seconds of a running job; None: unknown


class Standings:
    """Reads how the jobs of a sweep stand; what has not changed is read once.

    Args:
        directory: the sweep's.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[Path, tuple[tuple[float, str], Standing]] = {}  # with the time and state it was read at

    def now(self) -> list[Standing]:
        """Return the jobs that have begun, newest first."""
        return [self._standing(run, note) for run, note in notes.of_sweep(self._directory) if note][::-1]

    def _standing(self, run: Path, note: notes.Note) -> Standing:
        written = max(modified(run / TABLE), modified(run / LOG))
        key = (written, note.state)
        if run not in self._read or self._read[run][0] != key:
            self._read[run] = key, standing(run, note)
        found = self._read[run][1]
        since = time.time() - written
        if found.state == "running" and since > SILENT:
            return found._replace(state="silent", left=None)
        return found if found.left is None else found._replace(left=max(found.left - since, 0.0))


def standing(run: Path, note: notes.Note) -> Standing:
    """Return how a job stood when its metrics were last written."""
    try:
        table = read_table(run)
    except Unreadable:
        table = {}
    step = last_step(table)
    evaluations, seconds = series(table, "eval/return_mean"), series(table, "time/seconds")
    total, state = total_steps(run) or None, STATES.get(note.state, note.state)
    left = None
    if state == "running" and total and len(seconds.steps) and seconds.steps[-1] > 0:
        left = float(seconds.values[-1] / seconds.steps[-1] * (total - seconds.steps[-1]))
    last = float(evaluations.values[-1]) if len(evaluations.steps) else math.nan
    return Standing(run.name, state, step, total, last, left)


def table(jobs: Sequence[Standing], directory: Path, planned: int, width: int, height: int) -> RenderableType:
    """Return a table of jobs: those that run come first, and as many others as have room.

    Args:
        jobs: as `Standings.now` returns them.
        directory: the sweep's.
        planned: how many jobs there will be; 0: unknown.
        width: in characters.
        height: in lines.
    """
    counts = Counter(job.state for job in jobs)
    told = [f"{count} {state}" for state, count in counts.items()]
    told += [f"{planned - len(jobs)} to come"] if planned > len(jobs) else []
    ordered = sorted(jobs, key=_order)
    shown = ordered[: max(height - 7, 1)]
    keys = [Column("job", [job.name for job in shown]), Column("state", [job.state for job in shown])]
    numbers = [
        Column("step", [f"{job.step:,}" + (f" of {job.total:,}" if job.total else "") for job in shown]),
        Column("evaluation", ["-" if math.isnan(job.evaluation) else f"{job.evaluation:,.2f}" for job in shown]),
        Column("left", ["-" if job.left is None else duration(job.left) for job in shown]),
    ]
    rows: list[RenderableType] = []
    if shown:
        fitting, _ = fitted(keys, numbers, width, EXPENDABLE)
        rows += [fitting] if fitting else [Text("\n".join(stacked(keys, numbers)))]
    rows += [Text(f"and {len(ordered) - len(shown)} more")] if len(ordered) > len(shown) else []
    return Group(Text(f"{directory}: {', '.join(told) or 'no job has begun'}"), *rows)


def _order(job: Standing) -> int:
    return FIRST.index(job.state) if job.state in FIRST else len(FIRST)


@contextlib.contextmanager
def shown(directory: Path, planned: int = 0) -> Iterator[None]:
    """Show the table on a terminal, as it changes; elsewhere show nothing."""
    if not sys.stdout.isatty():
        yield
        return
    console, standings = make_console(), Standings(directory)

    def now() -> RenderableType:
        return table(standings.now(), directory, planned, console.width, console.height)

    with Live(console=console, get_renderable=now, refresh_per_second=1, transient=True):
        yield


def show(directory: Path, follow: bool) -> None:
    """Print the table; with `follow`, as long as jobs run, as it changes."""
    standings = Standings(directory)
    if follow:
        with contextlib.suppress(KeyboardInterrupt), shown(directory):
            while any(job.state == "running" for job in standings.now()):
                time.sleep(1)
    console = make_console()
    console.print(table(standings.now(), directory, 0, console.width, sys.maxsize))
