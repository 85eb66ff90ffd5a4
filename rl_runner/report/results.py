"""What the configurations of a sweep gave over their seeds.

A configuration is what its jobs were told, without the seed. Only runs that came to their end are counted. A seed that
ran again, in the same directory, counts once: its last finished run does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rl_runner.report import curves, runs
from rl_runner.report.curves import Series, Unreadable, area, final_evaluations, read_table, total_steps
from rl_runner.run import notes
from rl_runner.run.files import best_saved

NEVER_BEGAN = "have not begun"
MEASURES: dict[str, Callable[[Series, Path], float]] = {  # of the evaluations of a run, and its directory
    "last": lambda evaluations, _: float(evaluations.values[-1]),
    "best": lambda evaluations, run: max(float(evaluations.values.max()), best_saved(run)),
    "area": lambda evaluations, run: area(evaluations, total_steps(run)),
    "steps": lambda evaluations, _: float(evaluations.steps[-1]),
}


class Job(NamedTuple):
    """One run of a sweep."""

    overrides: list[str]
    seed: str  # empty: the default one, of a job that wrote no configuration
    state: str  # how it ended
    evaluations: Series | None = None  # of a run that finished
    run: Path = Path()  # the same run's directory

    @property
    def configuration(self) -> list[str]:
        """What it was told, without the seed."""
        return [word for word in self.overrides if not _is_seed(word)]


class Row(NamedTuple):
    """One configuration."""

    label: str  # what tells it from the other configurations
    overrides: list[str]  # all that its jobs were told
    jobs: dict[str, Job]  # by seed

    @property
    def settings(self) -> dict[str, str]:
        """The same by key."""
        return dict(map(setting, self.overrides))

    @property
    def evaluations(self) -> list[Series]:
        """Those of each finished run."""
        return [job.evaluations for job in self.jobs.values() if job.evaluations is not None]

    def measured(self, name: str) -> list[float]:
        """Return one of MEASURES for each finished run."""
        jobs = self.jobs.values()
        return [MEASURES[name](job.evaluations, job.run) for job in jobs if job.evaluations is not None]


def summarise(directory: Path, planned: Sequence[list[str]] = ()) -> list[Row]:
    """Return the configurations of a sweep, in the order in which they were planned or begun.

    Args:
        directory: the sweep's.
        planned: the overrides of all its jobs, so that those that never began are seen too.
    """
    begun = [_job(run, note) for run, note in notes.of_sweep(directory) if note]
    never = [Job(overrides, _typed_seed(overrides), NEVER_BEGAN) for overrides in planned]
    default = next((job.seed for job in begun if job.seed and not _typed_seed(job.overrides)), "")
    return _rows([job._replace(seed=job.seed or default) for job in (*never, *begun)])


def _rows(jobs: Sequence[Job]) -> list[Row]:
    found: dict[frozenset[str], dict[str, Job]] = {}
    for job in jobs:
        seeds = found.setdefault(frozenset(job.configuration), {})
        if job.seed not in seeds or job.evaluations is not None or seeds[job.seed].evaluations is None:
            seeds[job.seed] = job
    common = frozenset.intersection(*found) if len(found) > 1 else frozenset()
    rows = []
    for seeds in found.values():
        words = next(iter(seeds.values())).configuration
        rows.append(Row(" ".join(word for word in words if word not in common) or "defaults", words, seeds))
    return rows


def swept(rows: Sequence[Row]) -> list[str]:
    """Return the keys whose values differ, in the order of the command line."""
    keys = dict.fromkeys(key for row in rows for key in row.settings)
    return [key for key in keys if len({row.settings.get(key) for row in rows}) > 1]


def names(rows: Sequence[Row]) -> list[str]:
    """Return a short name for each configuration: the value alone where one key was swept."""
    keys = swept(rows)
    short = [row.settings.get(keys[0], "default") for row in rows] if len(keys) == 1 else []
    return short if len(set(short)) == len(rows) else [row.label for row in rows]


def told(directory: Path) -> tuple[dict[Path, str], list[str]]:
    """Return the name of the configuration of each job that began in a sweep, and the keys that were swept."""
    begun = {run: _begun(run, note) for run, note in notes.of_sweep(directory) if note}
    rows = _rows(list(begun.values()))
    name = dict(zip([frozenset(row.overrides) for row in rows], names(rows), strict=True))
    return {run: name[frozenset(job.configuration)] for run, job in begun.items()}, swept(rows)


def _begun(run: Path, note: notes.Note) -> Job:
    seed = curves.seed(run)
    return Job(note.overrides, _typed_seed(note.overrides) if seed is None else str(seed), note.state)


def _job(run: Path, note: notes.Note) -> Job:
    job = _begun(run, note)
    if job.state != notes.FINISHED:
        return job
    if changed := runs.changed_keys(run):
        return job._replace(state=f"had {', '.join(changed)} changed at a resume")
    try:
        table = read_table(run)
    except Unreadable:
        return job._replace(state="left no readable table")
    try:
        return job._replace(evaluations=final_evaluations(run, table), run=run)
    except Unreadable as e:
        return job._replace(state=str(e))


def setting(word: str) -> tuple[str, str]:
    """Return the key and the value of an override."""
    if word.startswith("~"):
        return word[1:].partition("=")[0], "removed"
    key, _, value = word.lstrip("+").partition("=")
    return key, value


def _typed_seed(overrides: Sequence[str]) -> str:
    """Return the seed that a job was told, without leading zeros; empty: the default one."""
    typed = next((word.partition("=")[2] for word in reversed(overrides) if _is_seed(word)), "")
    return str(int(typed)) if typed.isdecimal() else typed


def _is_seed(word: str) -> bool:
    return word.lstrip("+").startswith("seed=")
