"""What calls of the Python API leave as the program has it."""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rl_runner import program
from rl_runner.types import UserError


def in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_thread_may_call_again_and_others_may_not() -> None:
    refused: list[str] = []

    def other() -> None:
        try:
            with program.alone():
                refused.append("")
        except UserError as e:
            refused.append(str(e))

    with program.alone(), program.alone():
        in_thread(other)
    in_thread(other)
    assert refused == ["another thread of this program trains, evaluates or loads; use a process for each", ""]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_was_forked_during_a_call_may_call() -> None:
    begun, done = threading.Event(), threading.Event()

    def calls() -> None:
        with program.alone():
            begun.set()
            done.wait(60)

    thread = threading.Thread(target=calls)
    thread.start()
    begun.wait(60)
    if (child := os.fork()) == 0:
        try:
            with program.alone():
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    done.set()
    thread.join()


def test_torch_is_the_programs_after_an_exception_too(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with torch.no_grad():
        with contextlib.suppress(ZeroDivisionError), program.keeping_torch():
            torch.set_num_threads(threads + 1)
            torch.manual_seed(0)
            torch.backends.cudnn.deterministic = True
            assert torch.is_grad_enabled()
            raise ZeroDivisionError
        assert not torch.is_grad_enabled()
    assert torch.get_num_threads() == threads
    assert not torch.backends.cudnn.deterministic
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("there", [False, True])
def test_the_current_directory_is_on_the_path_meanwhile(
    there: bool, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, os.getcwd()] if there else list(sys.path))
    monkeypatch.setattr(logging.getLogger("hydra.utils"), "disabled", False)
    before = list(sys.path)
    with program.finding_modules():
        assert sys.path.count(os.getcwd()) == 1
        assert logging.getLogger("hydra.utils").disabled
    assert sys.path == before
    assert not logging.getLogger("hydra.utils").disabled


def test_only_this_thread_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    stream = sys.stdout
    with program.silent():
        print("hidden")
        sys.stdout.writelines(["hidden"])
        assert not sys.stdout.isatty()
        assert sys.stdout.encoding == stream.encoding
        in_thread(lambda: print("shown"))
    print("after")
    assert capsys.readouterr().out == "shown\nafter\n"
    assert sys.stdout is stream


def test_silence_of_a_program_without_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with program.silent():
        print("nowhere", flush=True)
    assert sys.stdout is None


def test_a_current_directory_that_is_gone(workdir: Path) -> None:
    gone = workdir / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    before = list(sys.path)
    with program.finding_modules():
        assert sys.path == before
