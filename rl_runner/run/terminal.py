"""What the person in front of a run sees: progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rl_runner.streams import AppendedFile, plain
from rl_runner.types import Clock

RECENT = 10  # episodes: the window of the return that is shown; enough to smooth it, few enough to tell the present
REDRAWS = 4  # per second
RATE_WINDOW = 60  # redraws, over which steps per second are measured
EXPLORED = {"epsilon": "ε", "temperature": "temperature"}  # what is shown of the exploration, and its sign
LEAST_BAR = 10  # characters; without room for them there is no bar


class _Console(Console):
    """Sets text in characters that the terminal has, before columns are measured."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(plain(text, self.encoding), **options)


def make_console(width: int | None = None) -> Console:
    """Return a console on standard output, for tables and lines. Long lines are left to the terminal, in one piece.

    Args:
        width: in characters; None: that of the terminal.
    """
    return _Console(soft_wrap=True, highlight=False, emoji=False, width=width)


def counted(number: int, noun: str) -> str:
    """Return a number of things in words, such as "1 episode" or "1,000 episodes"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size_in_words(count: float) -> str:
    """Return a number of bytes in words, such as "12 kB" or "7.1 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def recent_return(returns: Sequence[float]) -> str:
    """Return the mean return of the last few episodes, and their number, in words. There must be one at least."""
    recent = list(returns)[-RECENT:]
    count = "last episode" if len(recent) == 1 else f"last {len(recent)} episodes"
    return f"return {sum(recent) / len(recent):.2f} ({count})"


