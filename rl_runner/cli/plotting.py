"""`rlrun plot RUN ...`: draws learning curves as a picture, and writes the numbers drawn beside it."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_runner.report import curves, results, runs
from rl_runner.report.comparison import PICTURES
from rl_runner.run import notes
from rl_runner.run.files import NOTE
from rl_runner.types import UserError


def plot(options: argparse.Namespace) -> None:
    """Read the runs, write the numbers, draw them. A file of such numbers, in place of runs, is drawn again.

    Raises:
        UserError: nothing can be drawn, a word is wrong, or a file cannot be written.
    """
    names, picture = options.names, Path(options.out)
    if not names:
        raise UserError("plot: name runs, such as rlrun plot latest")
    if picture.suffix not in PICTURES:
        raise UserError(f"--out: must end in {', '.join(PICTURES)}, got {options.out!r}")
    if options.x not in curves.UNITS:
        raise UserError(f"--x: must be one of {', '.join(curves.UNITS)}, got {options.x!r}")
    try:
        from rl_runner.report import pictures
    except ImportError as e:
        raise UserError("plot: needs matplotlib: pip install 'rlrun[plot]'") from e
    try:
        again = len(names) == 1 and names[0].endswith(".csv")
        numbers = Path(names[0]) if again else picture.with_suffix(".csv")
        if not again:
            lines = _merged(names, options)
            picture.parent.mkdir(parents=True, exist_ok=True)
            curves.write_merged(numbers, options.x, lines)
        unit, lines = curves.read_merged(numbers)  # in any case, so that the file alone gives the same picture
        if not lines:
            raise UserError("plot: nothing to draw: the runs have no steps in common")
        ylabel = options.ylabel or options.metric or "Return"
        pictures.draw(lines, unit, picture, options.goal, options.goal_label, options.title or "", ylabel)
    except curves.Unreadable as e:
        raise UserError(f"plot: {e}") from e
    except OSError as e:
        raise UserError(f"--out: {e.filename or picture}: {e.strerror}") from e
    print(f"written to {picture}" if again else f"written to {picture} and {numbers}")


def _merged(names: Sequence[str], options: argparse.Namespace) -> list[curves.Curve]:
    """Read the runs and merge those that share a label."""
    groups: dict[str, list[curves.Run]] = {}
    labels = [label for label in (options.labels or "").split(",") if label]
    for label, directory in _labelled(names, labels):
        run = curves.read_run(directory, options.x, options.smooth, options.metric)
        groups.setdefault(label, []).append(run)
    lines = []
    for label, group in groups.items():
        lines += (found := curves.merge(label, group))
        if any(len(run.mean.steps) for run in group) and curves.EVAL not in {c.kind for c in found}:
            what = "its runs were evaluated at different steps; evaluations are left out"
            print(f"rlrun: {label}: {what}", file=sys.stderr)
    return lines


def _labelled(names: Sequence[str], labels: Sequence[str]) -> list[tuple[str, Path]]:
    """Return the label and the directory of each run.

    A job of a sweep is labelled by its configuration, another run by the directory that it is in. Of a sweep only jobs
    that have finished are drawn, unless they are named by themselves.

    Args:
        names: runs, or directories that they are in. Files among them, as `*` finds in a sweep, are left out.
        labels: one for each run, or one for all; none: as above.
    """
    found: list[tuple[str, Path]] = []
    unfinished: dict[Path, int] = {}  # of each sweep
    named = [name for name in names if Path(name).is_dir()] or names
    for run in runs.find(named):
        jobs = _jobs_of(run.parent) if (run / NOTE).is_file() else {}
        label, state = jobs.get(run, (run.resolve().parent.name, notes.FINISHED))
        if state == notes.FINISHED or run in map(Path, named):
            found.append((label, run))
        else:
            unfinished[run.parent] = unfinished.get(run.parent, 0) + 1
    for sweep, number in unfinished.items():
        print(f"rlrun: {sweep}: left out {number} jobs that have not finished", file=sys.stderr)
    if not labels:
        return found
    if len(labels) not in (1, len(found)):
        raise UserError(f"--labels: {len(labels)} for {len(found)} runs; give one for each run, or one for all")
    return [(labels[i % len(labels)], run) for i, (_, run) in enumerate(found)]


@functools.cache
def _jobs_of(sweep: Path) -> dict[Path, tuple[str, str]]:
    """Return the name of the configuration, and the state, of each job that began in a sweep."""
    names, _ = results.told(sweep)
    return {run: (names[run], note.state) for run, note in notes.of_sweep(sweep) if note}
