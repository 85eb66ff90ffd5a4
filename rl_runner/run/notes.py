"""The jobs of a sweep: each notes in its directory what it was told and how it ended.

The table of results, the report of failures and the resume of a sweep are made from these notes, whichever launcher ran
the jobs and however their processes ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rl_runner.run.files import BIN, CURVES, EPISODES, EVALUATIONS, LOG, NOTE, TABLE, modified, read_json, write_whole
from rl_runner.types import UserError, one_line

if TYPE_CHECKING:
    from rl_runner.run.directory import RunDirectory

FINISHED, FAILED, UNFINISHED, INTERRUPTED = "finished", "failed", "did not finish", "were interrupted"
PRUNED = "were pruned"  # by a search, before their end
ENDED = (FINISHED, PRUNED)  # nothing is left to do


class Note(NamedTuple):
    """What a job was told and how it ended."""

    overrides: list[str]
    state: str
    error: str = ""  # one line, of a job that failed


@dataclass
class Ending:
    """The state in which a job that raised nothing ends."""

    state: str = FINISHED


class Failure(NamedTuple):
    """Why a job failed, as text: the exception itself would keep all that the job held in memory."""

    line: str
    trace: str | None = None  # of a bug; None where the line says it all
    exit_code: int = 2


def failure_of(e: Exception) -> Failure:
    """Return an exception's own words."""
    return Failure(one_line(e))


# Writing.


@contextlib.contextmanager
def noted(
    run: Path, overrides: Sequence[str], explain: Callable[[Exception], Failure] = failure_of
) -> Iterator[Ending]:
    """Note in a job's directory what it was told and, at its end, how it ended: as the yielded object says.

    Args:
        run: the job's directory.
        overrides: what it was told.
        explain: says in one line why it failed; that is noted, and added to the job's log.
    """
    run = run.absolute()  # an environment may change the working directory
    _write(run, overrides, UNFINISHED)  # stays where the process is killed
    ending = Ending()
    try:
        yield ending
    except Exception as e:
        failure = explain(e)
        _write(run, overrides, FAILED, failure.line)
        with contextlib.suppress(OSError), open(run / LOG, "a", encoding="utf-8") as log:
            log.write(f"{failure.trace or ''}failed: {failure.line}\n")
        raise
    except BaseException:
        _write(run, overrides, INTERRUPTED)
        raise
    _write(run, overrides, ending.state)


def resumed(run: Path) -> contextlib.AbstractContextManager[Ending | None]:
    """Note the same of a run that is resumed by its name, if it was a job of a sweep."""
    note = read(run)
    return noted(run, note.overrides) if note else contextlib.nullcontext()


def _write(run: Path, overrides: Sequence[str], state: str, error: str = "") -> None:
    note = {"overrides": list(overrides), "state": state, **({"error": error} if error else {})}
    write_whole(run / NOTE, json.dumps(note, indent=1) + "\n")


# Reading.


def read(run: Path) -> Note | None:
    """Return the note in a directory; None if there is none that can be read."""
    try:
        note = read_json(run / NOTE)
        overrides, state, error = note["overrides"], note["state"], note.get("error", "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    texts = isinstance(overrides, list) and all(isinstance(text, str) for text in [*overrides, state, error])
    return Note(overrides, state, error) if texts else None


def of_sweep(sweep: Path) -> Iterator[tuple[Path, Note | None]]:
    """Yield the directory of each job that began in a sweep and its note, None if it cannot be read; oldest first."""
    noted = []
    for directory, inner, files in os.walk(sweep):
        if NOTE in files:
            noted.append(Path(directory))
            inner.clear()
        inner[:] = [name for name in inner if name != BIN]
    yield from ((run, read(run)) for run in sorted(noted, key=lambda run: modified(run / NOTE)))


# Resuming a sweep.


def find(sweep: Path, own: Path, overrides: Sequence[str], ended_only: bool = False) -> tuple[Path, str]:
    """Return the directory and the state of the job of a sweep that was told the same; of several the one that ended.

    Args:
        sweep: the sweep's directory.
        own: the directory that a new job gets.
        overrides: what it is told.
        ended_only: in other directories than `own`, look for jobs that ended only.

    Returns:
        `own` and an empty state if there is no such job.
    """
    runs = {own, *(path.parent for path in sweep.glob(f"*/{NOTE}"))}
    same = [(run, note.state) for run in runs if (note := read(run)) and sorted(note.overrides) == sorted(overrides)]
    same = [(run, state) for run, state in same if run == own or state in ENDED or not ended_only]
    newest_last = sorted(same, key=lambda job: (job[1] in ENDED, modified(job[0] / NOTE)))
    return newest_last[-1] if newest_last else (own, "")


def claim(path: Path, known: bool) -> RunDirectory:
    """Claim the directory of a job.

    Args:
        path: the directory.
        known: an earlier attempt at the job is there; otherwise another name is taken where this one is not free.

    Raises:
        UserError: another process is at the job, or what it wrote is there without its configuration.
    """
    from rl_runner.run.directory import RunDirectory

    run = RunDirectory(path)
    if known and run.config.is_file():
        return RunDirectory.resumed(str(path))
    if known and run.holds_a_run():
        raise UserError(
            f"hydra.run.dir: {path} holds a run without its {run.config.name}; put it back, or choose another directory"
        )
    run = RunDirectory.new(path)
    if known and run.path != path:
        run.discard()
        raise UserError(f"{path} is in use by another process")
    return run


def has_checkpoint(run: RunDirectory) -> bool:
    """Return whether a run can be resumed."""
    return run.config.is_file() and any(run.checkpoints.glob("step_*"))


def clear(run: RunDirectory) -> None:
    """Remove what a run wrote that begins again, since it left no checkpoint; its log stays."""
    for file in (TABLE, EPISODES, EVALUATIONS):
        (run.path / file).unlink(missing_ok=True)
    for directory in (run.path / CURVES, run.checkpoints):
        shutil.rmtree(directory, ignore_errors=True)