def facts_table(rows: Sequence[tuple[str, str]]) -> Table:
    """Return a table of names and facts, without a frame."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, fact in rows:
        table.add_row(name, escape(fact))
    return table


class Terminal:
    """Shows a run's progress, and keeps every line in `train.log` as well.

    On a terminal two lines are redrawn several times a second: how far the run is, and how it is doing. Elsewhere a
    plain line is printed each time that scalars are written. If the log cannot be written, that is reported once and
    the run continues.

    Args:
        total_steps: the run's length.
        log: file that lines are appended to.
        exploration: returns where exploration stands at a step, epsilon for example; called from the redrawing thread.
        fills: a replay memory is filled before learning begins. Such steps do not tell how fast those to come are.
    """

    def __init__(
        self,
        total_steps: int,
        log: Path,
        exploration: Callable[[int], Mapping[str, float]] = lambda step: {},
        fills: bool = False,
    ) -> None:
        self._total, self._exploration, self._fills = total_steps, exploration, fills
        self._console = make_console()
        self._log = AppendedFile(log, self._show)
        self._clock = Clock()
        self._returns: Sequence[float] = ()
        self._loss: float | None = None
        self._speed: _Speed | None = None  # from the first step on
        self._updates = 0  # at that step
        self._live: Live | None = None
        if sys.stdout.isatty():
            self._live = Live(
                console=self._console, get_renderable=self._progress, refresh_per_second=REDRAWS, transient=True
            )

    def __enter__(self) -> Terminal:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
        self._log.close()

    def advance(self, clock: Clock, returns: Sequence[float]) -> None:
        """Note where the run stands; called at every step.

        Args:
            clock: after the step.
            returns: of the episodes so far, of which the last ones are shown.
        """
        learned, self._clock, self._returns = self._learning, clock, returns
        if self._speed is None:
            self._speed, self._updates = _Speed(clock.steps), clock.updates
        elif self._fills and not self._learning:
            self._speed.fill(clock.steps)
        elif self._fills and not learned:
            self._speed.restart()

    @contextlib.contextmanager
    def pause(self, doing: str) -> Iterator[None]:
        """Show what is being done while no steps are taken, such as "evaluating"; steps/s do not count that time."""
        if self._speed is None:
            self._speed = _Speed(self._clock.steps)
        with self._speed.pause(doing):
            yield

    def update(self, clock: Clock, scalars: Mapping[str, float]) -> None:
        """Note the scalars that were written, and show them where there is no terminal."""
        self._loss = scalars.get("learn/loss")
        line = "  ".join(
            _status(self._returns, _named("explore/", scalars), scalars.get("time/steps_per_s"), self._loss)
        )
        _, left = self._measured()
        left_in_words = f"  {duration(left)} left" if left else ""
        line = f"step {clock.steps:,}/{self._total:,}{left_in_words}  {line}"
        if not self._live:
            print(line, flush=True)
        self._write(line)

    def say(self, line: str) -> None:
        """Show one line that stays."""
        self._show(line)
        self._write(line)

    def block(self, rows: Sequence[tuple[str, str]]) -> None:
        """Show a short table of names and facts."""
        self._console.print(facts_table(rows))
        for name, fact in rows:
            self._write(f"{name:15}{' '.join(fact.split())}")

    def _progress(self) -> Table:
        """Return the two lines, in as many parts as the width has room for: no part is cut."""
        steps, width = self._clock.steps, self._console.width
        rate, left = self._measured()
        share = steps / self._total if self._total else 1.0
        parts = [f"{steps:,}/{self._total:,} steps", f"{duration(left)} left", f"{share:.0%}"]
        counts = _fitted(parts, width)
        doing = self._speed.doing if self._speed else "starting"
        explored = self._exploration(steps)
        status = _fitted([*([doing] if doing else []), *_status(self._returns, explored, rate, self._loss)], width)
        table = Table.grid()
        room = width - len(counts) - 2
        bar = ProgressBar(total=self._total, completed=steps, width=room)
        line = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        line.add_row(*([bar] if room >= LEAST_BAR else []), counts)
        table.add_row(line)
        table.add_row(plain(status, self._console.encoding))
        return table

    def _measured(self) -> tuple[float | None, float | None]:
        """Return steps per second, and how many seconds are left; None: not known yet."""
        steps = self._clock.steps
        rate, left = self._speed.measure(steps, max(self._total - steps, 0)) if self._speed else (None, None)
        return rate, left if self._learning else None

    @property
    def _learning(self) -> bool:
        """Whether the run has learned since it was started or resumed."""
        return self._clock.updates > self._updates

    def _show(self, line: str) -> None:
        self._console.print(line, markup=False)

    def _write(self, line: str) -> None:
        self._log.append((line + "\n").encode("utf-8", "backslashreplace"))


class _Pause(NamedTuple):
    """Where the clock of training stands still. Replaced as a whole, because another thread reads it."""

    doing: str = ""  # what is done meanwhile; empty: training
    began: float = 0.0
    before: float = 0.0  # seconds of all earlier pauses


class _Speed:
    """Measures how fast a run goes, as often as it is asked."""

    def __init__(self, steps: int) -> None:
        self._started, self._pause = monotonic(), _Pause()
        self._filled = (0.0, steps)  # seconds of training, and steps
        self._measured = deque([self._filled], maxlen=RATE_WINDOW)

    def fill(self, steps: int) -> None:
        """Note a step before learning began: such steps are much faster than those to come."""
        self._filled = (monotonic() - self._started - self._pause.before, steps)

    def restart(self) -> None:
        """Forget how fast the steps before learning were."""
        self._measured = deque([self._filled], maxlen=RATE_WINDOW)

    @property
    def doing(self) -> str:
        """What is done while no steps are taken; empty: training."""
        return self._pause.doing

    @contextlib.contextmanager
    def pause(self, doing: str) -> Iterator[None]:
        """Stop the clock."""
        began, before = monotonic(), self._pause.before
        self._pause = _Pause(doing, began, before)
        try:
            yield
        finally:
            self._pause = _Pause(before=before + monotonic() - began)

    def measure(self, steps: int, remaining: int) -> tuple[float | None, float | None]:
        """Return steps per second of training, and how many seconds are left; None: not known yet.

        What is left is meant with evaluations and checkpoints, in the proportion that they have had so far.
        """
        now, pause = monotonic(), self._pause
        paused = pause.before + (now - pause.began if pause.doing else 0.0)
        training = now - self._started - paused
        measured = self._measured
        if not pause.doing:
            measured.append((training, steps))
        (since, before), (until, after) = measured[0], measured[-1]
        if after <= before or until <= since or training <= 0:
            return None, None
        rate = (after - before) / (until - since)
        return rate, remaining / rate * (training + paused) / training


def _status(
    returns: Sequence[float], explored: Mapping[str, float], steps_per_s: float | None, loss: float | None
) -> list[str]:
    """Return the few numbers that say how a run is doing, as far as they are known; the most important one first."""
    return [
        *([recent_return(returns)] if returns else []),
        *(f"{sign} {explored[name]:.3f}" for name, sign in EXPLORED.items() if name in explored),
        *([] if steps_per_s is None else [f"{steps_per_s:,.0f} steps/s"]),
        *([] if loss is None else [f"loss {loss:.4f}"]),
    ]


def _named(prefix: str, scalars: Mapping[str, float]) -> dict[str, float]:
    """Return the scalars of a group by their names in it."""
    return {name.removeprefix(prefix): value for name, value in scalars.items() if name.startswith(prefix)}


def _fitted(parts: Sequence[str], width: int) -> str:
    """Return the first parts as one line, as many as have room."""
    line = parts[0]
    for part in parts[1:]:
        if len(line) + 2 + len(part) > width:
            break
        line += f"  {part}"
    return line


def duration(seconds: float | None) -> str:
    """Return a time in hours, minutes and seconds."""
    if seconds is None:
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
