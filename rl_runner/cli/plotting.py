"""`rlrun plot RUN ...`: draws learning curves as a picture, and writes the numbers drawn beside it."""

from __future__ import annotations

import argparse
import functools
import glob
import sys
from collections.abc import Sequence
from pathlib import Path

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
    names, picture, unit = options.names, Path(options.out), options.x or "steps"
    if not names:
        raise UserError("plot: name runs, such as rlrun plot latest")
    if picture.suffix not in PICTURES:
        raise UserError(f"--out: must end in {', '.join(PICTURES)}, got {options.out!r}")
    if unit not in curves.UNITS:
        raise UserError(f"--x: must be one of {', '.join(curves.UNITS)}, got {options.x!r}")
    again = len(names) == 1 and names[0].endswith(".csv")
    if again and (given := [f"--{name}" for name in OF_RUNS if getattr(options, name) is not None]):
        raise UserError(f"{given[0]}: is for runs, and {names[0]} is a file of numbers that were drawn before")
    try:
        from rl_runner.report import pictures
    except ImportError as e:
        raise UserError("plot: needs matplotlib: pip install 'rlrun[plot]'") from e
    try:
        numbers = Path(names[0]) if again else picture.with_suffix(".csv")
        if not again:
            lines = _merged(_read(_found(names), options))
            _refuse_another_file(numbers)
            picture.parent.mkdir(parents=True, exist_ok=True)
            curves.write_merged(numbers, unit, lines)
        unit, lines = curves.read_merged(numbers)  # in any case, so that the file alone gives the same picture
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
        try:
            curves.read_merged(numbers)
        except curves.Unreadable as e:
            raise UserError(f"--out: {numbers} exists, and rlrun plot has not written it; choose another name") from e


def _found(names: Sequence[str]) -> dict[str, list[Path]]:
    """Return the runs that each name leads to, each run once.

    Files among the names, as `*` finds in a sweep, are left out. Of a sweep only jobs that have finished are drawn,
    unless they are named by themselves.
    """
    found: dict[str, list[Path]] = {}
    seen: set[Path] = set()
    unfinished: dict[Path, int] = {}  # of each sweep
    for name in [name for name in names if not Path(name).is_file()] or names:
        themselves = {Path(name), *map(Path, glob.glob(name))}
        found[name] = []
        for run in runs.find([name]):
            if run.resolve() in seen:
                continue
            seen.add(run.resolve())
            if _job(run)[1] == notes.FINISHED or run in themselves or name == "latest":
                found[name].append(run)
            else:
                unfinished[run.parent] = unfinished.get(run.parent, 0) + 1
    for sweep, number in unfinished.items():
        _say(f"{sweep}: left out {counted(number, 'job')} that did not finish")
    return found


def _read(found: dict[str, list[Path]], options: argparse.Namespace) -> dict[str, list[curves.Run]]:
    """Return the runs by their labels. One that cannot be read is left out, unless it was named by itself.

    Raises:
        UserError: there are as many labels as fit neither the names nor all of them.
        Unreadable: a run that was named by itself, or all runs.
    """
    labels = [label for label in (options.labels or "").split(",") if label]
    if len(labels) > 1 and len(labels) != len(found):
        raise UserError(f"--labels: got {len(labels)} for {len(found)} names; give one for each, or one for all")
    usual = _labels([run for inside in found.values() for run in inside])
    groups: dict[str, list[curves.Run]] = {}
    for i, inside in enumerate(found.values()):
        for directory in inside:
            try:
                run = curves.read_run(directory, options.x or "steps", options.smooth or 1, options.metric)
            except curves.Unreadable as e:
                if inside == [directory]:
                    raise
                _say(f"left out: {e}")
                continue
            groups.setdefault(labels[i % len(labels)] if labels else usual[directory], []).append(run)
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
    """Return a label for each run: of a sweep's job its configuration, else the directory that the run is in.

    Where several directories have the same name, that of the directory above is put before it.
    """
    places = {run.resolve().parent for run in found}
    names = [place.name for place in places]
    labels = {}
    for run in found:
        above = run.resolve().parent
        directory = above.name if names.count(above.name) == 1 else f"{above.parent.name}/{above.name}"
        labels[run] = _job(run)[0] or directory
    return labels


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
