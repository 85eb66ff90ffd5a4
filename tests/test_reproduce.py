"""scripts/reproduce: a queue of results, resumed where it was interrupted."""

import csv
import importlib.util
import signal
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from tests import commandline

SCRIPT = Path(__file__).parents[1] / "scripts" / "reproduce"
WORDS = ["env=cartpole", *commandline.SHORT, "num_threads=1"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, workdir: Path) -> Any:
    """The script, with two short results, and with the command line run in this process."""
    loader = SourceFileLoader("reproduce", str(SCRIPT))
    spec = importlib.util.spec_from_loader("reproduce", loader)
    assert spec
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "reproduce", module)
    loader.exec_module(module)
    results = {"short": module.Result(WORDS, 2, 3), "end": module.Result(WORDS, 1, 2, "last")}
    results["broken"] = module.Result(["env=nowhere"], 1, 1)
    monkeypatch.setattr(module, "RESULTS", results)
    module.calls = []

    def rlrun(*arguments: str) -> None:
        module.calls.append(arguments)
        if code := commandline.rlrun(*arguments).code:
            raise module.Failed(code)

    monkeypatch.setattr(module, "rlrun", rlrun)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield module
    for number, handler in before.items():
        signal.signal(number, handler)


def run(script: Any, *queue: str) -> None:
    Path("queue").write_text("# what is left to do\n\n" + "\n".join(queue) + "\n")
    script.main(["--queue", "queue", "--runs", "runs", "--out", "out"])


def test_a_queue(script: Any) -> None:
    run(script, "short 4 2  # these seeds", "end")
    with open("out/short.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["steps"], row["episodes"]) for row in rows] == [("2", "40", "3"), ("4", "40", "3")]
    with open("out/end.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["seed"], row["best_step"], row["episodes"]) == ("0", "40", "2")
    done = list(script.calls)
    run(script, "short 4 2", "end")  # nothing is trained or evaluated again
    assert script.calls == done


def test_a_further_seed_joins_the_table(script: Any) -> None:
    run(script, "short 2")
    before = Path("out/short.csv").read_text().splitlines()
    run(script, "short 1")
    after = Path("out/short.csv").read_text().splitlines()
    assert len(before) == 2
    assert [after[0], after[2]] == before
    assert after[1].startswith("1,")


def test_an_interrupted_run_is_resumed_and_one_without_a_checkpoint_begun_again(script: Any) -> None:
    run(script, "short 0")
    (Path("runs/short/seed_0") / "finished").unlink()
    half = Path("runs/short/seed_1")
    half.mkdir()
    (half / "config.yaml").write_text("of a run that was killed at once")
    script.calls.clear()
    run(script, "short")
    trained = [call for call in script.calls if call[0] == "train"]
    assert trained[0] == ("train", "resume=runs/short/seed_0")
    assert trained[1][-1] == "hydra.run.dir=runs/short/seed_1"
    assert len(trained) == 2


def test_what_fails_does_not_stop_the_rest(script: Any) -> None:
    with pytest.raises(SystemExit, match=r"^broken: rlrun ended with code 2$"):
        run(script, "broken", "end")
    assert Path("out/end.csv").is_file()
    assert not Path("out/broken.csv").exists()


@pytest.mark.parametrize("line", ["shrot", "short zero"])
def test_a_line_that_names_no_result(script: Any, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(script, "end", line)
    assert stopped.value.code == 2
    assert "line 4: must be NAME [SEED ...], NAME one of short, end, broken" in capsys.readouterr().err
    assert script.calls == []


def test_a_signal_lets_the_run_save(workdir: Path) -> None:
    Path("scripts").mkdir()
    Path("scripts/rlrun").write_text("#!/bin/bash\ntrap 'echo saved; exit 143' TERM\necho started\nsleep 60 & wait\n")
    Path("scripts/rlrun").chmod(0o755)
    Path("scripts/reproduce").write_text(SCRIPT.read_text())
    command = [sys.executable, "scripts/reproduce", "cartpole"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "started\n"
        process.terminate()
        assert process.stdout.readline() == "saved\n"
    assert process.returncode == 128 + signal.SIGTERM
