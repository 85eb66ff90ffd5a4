"""Text files that grow by rows during a run, cut back to a checkpoint when the run is resumed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path


def cut_rows(file: Path, header: bytes, row: bytes, size: int, step: int, say: Callable[[str], object]) -> None:
    r"""Cut a file to the size that a checkpoint knows, and to whole rows. Report what is missing.

    Args:
        file: its first line is the header, each later line one row, whose first number is its step.
        header: the first line, with its line end; empty if there is none.
        row: a regular expression for one row, with its line end, such as `rb"\d+,[^\n]*\n"`.
        size: bytes of the file when the checkpoint was written.
        step: of that checkpoint.
        say: told of a file that is missing or shorter than `size`.

    Raises:
        OSError: the file cannot be read or cut.
    """
    if not file.is_file():
        say(f"{file} is missing: it starts again, without the rows up to step {step:,}")
        return
    rows = file.read_bytes()[:size]
    whole = re.match(rb"(?:%b(?:%b)*+)?" % (re.escape(header), row), rows)
    assert whole is not None  # it also matches nothing
    os.truncate(file, whole.end())
    if whole.end() < size:
        last = re.search(rb"\d+", whole[0][len(header) :].rpartition(b"\n")[0].rpartition(b"\n")[2])
        kept = f"its last row is of step {int(last[0]):,}" if last else "it holds no row"
        say(f"{file} is shorter than at the checkpoint: {kept}, what followed up to step {step:,} is missing")
