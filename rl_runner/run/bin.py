"""Remove runs: they are moved to a bin on the same disk, and can be moved back."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from rl_runner.run.files import BIN, LOCK, OUTPUTS
from rl_runner.run.lock import flock, is_busy
from rl_runner.types import UserError


def move(runs: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Move runs to their bins; yield each one's old and new place. None is moved if one of them is being written.

    Raises:
        UserError: a process writes to one of them, or it cannot be moved.
    """
    with contextlib.ExitStack() as locks:
        for run in runs:
            if run.is_symlink():
                raise UserError(f"runs rm: {run} is a symbolic link; name the run itself")
            locks.enter_context(_locked(run))
        for run in runs:
            place = _place(run)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                os.rename(run, place)
            except OSError as e:
                raise UserError(f"runs rm: {run} cannot be moved to {place}: {e.strerror}") from e
            yield run, place


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Keep other processes out of a run, as far as there are locks.

    Raises:
        UserError: a process writes to it.
    """
    with contextlib.ExitStack() as stack:
        try:
            flock(stack.enter_context(open(run / LOCK, "a", encoding="utf-8")))
        except OSError as e:
            if is_busy(e):
                raise UserError(f"runs rm: {run} is being written by another process; nothing was moved") from e
        yield


def _place(run: Path) -> Path:
    """Return where a run goes: outputs/.bin/ENV/AGENT/RUN, or .bin/RUN beside a run that is not below outputs."""
    run = run.absolute()
    above = next((parent for parent in run.parents if parent.name == OUTPUTS), run.parent)
    place = above / BIN / run.relative_to(above)
    others = (place.with_name(f"{place.name}_{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([place], others) if not path.exists())
