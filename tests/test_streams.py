"""Output that never ends a run: streams whose reader is gone, disks that are full, characters that are not there."""

import io
import os
import pty
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest

from rl_runner import streams
from rl_runner.streams import AppendedFile
from tests.disk import full_beyond

K = 1024


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer  # EPIPE


def gone_terminal() -> int:
    master, terminal = pty.openpty()
    os.close(master)
    return terminal  # EIO


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)  # ENOSPC


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("broken", [closed_pipe, gone_terminal, full_disk])
def test_a_protected_stream_never_fails(monkeypatch: pytest.MonkeyPatch, name: str, broken: Callable[[], int]) -> None:
    with open(broken(), "w", encoding="utf-8") as bare:
        bare.write("x")
        with pytest.raises(OSError, match=r"Broken pipe|Input/output error|No space left"):
            bare.flush()
        monkeypatch.setattr(sys, name, bare)
        streams.protect()
        stream = getattr(sys, name)
        assert stream is not bare
        for _ in range(3):
            print("a line", file=stream, flush=True)
        print("x" * 100_000, file=stream)
        stream.flush()
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), bare.fileno())  # what the bare stream still holds goes there


def test_what_is_written_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with open(tmp_path / "out", "w", encoding="utf-8") as bare:
        print("before", file=bare)
        monkeypatch.setattr(sys, "stdout", bare)
        streams.protect()
        print("ε = 0.5 ± 0.1")
        sys.stdout.flush()
        assert (tmp_path / "out").read_text(encoding="utf-8") == "before\nε = 0.5 ± 0.1\n"
        protected = sys.stdout
        streams.protect()
        assert sys.stdout is protected


def test_characters_that_an_encoding_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with open(tmp_path / "out", "w", encoding="ascii") as bare:
        monkeypatch.setattr(sys, "stdout", bare)
        streams.protect()
        print("CartPole-v1 × 2, ε 0.5 ± 0.1, ↑→↓← 世 \udcff")
        sys.stdout.flush()
    assert (tmp_path / "out").read_bytes() == b"CartPole-v1 x 2, eps 0.5 +- 0.1, ^>v< ? ?\n"
    assert streams.plain("2 × ε ± 1", "latin-1") == "2 × eps ± 1"
    assert streams.plain("2 × ε ± 1", "utf-8") == "2 × ε ± 1"


def test_streams_that_were_closed_before_the_process_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    streams.protect()
    print("a line", flush=True)
    print("a line", file=sys.stderr, flush=True)
    assert sys.stdin.read() == ""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()


@pytest.mark.parametrize("stream", [io.StringIO(), io.TextIOWrapper(io.BytesIO())])
def test_a_stream_that_is_no_file_is_left_alone(monkeypatch: pytest.MonkeyPatch, stream: TextIO) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    streams.protect()
    assert sys.stdout is stream


# Files.


def test_a_file_grows_by_whole_pieces(tmp_path: Path) -> None:
    """On a full disk nothing of a piece stays, it is said once, and later it is written first."""
    said: list[str] = []
    path = tmp_path / "new" / "file"
    file = AppendedFile(path, said.append)
    file.append(b"a" * 100 * K)
    with full_beyond(150 * K):
        file.append(b"b" * 100 * K)  # half of it fits
        assert path.stat().st_size == 100 * K
        file.append(b"c" * 10)
        assert path.stat().st_size == 100 * K
        assert file.size == 200 * K + 10
        assert said == [f"{path} cannot be written (File too large); the run goes on and tries again"]
    file.append(b"d")
    assert path.read_bytes() == b"a" * 100 * K + b"b" * 100 * K + b"c" * 10 + b"d"
    assert file.size == 200 * K + 11
    file.close()
    assert len(said) == 1


def test_a_file_that_is_not_complete_in_the_end_is_named(tmp_path: Path) -> None:
    said: list[str] = []
    file = AppendedFile(tmp_path / "file", said.append)
    with full_beyond(K):
        file.append(b"a" * 2 * K)
        file.close()
    assert (tmp_path / "file").read_bytes() == b""
    assert said[1:] == [f"{tmp_path / 'file'} is not complete: File too large"]


def test_a_file_that_cannot_be_opened_yet(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "directory").write_text("in the way")
    file = AppendedFile(tmp_path / "directory" / "file", said.append)
    file.append(b"a")
    assert len(said) == 1
    (tmp_path / "directory").unlink()
    file.append(b"b")
    file.close()
    assert (tmp_path / "directory" / "file").read_bytes() == b"ab"
    assert len(said) == 1


def test_what_others_append_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old\n")
    file = AppendedFile(path, print)
    with open(path, "ab") as other:
        other.write(b"a note\n")
    file.append(b"new\n")
    file.close()
    assert path.read_bytes() == b"old\na note\nnew\n"
