"""hydra/launcher=processes: a dead job is one failed job, a signal stops all, and nothing is lost."""

import multiprocessing
import os
from pathlib import Path

import pytest

from rl_runner.launch import processes
from tests.commandline import rlrun
from tests.traps import curves, set_trap, state

SWEEP = ["train", "-m", "hydra/launcher=processes", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sw"]


def test_a_dead_job_is_one_failed_job_and_goes_on_when_the_command_is_given_again(workdir: Path) -> None:
    words = set_trap(workdir, "kill")
    done = rlrun(*SWEEP, "seed=1,2", *words)
    assert done.code == 1, done
    states = {seed: state(workdir / f"sw/{seed - 1}_seed={seed}") for seed in (1, 2)}
    assert sorted(states.values()) == ["did not finish", "finished"]
    dead = next(seed for seed, how in states.items() if how != "finished")
    run = Path(f"sw/{dead - 1}_seed={dead}")
    died, _, head, line = done.err.splitlines()
    assert died == f"rlrun: job {dead - 1}: its process died; its output: sw/logs/{dead - 1}.log"
    assert head == "rlrun: 1 job(s) failed:"
    assert line == f"  seed={dead}: its process ended before the run did; its log: {run}/train.log"
    assert f"1 of 2 seeds did not finish, not in the numbers: {dead}\n" in done.out

    done = rlrun(*SWEEP, "seed=1,2", *words)
    assert (done.code, done.err) == (0, ""), done
    assert done.out.startswith("sw: 1 of 2 jobs have finished already\n")
    assert "2 of 2 runs finished" in done.out
    assert f"resumed from {run}/checkpoints/step_000000020 at step 20" in (run / "train.log").read_text()
    assert {path.name for path in workdir.glob("sw/*seed*")} == {"0_seed=1", "1_seed=2"}

    done = rlrun(*SWEEP, "seed=1,2", *words)
    assert done.code == 0
    assert done.out.startswith("sw: 2 of 2 jobs have finished already\n")

    assert rlrun("train", f"seed={dead}", *words, "hydra.run.dir=whole").code == 0  # as if nothing had happened
    assert curves(run) == curves(Path("whole"))


def test_a_signal_stops_all_jobs_saved(workdir: Path) -> None:
    words = set_trap(workdir, "stop")  # one job sends SIGTERM to this process
    done = rlrun(*SWEEP, "seed=1,2,3,4,5,6", *words, "total_steps=1_000_000", "log.every_steps=10")
    assert (done.code, done.err) == (143, ""), done
    assert not multiprocessing.active_children()
    assert "0 of 6 runs finished" in done.out
    begun = list(workdir.glob("sw/*/job.json"))
    assert 1 <= len(begun) <= 2
    stopped = [note.parent for note in begun if (note.parent / "checkpoints/latest").exists()]
    assert {state(run) for run in stopped} == {"were interrupted"}
    assert all("stopped and saved" in (run / "train.log").read_text() for run in stopped)


@pytest.mark.parametrize(
    ("place", "jobs", "device", "told", "gpus", "found"),
    [
        (0, 3, "auto", {}, 0, {"OMP_NUM_THREADS": "2"}),
        (0, 9, "cpu", {}, 2, {"OMP_NUM_THREADS": "1"}),
        (2, 8, "auto", {}, 2, {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0"}),
        (1, 8, "cuda", {"OMP_NUM_THREADS": "3"}, 2, {"CUDA_VISIBLE_DEVICES": "1"}),
        (1, 8, "auto", {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "5,7"}, 2, {"CUDA_VISIBLE_DEVICES": "7"}),
        (1, 8, "cuda:1", {"OMP_NUM_THREADS": "3"}, 2, {}),
    ],
)
def test_the_share_of_a_job(
    place: int,
    jobs: int,
    device: str,
    told: dict[str, str],
    gpus: int,
    found: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert processes.share(place, jobs, device, told, gpus) == found


def test_jobs_share_the_cores_and_take_the_gpus_in_turn(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = set_trap(workdir, "nothing")
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    with open("trapped.py", "a") as file:
        file.write(f'open(f"{{os.getpid()}}.seen", "w").write(" ".join(map(os.environ.get, {names})))\n')
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(processes, "gpus", lambda: 2)
    assert rlrun(*SWEEP, "seed=1,2", *words, "device=auto").code == 0
    assert sorted(file.read_text() for file in Path().glob("*.seen")) == ["4 0", "4 1"]
    assert not set(names) & set(os.environ)
