"""Text files that grow by rows during a run, cut back to a checkpoint when the run is resumed."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path


def cut_rows(file: Path, header: bytes, row: bytes, size: int, step: int, say: Callable[[str], object]) -> None:
    r"""Cut a file to the size that a checkpoint knows, and there to its last whole row. Report what is missing.

    A line that cannot be read as a row stays where rows follow it: a disk may have failed, or somebody edited the file.

    Args:
        file: its first line is the header, each later line one row, whose first number is its step.
        header: the first line, with its line end; empty if there is none.
        row: a regular expression for one row, with its line end, such as `rb"\d+,[^\n]*\n"`.
        size: bytes of the file when the checkpoint was written.
        step: of that checkpoint.
        say: told of a file that is missing or shorter than `size`, and of lines that cannot be read as rows.

    Raises:
        OSError: the file cannot be read or cut.
    """
    if not file.is_file():
        say(f"{file} is missing: it starts again, without the rows up to step {step:,}")
        return
    lines = io.BytesIO(file.read_bytes()[:size]).readlines()  # ended by "\n" alone
    is_row = [bool(re.fullmatch(row, line)) for line in lines]
    if lines and header:
        is_row[0] = lines[0] == header
    whole = max((number for number, good in enumerate(is_row, 1) if good), default=0)  # lines up to the last row
    kept = sum(map(len, lines[:whole]))
    os.truncate(file, kept)
    if bad := [number for number, good in enumerate(is_row[:whole], 1) if not good]:
        say(f"{file}: lines that cannot be read as rows: {len(bad)}, the first is line {bad[0]}")
    if kept < size:
        last = re.search(rb"\d+", lines[whole - 1]) if whole > bool(header) else None
        reached = f"its last row is of step {int(last[0]):,}" if last else "it holds no row"
        say(f"{file} is shorter than at the checkpoint: {reached}, what followed up to step {step:,} is missing")
