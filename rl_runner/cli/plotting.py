"""`rlrun plot RUN ...`: draws learning curves as a picture, and writes the numbers drawn beside it."""

from __future__ import annotations

import argparse
import functools
import glob
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from rl_runner.report import curves, results, runs
from rl_runner.report.comparison import PICTURES
from rl_runner.run import notes
from rl_runner.run.files import NOTE
from rl_runner.run.terminal import counted
from rl_runner.types import UserError

OF_RUNS = ("x", "metric", "labels", "smooth")  # options that say what is read from runs


def plot(options: argparse.Namespace) -> None:
    """Read the runs, write the numbers, draw them. A file of such numbers, in place of runs, is drawn again.

    Raises:
        UserError: nothing can be drawn, a word is wrong, or a file cannot be written.
    """
    picture, unit = Path(options.out), options.x or "steps"
    names = [name for name in options.names if not Path(name).is_file()] or options.names  # `*` finds files in a sweep
    labels = [label for label in (options.labels or "").split(",") if label]
    if not names:
        raise UserError("plot: name runs, such as rlrun plot latest")
    if picture.suffix not in PICTURES:
        raise UserError(f"--out: must end in {', '.join(PICTURES)}, got {options.out!r}")
    if unit not in curves.UNITS:
        raise UserError(f"--x: must be one of {', '.join(curves.UNITS)}, got {options.x!r}")
    again = len(names) == 1 and names[0].endswith(".csv")
    if again and (given := [f"--{name}" for name in OF_RUNS if getattr(options, name) is not None]):
        raise UserError(f"{given[0]}: is for runs, and {names[0]} is a file of numbers that were drawn before")
    if len(labels) > 1 and len(labels) != len(names):
        number = counted(len(names), "name")
        raise UserError(f"--labels: got {len(labels)} for {number}; give one for each, or one for all")
    try:
        from rl_runner.report import pictures
    except ImportError as e:
        raise UserError("plot: needs matplotlib: pip install 'rlrun[plot]'") from e
    try:
        numbers = Path(names[0]) if again else picture.with_suffix(".csv")
        if not again:
            lines = _merged(_read(_found(names), labels, options))
            _refuse_another_file(numbers)
            picture.parent.mkdir(parents=True, exist_ok=True)
            curves.write_merged(numbers, unit, lines)
        unit, lines = curves.read_merged(numbers)  # in any case, so that the file alone gives the same picture
        if not lines:
            raise curves.Unreadable(f"{numbers} holds no curves")
        if len({line.label for line in lines}) > pictures.MAX_CURVES:
            _say(f"more than {pictures.MAX_CURVES} labels: colours repeat")
        ylabel = options.ylabel or options.metric or "Return"
        pictures.draw(lines, unit, picture, options.goal, options.goal_label, options.title or "", ylabel)
    except curves.Unreadable as e:
        raise UserError(f"plot: {e}") from e
    except OSError as e:
        raise UserError(f"--out: {e.filename or picture}: {e.strerror}") from e
    print(f"written to {picture}" if again else f"written to {picture} and {numbers}")


def _refuse_another_file(numbers: Path) -> None:
    """Check that no other table is replaced by the numbers: RUN/metrics.png would take the place of RUN/metrics.csv."""
    if numbers.exists():
        with open(numbers, encoding="utf-8", errors="replace") as file:
            first = file.readline()
        if first and not first.startswith(curves.HEADER):
            raise UserError(f"--out: {numbers} exists, and rlrun plot has not written it; choose another name")


class Found(NamedTuple):
    """A run that was found."""

    path: Path
    name: int  # the number of the name that led to it
    itself: bool  # it was named by itself, not by a directory above it


