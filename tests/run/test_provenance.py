"""Where a run's numbers come from is written down once for each start and resume."""

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from rl_runner import __version__
from rl_runner.run import provenance
from tests.commandline import SHORT, only_run, rlrun
from tests.disk import full_beyond


def entries(run: Path) -> list[dict[str, Any]]:
    return list(json.loads((run / "provenance.json").read_text()))


def git(directory: Path, *words: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", "-C", str(directory), *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_an_entry_for_each_start_and_resume(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "hunter2")
    before = datetime.datetime.now().astimezone().replace(microsecond=0)
    assert rlrun("train", *SHORT, "seed=3").code == 0
    run = only_run()
    assert rlrun("train", f"resume={run}", "total_steps=60").code == 0
    first, second = entries(run)
    assert first["overrides"] == [*SHORT, "seed=3"]
    assert second["overrides"][1:] == ["total_steps=60"]
    assert before <= datetime.datetime.fromisoformat(first["started"]) <= datetime.datetime.now().astimezone()
    assert first["directory"] == str(workdir)
    versions = first["versions"]
    assert (versions["python"], versions["rlrun"]) == (platform.python_version(), __version__)
    assert versions["torch"] == torch.__version__
    assert {"numpy", "gymnasium", "ale-py", "hydra-core"} < versions.keys()
    assert first["host"]["cores"] == os.cpu_count()
    assert first["host"]["processor"]
    assert first["host"]["threads"] == 1
    assert "hunter2" not in (run / "provenance.json").read_text()


def test_the_commit_of_the_working_directory(tmp_path: Path) -> None:
    assert provenance.git_state(tmp_path) is None  # no repository
    git(tmp_path, "init", "-q")
    assert provenance.git_state(tmp_path) is None  # no commit
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs/run").write_text("what runs write there does not make it dirty")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.git_state(tmp_path / "outputs") == {"commit": commit, "dirty": False}
    (tmp_path / "a.py").write_text("2")
    assert provenance.git_state(tmp_path) == {"commit": commit, "dirty": True}


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state(tmp_path) is None
    assert provenance.processor()


@pytest.mark.parametrize("text", ["", "{", "{}", "\udcff", "[" * 100_000], ids=range(5))
def test_a_file_that_cannot_be_read_is_kept_beside_the_new_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "provenance.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert provenance.first_words(tmp_path) == provenance.published(tmp_path) == []
    provenance.record(tmp_path, ["seed=1"])
    (entry,) = entries(tmp_path)
    assert entry["overrides"] == ["seed=1"]
    assert (tmp_path / "provenance.damaged").read_bytes() == text.encode("utf-8", "surrogateescape")


def test_a_full_disk_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    provenance.record(tmp_path, ["seed=1"])
    with full_beyond(100):
        provenance.record(tmp_path, ["seed=2"])
    file = tmp_path / "provenance.json"
    assert capsys.readouterr().out == f"{file} cannot be written (File too large); the run goes on without it\n"
    assert [entry["overrides"] for entry in entries(tmp_path)] == [["seed=1"]]


def test_what_may_be_published(tmp_path: Path) -> None:
    provenance.record(tmp_path, ["env=secret"])
    (entry,) = provenance.published(tmp_path)
    assert entry["versions"]["torch"] == torch.__version__
    assert set(entry) == {"started", "versions", "git"}
    for text in ("{", "3", "[3]"):
        (tmp_path / "provenance.json").write_text(text)
        assert provenance.published(tmp_path) == []
