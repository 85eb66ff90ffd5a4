"""What the person in front of a run sees: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from rl_runner.streams import AppendedFile, plain
from rl_runner.types import Clock

SECONDS_BETWEEN_MOVES = 0.2  # of the progress bar


class _Console(Console):
    """Sets text in characters that the terminal has, before columns are measured."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(plain(text, self.encoding), **options)


def make_console(width: int | None = None, soft_wrap: bool = True) -> Console:
    """Return a console on standard output, for tables and lines.

    Args:
        width: in characters; None: that of the terminal.
        soft_wrap: lines that are too long are left to the terminal, in one piece.
    """
    return _Console(soft_wrap=soft_wrap, highlight=False, emoji=False, width=width)


class Terminal:
    """Shows a run's progress and keeps every line in `train.log` as well.

    A log that cannot be written is said once, and the run goes on.

    Args:
        total_steps: the run's length.
        log: file that lines are appended to.
    """

    def __init__(self, total_steps: int, log: Path) -> None:
        self._total = total_steps
        self._console = make_console()
        self._log = AppendedFile(log, self._show)
        self._bar: Progress | None = None
        self._moved = 0.0
        if sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                expand=True,
                transient=True,
            )

    def __enter__(self) -> Terminal:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self._total)
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()
        self._log.close()

    def update(self, clock: Clock, scalars: Mapping[str, float]) -> None:
        """Show where the run stands."""
        line = _status(scalars)
        if self._bar:
            self._bar.update(self._task, completed=clock.steps, description=plain(line, self._console.encoding))
        else:
            print(f"step {clock.steps:,}/{self._total:,}  {line}", flush=True)
        self._write(f"step {clock.steps:,}/{self._total:,}  {line}")

    def advance(self, clock: Clock) -> None:
        """Move the bar on, between status lines; may be called at every step."""
        if self._bar and time.monotonic() - self._moved > SECONDS_BETWEEN_MOVES:
            self._moved = time.monotonic()
            self._bar.update(self._task, completed=clock.steps)

    def say(self, line: str) -> None:
        """Show one line that stays."""
        self._show(line)
        self._write(line)

    def block(self, rows: Sequence[tuple[str, str]]) -> None:
        """Show a short table of names and facts."""
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, fact in rows:
            table.add_row(name, fact)
            self._write(f"{name:15}{fact}")
        self._console.print(table)

    def _show(self, line: str) -> None:
        self._console.print(line, markup=False)

    def _write(self, line: str) -> None:
        self._log.append((line + "\n").encode("utf-8", "backslashreplace"))


def _status(scalars: Mapping[str, float]) -> str:
    """Return the few numbers that say how a run is doing."""
    recent = next((v for k, v in scalars.items() if k.startswith("train/return_last")), None)
    parts = [
        None if recent is None else f"return {recent:.2f}",
        _part(scalars, "explore/epsilon", "ε {:.3f}"),
        _part(scalars, "learn/loss", "loss {:.4f}"),
        _part(scalars, "time/steps_per_s", "{:,.0f} steps/s"),
    ]
    return "  ".join(p for p in parts if p)


def _part(scalars: Mapping[str, float], name: str, form: str) -> str | None:
    return form.format(scalars[name]) if name in scalars else None
