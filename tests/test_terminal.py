"""The terminal: plain lines into files and pipes, a bar on a terminal, and every line in train.log."""

import io
import sys
from pathlib import Path

import pytest

from rl_runner.terminal import Terminal
from rl_runner.types import Clock

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
    once = ["environment  cartpole × 2", f"run          {PATH}", f"step 1,000/2,000  {STATUS}"]
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
