"""The terminal: plain lines into files and pipes, a bar on a terminal, and every line in train.log."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from rl_runner import streams
from rl_runner.run.terminal import Terminal, make_console, size_in_words
from rl_runner.types import Clock
from tests.disk import full_beyond

SCALARS = {"train/return_last_100": 99.0, "explore/epsilon": 0.5, "learn/loss": 0.25, "time/steps_per_s": 1234.5}
STATUS = "return 12.35 (last 10 episodes)  ε 0.500  1,234 steps/s  loss 0.2500"
RETURNS = [99.0] * 90 + [12.3, 12.4] * 5
PATH = "outputs/" + "a_long_directory/" * 12 + "run[0]"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(log: Path) -> None:
    with Terminal(2000, log) as terminal:
        terminal.block([("environment", "cartpole × 2"), ("run", PATH)])
        terminal.advance(Clock(steps=1000), RETURNS)
        terminal.update(Clock(steps=1000), SCALARS)
        terminal.advance(Clock(steps=1500), RETURNS)
        terminal.say(f"evaluate it:  rlrun eval {PATH}")


def test_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(tmp_path / "log")
    out, err = capsys.readouterr()
    assert f"step 1,000/2,000  {STATUS}\n" in out
    assert f"evaluate it:  rlrun eval {PATH}\n" in out  # in one piece, to be copied
    assert "environment  cartpole × 2" in " ".join(out.splitlines()).replace("   ", "  ")
    assert "\x1b" not in out
    assert err == ""


def test_a_temperature_is_shown_as_epsilon_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal(2000, tmp_path / "log") as terminal:
        terminal.update(Clock(steps=1000), {"explore/temperature": 0.25, "explore/weights": 2.0})
    assert capsys.readouterr().out == "step 1,000/2,000  temperature 0.250\n"


def test_every_line_is_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # a resumed run appends
        show(tmp_path / "log")
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    once = ["environment    cartpole × 2", f"run            {PATH}", f"step 1,000/2,000  {STATUS}"]
    assert lines == [*once, f"evaluate it:  rlrun eval {PATH}"] * 2


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Make standard output a terminal."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    return screen


def drawn(terminal: Terminal, width: int) -> list[str]:
    """Return the lines that are redrawn while a run goes on."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    terminal._console = console
    console.print(terminal._progress())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_progress_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = a_terminal(monkeypatch)
    show(tmp_path / "log")
    out = screen.getvalue()
    assert "\x1b[" in out
    assert "━" in out
    assert "return 12.35 (last 10 episodes)" in out
    assert "1,500/2,000 steps" in out
    assert "step 1,000" not in out  # the lines that are redrawn say so
    assert f"step 1,000/2,000  {STATUS}" in (tmp_path / "log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("width", "status"),
    [
        (100, "return -1234.50 (last 3 episodes)  ε 0.250  2,000 steps/s  loss 0.1250"),
        (80, "return -1234.50 (last 3 episodes)  ε 0.250  2,000 steps/s  loss 0.1250"),
        (60, "return -1234.50 (last 3 episodes)  ε 0.250  2,000 steps/s"),
        (45, "return -1234.50 (last 3 episodes)  ε 0.250"),
    ],
)
def test_parts_without_room_are_left_out_and_none_is_cut(
    width: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_terminal(monkeypatch)
    now = 100.0
    monkeypatch.setattr("rl_runner.run.terminal.monotonic", lambda: now)
    with Terminal(10_000_000, tmp_path / "log", lambda step: {"epsilon": step / 80_000}) as terminal:
        terminal._live.stop()
        terminal.advance(Clock(steps=0), [])
        terminal.update(Clock(steps=0), {"learn/loss": 0.125})
        now = 110.0
        terminal.advance(Clock(steps=20_000, updates=1), [-1233.5, -1234.5, -1235.5])
        progress, shown = drawn(terminal, width)
    # 9,980,000 steps are left, at 2,000 per second: 4,990 seconds.
    assert progress.lstrip("━╸╺ ") == "20,000/10,000,000 steps  1:23:10 left  0%"[: width - 2]
    assert shown == status


def test_what_is_known_is_shown_before_any_scalar_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_terminal(monkeypatch)
    now = 0.0
    monkeypatch.setattr("rl_runner.run.terminal.monotonic", lambda: now)
    with Terminal(1_000, tmp_path / "log", lambda step: {"epsilon": 1 - step / 1_000}) as terminal:
        terminal._live.stop()
        assert drawn(terminal, 80)[1] == "starting  ε 1.000"
        terminal.advance(Clock(steps=0), [])
        now = 1.0
        terminal.advance(Clock(steps=100, updates=1), [7.0])
        assert drawn(terminal, 80)[1] == "return 7.00 (last episode)  ε 0.900  100 steps/s"
        with terminal.pause("evaluating"):
            now = 3.0
            progress, status = drawn(terminal, 80)
            assert status == "evaluating  return 7.00 (last episode)  ε 0.900  100 steps/s"
            assert "0:00:27 left" in progress  # 900 steps are 9 seconds of training, of 3 seconds 1 was training
        now = 4.0
        terminal.advance(Clock(steps=200), [7.0])
        assert drawn(terminal, 80)[1] == "return 7.00 (last episode)  ε 0.800  100 steps/s"


def test_lines_tell_the_time_left_without_a_terminal_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("rl_runner.run.terminal.monotonic", lambda: now)
    with Terminal(1_000, tmp_path / "log", fills=True) as terminal:
        terminal.advance(Clock(steps=0), [])
        for seconds, steps, updates in [(0.1, 100, 0), (0.1, 100, 1), (10.1, 200, 10), (91.1, 1_008, 90)]:
            now = seconds
            terminal.advance(Clock(steps=steps, updates=updates), [])
            if updates != 1:  # the first one; steps that fill the replay memory are a hundred times as fast
                terminal.update(Clock(steps=steps, updates=updates), {"time/steps_per_s": 10.0})
    assert capsys.readouterr().out.splitlines() == [
        "step 100/1,000  10 steps/s",
        "step 200/1,000  0:01:20 left  10 steps/s",
        "step 1,008/1,000  10 steps/s",  # several environments go further
    ]


@pytest.mark.parametrize("fills", [True, False])
def test_steps_before_learning_count_unless_they_fill_a_replay_memory(
    fills: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rollouts of 100 steps take 1 s, learning from one takes 9 s; both belong to what is to come."""
    now = 0.0
    monkeypatch.setattr("rl_runner.run.terminal.monotonic", lambda: now)
    with Terminal(1_000, tmp_path / "log", fills=fills) as terminal:
        terminal.advance(Clock(steps=0, updates=5), [])  # resumed, with an empty memory if there is one
        for seconds, steps, updates in [(1.0, 99, 5), (10.0, 100, 6)]:
            now = seconds
            terminal.advance(Clock(steps=steps, updates=updates), [])
            terminal.update(Clock(steps=steps, updates=updates), {})
    left = "2:15:00" if fills else "0:01:30"  # 900 steps at one in 9 s, or at ten a second
    assert capsys.readouterr().out.splitlines() == ["step 99/1,000  ", f"step 100/1,000  {left} left  "]


def test_a_resumed_run_is_not_credited_with_earlier_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_terminal(monkeypatch)
    now = 0.0
    monkeypatch.setattr("rl_runner.run.terminal.monotonic", lambda: now)
    with Terminal(2_000, tmp_path / "log") as terminal:
        terminal._live.stop()
        terminal.advance(Clock(steps=1_000), [])
        now = 2.0
        terminal.advance(Clock(steps=1_010), [])
        assert drawn(terminal, 80)[1] == "5 steps/s"


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
    assert "step 1,000/2,000  return 12.35 (last 10 episodes)  eps 0.500  1,234 steps/s  loss 0.2500" in lines
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


def test_sizes_in_words() -> None:
    sizes = [size_in_words(n) for n in (0, 999, 12_345, 7_100_000_000, 2e12)]
    assert sizes == ["0 B", "999 B", "12 kB", "7.1 GB", "2.0 TB"]
