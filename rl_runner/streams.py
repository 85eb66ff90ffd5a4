"""Output that never ends a run: standard streams that cannot fail, and files that grow by whole pieces."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLAIN = "rlrun.plain"  # the name of the encoding error handler below
_SUBSTITUTES = {
    **{"×": "x", "±": "+-", "ε": "eps", "Δ": "d", "≤": "<=", "·": ".", "…": "~"},
    **{"←": "<", "→": ">", "↑": "^", "↓": "v", "○": "o"},
}


def _substitute(e: UnicodeError) -> tuple[str, int]:
    if not isinstance(e, UnicodeEncodeError):
        raise e
    return "".join(_SUBSTITUTES.get(c, "?") for c in e.object[e.start : e.end]), e.end


codecs.register_error(PLAIN, _substitute)


def plain(text: str, encoding: str) -> str:
    """Return the text in characters that the encoding has."""
    return text.encode(encoding, PLAIN).decode(encoding)


# Standard streams.


class _Unfailing(io.RawIOBase):
    """A file descriptor. What cannot be written to it is dropped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        try:
            return os.write(self._descriptor, data)
        except OSError:  # a closed pipe, a terminal that is gone, a full disk
            return memoryview(data).nbytes


def protect() -> None:
    """Replace standard output and standard error by streams to which writing never fails.

    Characters that a stream's encoding lacks are written as plain ones. A stream that was closed before the process
    started is opened on the null device, in ascending order: otherwise the first file that the run opens would get
    its descriptor, and whatever a library prints.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - open as long as the process
    sys.stdout = _protected(sys.stdout)
    sys.stderr = _protected(sys.stderr)


def _protected(stream: Any) -> Any:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):  # not a file, as in a notebook
        return stream
    if stream.errors == PLAIN:
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    buffer = io.BufferedWriter(_Unfailing(descriptor))
    return io.TextIOWrapper(
        buffer, stream.encoding, PLAIN, line_buffering=stream.line_buffering, write_through=stream.write_through
    )


# Files.


class AppendedFile:
    """A file that grows by whole pieces. It never raises OSError.

    A piece that cannot be written, as on a full disk, waits in memory and is written before the next one. Of a piece
    that was written in part, nothing stays.

    Args:
        path: the file; what it holds stays. It and its directory are made if they are not there.
        say: told once that the file cannot be written, and at the end that it is not complete.
    """

    def __init__(self, path: Path, say: Callable[[str], object]) -> None:
        self.path, self._say = path, say
        self._file: io.FileIO | None = None
        self._waiting = b""
        self._whole: int | None = None  # where the last whole piece ends, if a part of another one follows it
        self._said = False
        self.append(b"")

    @property
    def size(self) -> int:
        """Bytes in the file, with those that wait."""
        return len(self._waiting) + (os.fstat(self._file.fileno()).st_size if self._file else 0)

    def append(self, piece: bytes) -> None:
        """Write a piece, after those that wait."""
        self._waiting += piece
        try:
            self._write()
        except OSError as e:
            if not self._said:
                self._said = True
                self._say(f"{self.path} cannot be written ({e.strerror or e}); the run goes on and tries again")

    def close(self) -> None:
        """Write what waits and close the file."""
        try:
            with self._open():
                self._write()
        except OSError as e:
            self._say(f"{self.path} is not complete: {e.strerror or e}")

    def _open(self) -> io.FileIO:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - open as long as the run
        return self._file

    def _write(self) -> None:
        file = self._open()
        self._cut(file)
        end = os.fstat(file.fileno()).st_size
        rest = memoryview(self._waiting)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            self._whole = end
            with contextlib.suppress(OSError):
                self._cut(file)
            raise
        self._waiting = b""

    def _cut(self, file: io.FileIO) -> None:
        if self._whole is not None:
            file.truncate(self._whole)
            self._whole = None
