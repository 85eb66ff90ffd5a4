"""`rlrun compare RUN ...`: its words, and the files that it writes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rl_runner.report import compare as comparing
from rl_runner.report import comparison
from rl_runner.report.compare import Comparison
from rl_runner.run.terminal import make_console
from rl_runner.types import UserError

T = TypeVar("T")


def compare(options: argparse.Namespace) -> None:
    """Compare runs: show the tables, then write the files that were asked for.

    Raises:
        UserError: nothing can be compared, or a file cannot be written.
    """
    if not options.names:
        raise UserError("compare: name runs, such as rlrun compare outputs/sweeps/mine")
    if options.plot and Path(options.plot).suffix not in comparison.PICTURES:
        raise UserError(f"--plot: must end in {', '.join(comparison.PICTURES)}, got {options.plot!r}")
    by = [key for key in (options.by or "").split(",") if key]
    found = comparing.compare(options.names, by, options.threshold, options.resamples)
    comparison.show(make_console(), found, options.reference, options.csv, options.html)
    if options.csv:
        _written("--csv", Path(options.csv), lambda path: comparison.write(path, found))
    if options.plot:
        _plot(Path(options.plot), found)
    if options.html:
        from rl_runner.report import page

        text = page.page(found, options.reference)
        _written("--html", Path(options.html), lambda path: path.write_text(text, encoding="utf-8"))


def _plot(path: Path, found: Comparison) -> None:
    try:
        drawn = _made("--plot", path, lambda path: comparison.draw(path, found))
    except ImportError as e:
        raise UserError("--plot: needs matplotlib: pip install 'rlrun[plot]'") from e
    print(*(f"written to {one}" for one in drawn), sep="\n")


def _written(option: str, path: Path, write: Callable[[Path], object]) -> None:
    _made(option, path, write)
    print(f"written to {path}")


def _made(option: str, path: Path, write: Callable[[Path], T]) -> T:
    """Write a file into a directory that may have to be made.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write(path)
    except OSError as e:
        raise UserError(f"{option}: {path}: {e.strerror}") from e
