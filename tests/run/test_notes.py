"""What a job of a sweep notes, and how a later command finds it again."""

import json
import math
import os
from pathlib import Path

import pytest

from rl_runner.report.curves import last_return
from rl_runner.run import notes
from rl_runner.run.directory import RunDirectory
from rl_runner.types import UserError


def a_note(run: Path, overrides: str, state: str, age: int = 0) -> Path:
    run.mkdir()
    (run / "job.json").write_text(json.dumps({"overrides": overrides.split(), "state": state}))
    os.utime(run / "job.json", (1e9 - age, 1e9 - age))
    return run


def test_a_failure_is_noted_and_logged(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("step 1\n")
    with pytest.raises(ValueError, match="no"), notes.noted(tmp_path, ["seed=1"]):
        raise ValueError("no\n such thing")
    assert notes.read(tmp_path) == (["seed=1"], "failed", "no such thing")
    assert (tmp_path / "train.log").read_text() == "step 1\nfailed: no such thing\n"


def test_directories_that_vanish_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, gone, listed = a_note(tmp_path / "a", "seed=1", "finished"), tmp_path / "gone", os.scandir
    gone.mkdir()

    def scandir(path: str) -> object:
        if Path(path) == gone:
            gone.rmdir()
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list(notes.of_sweep(tmp_path)) == [(job, (["seed=1"], "finished", ""))]


BROKEN = ["", "{", "[]", "3", '{"overrides": ["seed=1"]}', '{"overrides": 3, "state": "finished"}', "\0\0", "\udcff"]
BROKEN += ["[" * 100_000]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_note_is_no_note(text: str, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_bytes(text.encode(errors="surrogateescape"))
    assert notes.read(tmp_path) is None
    assert list(notes.of_sweep(tmp_path)) == [(tmp_path, None)]
    with notes.resumed(tmp_path):  # a run that is resumed by its name
        pass


def test_a_job_is_found_by_what_it_was_told(tmp_path: Path) -> None:
    own = tmp_path / "0_seed=1"
    assert notes.find(tmp_path, own, ["seed=1"]) == (own, "")
    a_note(own, "seed=1 lr=2", "finished")  # another job, of an earlier command
    assert notes.find(tmp_path, own, ["seed=1"]) == (own, "")
    older = a_note(tmp_path / "3_seed=1", "seed=1", "failed", age=10)
    assert notes.find(tmp_path, own, ["seed=1"]) == (older, "failed")
    newer = a_note(tmp_path / "0_seed=1_2", "seed=1", "did not finish")
    assert notes.find(tmp_path, own, ["seed=1"]) == (newer, "did not finish")
    a_note(tmp_path / "4_x", "seed=1 net=mlp", "finished", age=20)
    a_note(tmp_path / "5_x", "net=mlp seed=1", "failed")
    assert notes.find(tmp_path, tmp_path / "6_x", ["seed=1", "net=mlp"]) == (tmp_path / "4_x", "finished")


def test_a_job_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "0"
    with notes.claim(path, known=False) as running:
        assert running.path == path
        with pytest.raises(UserError, match="in use by another process"):
            notes.claim(path, known=True)
        running.config.write_text("seed: 1\n")
        with pytest.raises(UserError, match="in use by another process"):
            notes.claim(path, known=True)
    with notes.claim(path, known=True) as again:
        assert again.path == path
    assert [p.name for p in tmp_path.iterdir()] == ["0"]


def test_a_job_without_a_checkpoint_begins_again(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.config.write_text("seed: 1\n")
    (tmp_path / "checkpoints/best_000000010").mkdir(parents=True)
    (tmp_path / "tensorboard").mkdir()
    for name in ("metrics.csv", "train.log"):
        (tmp_path / name).write_text("x")
    assert not notes.has_checkpoint(run)
    notes.clear(run)
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "train.log"}
    (tmp_path / "checkpoints/step_000000010").mkdir(parents=True)
    assert notes.has_checkpoint(run)


def test_the_last_return(tmp_path: Path) -> None:
    assert math.isnan(last_return(tmp_path))
    (tmp_path / "metrics.csv").write_text("step,name,value\n10,eval/return_mean,3\n20,eval/return_mean,7\n20,x,1\n")
    assert last_return(tmp_path) == 7
