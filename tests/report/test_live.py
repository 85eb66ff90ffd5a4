"""How the jobs of a sweep stand: from notes and metrics alone."""

import contextlib
import math
import os
from pathlib import Path

import pytest

from rl_runner.report import live
from rl_runner.run import notes
from rl_runner.run.files import LOG, TABLE
from tests.commandline import refused, rlrun


def job(directory: Path, metrics: str, end: str = notes.FINISHED) -> Path:
    """Write what a job leaves that ended so."""
    with contextlib.suppress(ValueError, SystemExit):
        directory.mkdir(parents=True)
        with notes.noted(directory, ["seed=1"]) as ending:
            (directory / "config.yaml").write_text("seed: 1\ntotal_steps: 1000\nstop: null\n")
            (directory / TABLE).write_text("step,name,value\n" + metrics.replace(" ", "\n"))
            ending.state = end
            if end == notes.FAILED:
                raise ValueError
            if end == notes.INTERRUPTED:
                raise SystemExit
    return directory


def test_a_running_job(tmp_path: Path) -> None:
    run = job(tmp_path / "sw/0_lr=1", "200,eval/return_mean,3.5 250,time/seconds,60 300,x,1 ", notes.UNFINISHED)
    (running,) = live.Standings(tmp_path / "sw").now()
    assert running[:5] == ("0_lr=1", "running", 300, 1000, 3.5)
    assert running.left == pytest.approx(60 / 250 * 750, abs=5)  # less what has passed since
    (run / LOG).touch()
    for file in (run / LOG, run / TABLE):
        os.utime(file, (1e9, 1e9))
    (silent,) = live.Standings(tmp_path / "sw").now()
    assert (silent.state, silent.left) == ("silent", None)


def test_all_states_those_that_need_a_look_first(tmp_path: Path) -> None:
    ends = [notes.FINISHED, notes.PRUNED, notes.UNFINISHED, notes.INTERRUPTED, notes.FAILED]
    for i, end in enumerate(ends):
        job(tmp_path / f"sw/{i}", "1000,eval/return_mean,1 ", end)
    jobs = live.Standings(tmp_path / "sw").now()
    assert [j.state for j in jobs] == ["failed", "interrupted", "running", "pruned", "finished"]
    console = live.make_console(width=80)
    with console.capture() as shown:
        console.print(live.table(jobs, Path("sw"), 7, 80, 11))
    lines = shown.get().splitlines()
    assert lines[0] == "sw: 1 failed, 1 interrupted, 1 running, 1 pruned, 1 finished, 2 to come"
    assert [line.split()[3] for line in lines if line.startswith("│")] == ["running", "failed", "interrupted", "pruned"]
    assert lines[-1] == "and 1 more"
    with console.capture() as shown:
        console.print(live.table(jobs, Path("sw"), 7, 54, 11))
    assert "evaluation" in shown.get()  # the returns are the last column to go
    assert "left" not in shown.get()


def test_a_job_without_metrics(tmp_path: Path) -> None:
    run = tmp_path / "sw/0"
    run.mkdir(parents=True)
    with notes.noted(run, []):
        standing = live.standing(run, notes.Note([], notes.UNFINISHED))
    assert standing[1:4] == ("running", 0, None)
    assert math.isnan(standing.evaluation)


def test_the_verb_shows_the_newest_sweep_and_its_results(workdir: Path) -> None:
    for name in ("old", "new"):
        job(workdir / f"outputs/sweeps/{name}/0", "1000,eval/return_mean,7 ")
    os.utime(workdir / "outputs/sweeps/old/0/job.json", (1e9, 1e9))
    done = rlrun("sweep", "outputs/sweeps")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("outputs/sweeps/new: 1 finished\n")
    assert "1 of 1 runs finished" in done.out
    assert not list(workdir.rglob("results.csv"))


BASIC = "runtime: {choices: {hydra/sweeper: basic}}, sweeper: {params: null}"


@pytest.mark.parametrize(
    ("saved", "missing"),
    [
        (f"overrides: {{task: ['seed=1,2,3']}}, {BASIC}", 2),
        (f"overrides: {{task: ['seed=glob(*)']}}, {BASIC}", 0),
        ("overrides: {task: ['seed=1,2,3']}, runtime: {choices: {hydra/sweeper: optuna}}", 0),
        ("overrides: {task: ['seed=1", 0),
        ("overrides: {task: []}", 0),
    ],
)
def test_jobs_that_a_dead_sweep_did_not_come_to_are_missing(saved: str, missing: int, workdir: Path) -> None:
    job(workdir / "sw/0", "1000,eval/return_mean,7 ")
    Path("sw/multirun.yaml").write_text(f"hydra: {{{saved}}}\n")
    done = rlrun("sweep", "sw")
    assert (done.code, done.err) == (0, "")
    assert f"sw: 1 of {1 + missing} runs finished" in done.out
    assert ("2 of 3 seeds have not begun, not in the numbers: 2, 3\n" in done.out) == bool(missing)


def test_what_is_no_sweep_is_refused(workdir: Path) -> None:
    (workdir / "empty").mkdir()
    assert refused("sweep", "empty") == "rlrun: sweep: empty holds no sweep: no job of one has begun there"
    assert refused("sweep", "nowhere") == "rlrun: sweep: nowhere: no such directory"
    assert refused("sweep") == "rlrun: sweep: name one directory, such as rlrun sweep outputs/sweeps"
