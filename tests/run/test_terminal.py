"""The terminal: plain lines into files and pipes, a bar on a terminal, and every line in train.log."""

import io
import sys
from pathlib import Path

import pytest
from rich.table import Table

from rl_runner import streams
from rl_runner.run.terminal import Terminal, make_console
from rl_runner.types import Clock
from tests.disk import full_beyond

SCALARS = {"train/return_last_100": 12.345, "explore/epsilon": 0.5, "learn/loss": 0.25, "time/steps_per_s": 1234.5}
STATUS = "return 12.35  ε 0.500  loss 0.2500  1,234 steps/s"
PATH = "outputs/" + "a_long_directory/" * 12 + "run[0]"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(log: Path) -> None:
    with Terminal(2000, log) as terminal:
        terminal.block([("environment", "cartpole × 2"), ("run", PATH)])
        terminal.update(Clock(steps=1000), SCALARS)
        terminal.advance(Clock(steps=1500))
        terminal.say(f"evaluate it:  rlrun eval {PATH}")


def test_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(tmp_path / "log")
    out, err = capsys.readouterr()
    assert f"step 1,000/2,000  {STATUS}\n" in out
    assert f"evaluate it:  rlrun eval {PATH}\n" in out  # in one piece, to be copied
    assert "environment  cartpole × 2" in " ".join(out.splitlines()).replace("   ", "  ")
    assert "\x1b" not in out
    assert err == ""


def test_every_line_is_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # a resumed run appends
        show(tmp_path / "log")
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    once = ["environment    cartpole × 2", f"run            {PATH}", f"step 1,000/2,000  {STATUS}"]
    assert lines == [*once, f"evaluate it:  rlrun eval {PATH}"] * 2


def test_a_bar_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    show(tmp_path / "log")
    out = screen.getvalue()
    assert "\x1b[" in out
    assert "━" in out
    assert STATUS in out
    assert "1500/2000" in out
    assert "step 1,000" not in out  # the bar says so
    assert f"step 1,000/2,000  {STATUS}" in (tmp_path / "log").read_text(encoding="utf-8")


def test_what_is_not_known_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal(10, tmp_path / "log") as terminal:
        terminal.update(Clock(steps=1), {"time/steps_per_s": 2.0})
    assert capsys.readouterr().out == "step 1/10  2 steps/s\n"


def test_a_terminal_that_has_ascii_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables keep their columns straight; the log has every character."""
    with open(tmp_path / "out", "w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        streams.protect()
        show(tmp_path / "log")
        table = Table("return", "steps")
        table.add_row("1.0 ± 0.5", "10")
        table.add_row("10.0 + 0.5", "10")
        make_console().print(table)
        sys.stdout.flush()
    lines = (tmp_path / "out").read_bytes().decode("ascii").splitlines()
    assert any("cartpole x 2" in line for line in lines)
    assert "step 1,000/2,000  return 12.35  eps 0.500  loss 0.2500  1,234 steps/s" in lines
    (widths,) = {len(line) for line in lines[-6:]}
    assert lines[-3] == "| 1.0 +- 0.5 | 10    |"
    assert widths == len(lines[-3])
    assert STATUS in (tmp_path / "log").read_text(encoding="utf-8")


def test_a_log_that_cannot_be_written_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with full_beyond(10), Terminal(10, tmp_path / "log") as terminal:
        for i in range(3):
            terminal.say(f"line {i}")
    out = capsys.readouterr().out
    assert out.count("log cannot be written (File too large); the run goes on") == 1
    assert [f"line {i}" in out for i in range(3)] == [True] * 3
    assert out.endswith("log is not complete: File too large\n")


def test_names_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal(10, tmp_path / "log") as terminal:
        terminal.say("outputs/\udcff")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "outputs/\\udcff\n"
