"""What calls of the Python API leave as the program has it."""

import contextlib
import logging
import os
import sys
import threading
from pathlib import Path

import pytest
import torch

from rl_runner import program
from rl_runner.types import UserError


def in_thread(work: object) -> None:
    thread = threading.Thread(target=work)  # type: ignore[arg-type]
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


def test_torch_is_the_programs_after_an_exception_too() -> None:
    threads = torch.get_num_threads()
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
        assert not sys.stdout.isatty()
        assert sys.stdout.encoding == stream.encoding
        in_thread(lambda: print("shown"))
    print("after")
    assert capsys.readouterr().out == "shown\nafter\n"
    assert sys.stdout is stream
