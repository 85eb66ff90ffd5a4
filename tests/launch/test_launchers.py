"""Launchers of other packages, where they are installed."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commandline import rlrun
from tests.traps import curves, set_trap, state

PLUGINS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
}


def sweep(launcher: str, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pytest.importorskip(PLUGINS[launcher])
    monkeypatch.setenv("PYTHONPATH", ":".join([*sys.path, str(workdir)]))  # for processes that begin from nothing
    options = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    if launcher == "ray":
        options = ["hydra.launcher.ray.init.num_cpus=1", "+hydra.launcher.ray.init.include_dashboard=false"]
    return ["train", "-m", f"hydra/launcher={launcher}", *options, "hydra.sweep.dir=sw"]


@pytest.fixture(autouse=True)
def _no_workers_left() -> Iterator[None]:
    """End what would run the jobs of the next test, too, in the directory of this one."""
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    if "joblib.externals.loky" in sys.modules:
        sys.modules["joblib.externals.loky"].get_reusable_executor().shutdown(wait=True)


@pytest.mark.parametrize("launcher", PLUGINS)
def test_a_job_that_fails_and_one_that_does_not(launcher: str, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = sweep(launcher, workdir, monkeypatch)
    done = rlrun(*command, "network=nature_cnn,mlp", *set_trap(workdir, "nothing"))
    assert done.code == 1, done
    head, line = done.err.splitlines()[-2:]
    assert head == "rlrun: 1 job(s) failed:"
    assert line.startswith("  network=nature_cnn: network.torso: NatureCNN needs")
    assert line.endswith("; its log: sw/0_network=nature_cnn/train.log")
    assert "NatureCNN needs" in Path("sw/0_network=nature_cnn/train.log").read_text()
    assert "1 of 2 runs finished" in done.out


def test_joblib_ends_with_a_dead_job_and_the_command_goes_on(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, words = sweep("joblib", workdir, monkeypatch), set_trap(workdir, "kill")
    done = rlrun(*command, "seed=1,2", *words)
    assert done.code == 1, done
    assert "Traceback" not in done.err
    assert "its process ended before the run did; its log: sw/" in done.err
    hint = done.err.splitlines()[-1]
    assert hint.startswith("rlrun: the process of a job died, and joblib has ended the others; the same command with")
    assert rlrun(*command, "seed=1,2", *words).code == 0
    assert [state(run) for run in sorted(Path("sw").glob("*_*"))] == ["finished", "finished"]
    resumed = [log.parent for log in Path("sw").glob("*/train.log") if "at step 20" in log.read_text()]
    assert resumed
    for run in resumed:  # as if nothing had happened
        whole = Path(f"whole{run.name[0]}")
        assert rlrun("train", f"seed={run.name[-1]}", *words, f"hydra.run.dir={whole}").code == 0
        assert curves(run) == curves(whole)


def test_submitit_goes_on_without_a_dead_job(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, words = sweep("submitit_local", workdir, monkeypatch), set_trap(workdir, "kill")
    done = rlrun(*command, "seed=1,2", *words)
    assert done.code == 1, done
    died, _, head, line = done.err.splitlines()
    assert died.startswith("rlrun: job ")
    assert Path(died.rpartition("its output: ")[2]).exists()
    assert head == "rlrun: 1 job(s) failed:"
    assert "its process ended before the run did; its log: sw/" in line
    assert "1 of 2 runs finished" in done.out


@pytest.mark.parametrize(("launcher", "what"), [("submitit_local", "preempt"), ("ray", "kill")])
def test_a_job_that_runs_again_goes_on_in_its_directory(
    launcher: str, what: str, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, words = sweep(launcher, workdir, monkeypatch), set_trap(workdir, what)
    done = rlrun(*command, "seed=1", *words)
    assert done.code == 0, done
    (run,) = Path("sw").glob("*_*")
    assert state(run) == "finished"
    step = 20 if what == "kill" else 30  # the last checkpoint, or saved before the cluster's handler ran
    assert f"at step {step}" in (run / "train.log").read_text()
    assert rlrun("train", "seed=1", *words, "hydra.run.dir=whole").code == 0
    assert curves(run) == curves(Path("whole"))
