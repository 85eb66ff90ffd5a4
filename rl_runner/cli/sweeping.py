"""`rlrun sweep DIR`: how the jobs of a sweep stand. Does not need torch."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from rl_runner.types import UserError


def show(names: list[str]) -> None:
    """Show the sweep that is named.

    Raises:
        UserError: there is none.
    """
    if len(names) != 1:
        raise UserError("sweep: name one directory, such as rlrun sweep outputs/sweeps")
    directory = _sweep(Path(names[0]))
    from rl_runner.report import live, sweep

    live.show(directory, follow=sys.stdout.isatty())
    best = directory / "best"
    if best.is_dir():
        command = ["rlrun", "train", "--config-dir", str(best), "experiment=best"]
        print(f"a search; its trials: {directory / 'trials.csv'}; train with the best:  {shlex.join(command)}")
    else:
        from rl_runner.launch.sweep import planned

        sweep.show(directory, planned(directory))


def _sweep(named: Path) -> Path:
    """Return the directory of a sweep: the one that is named, or the newest one in it."""
    from rl_runner.run.files import NOTE, modified

    if not named.is_dir():
        raise UserError(f"sweep: {named}: no such directory")
    if any(named.glob(f"*/{NOTE}")):
        return named
    inner = {note.parents[1]: modified(note) for note in sorted(named.glob(f"*/*/{NOTE}"))}
    if not inner:
        raise UserError(f"sweep: {named} holds no sweep: no job of one has begun there")
    return max(inner, key=lambda directory: inner[directory])