def _found(names: Sequence[str]) -> list[Found]:
    """Return the runs that the names lead to, each once.

    Of a sweep only jobs that have finished are returned, unless they are named by themselves.
    """
    found: dict[Path, Found] = {}  # by the real path: one directory may be named in two ways
    for i, name in enumerate(names):
        themselves = {Path(name), *map(Path, glob.glob(name))}
        for run in runs.find([name]):
            itself = run in themselves or (name == "latest" and not Path(name).exists())
            earlier = found.get(run.resolve(), Found(run, i, itself))
            found[run.resolve()] = earlier._replace(itself=earlier.itself or itself)
    drawn = [run for run in found.values() if run.itself or _job(run.path)[1] == notes.FINISHED]
    left_out = Counter(run.path.parent for run in found.values() if run not in drawn)
    for sweep, number in left_out.items():
        _say(f"{sweep}: jobs left out because they have not finished: {number}")
    return drawn


def _read(found: Sequence[Found], labels: Sequence[str], options: argparse.Namespace) -> dict[str, list[curves.Run]]:
    """Return the runs by their labels. One that cannot be read is left out, unless it was named by itself.

    Args:
        found: the runs.
        labels: one for each name, or one for all; none: see `_labels`.
        options: what is read of a run.

    Raises:
        Unreadable: a run that was named by itself cannot be read, or no run can.
    """
    usual = _labels([run.path for run in found])
    groups: dict[str, list[curves.Run]] = {}
    for run in found:
        try:
            read = curves.read_run(run.path, options.x or "steps", options.smooth or 1, options.metric)
        except curves.Unreadable as e:
            if run.itself:
                raise
            _say(f"left out: {e}")
            continue
        groups.setdefault(labels[run.name % len(labels)] if labels else usual[run.path], []).append(read)
    if not groups:
        raise curves.Unreadable("nothing to draw: no run that is named has finished or can be read")
    return groups


def _merged(groups: dict[str, list[curves.Run]]) -> list[curves.Curve]:
    """Return the curves of each label.

    Raises:
        Unreadable: there are none.
    """
    lines = []
    for label, group in groups.items():
        lines += (found := curves.merge(label, group))
        if any(len(run.mean.steps) for run in group) and curves.EVAL not in {c.kind for c in found}:
            _say(f"{label}: its runs were evaluated at different steps; evaluations are left out")
    if not lines:
        raise curves.Unreadable("nothing to draw: the runs have no steps in common")
    return lines


def _labels(found: Sequence[Path]) -> dict[Path, str]:
    """Return a label for each run: of a sweep's job its configuration, of another run the directory that it is in.

    Where the runs are in several directories of one name, or are jobs of several sweeps, the names of the directories
    say which.
    """
    jobs = {run: name for run in found if (name := _job(run)[0])}
    sweeps = _told_apart({run.resolve().parent for run in jobs})
    places = _told_apart({run.resolve().parent for run in found if run not in jobs})
    labels = {run: places[run.resolve().parent] for run in found if run not in jobs}
    for run, name in jobs.items():
        labels[run] = f"{sweeps[run.resolve().parent]}: {name}" if len(sweeps) > 1 else name
    return labels


def _told_apart(directories: Collection[Path]) -> dict[Path, str]:
    """Return for each directory the last parts of its path, as few as tell all of them apart."""
    depth, names = 0, dict[Path, str]()
    while len(set(names.values())) < len(directories):
        depth += 1
        names = {directory: "/".join(directory.parts[-depth:]) for directory in directories}
    return names


def _job(run: Path) -> tuple[str, str]:
    """Return the name of the configuration and the state of a run that is a sweep's job; no name for other runs."""
    return (_jobs_of(run.parent) if (run / NOTE).is_file() else {}).get(run, ("", notes.FINISHED))


@functools.cache
def _jobs_of(sweep: Path) -> dict[Path, tuple[str, str]]:
    """Return the name of the configuration, and the state, of each job that began in a sweep."""
    names, _ = results.told(sweep)
    return {run: (names[run], note.state) for run, note in notes.of_sweep(sweep) if note}


def _say(line: str) -> None:
    print(f"rlrun: {line}", file=sys.stderr)
