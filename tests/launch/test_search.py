"""hydra/sweeper=optuna: whole searches of tiny runs."""

import csv
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rl_runner.launch import launchers, tuned
from rl_runner.report.curves import last_return
from tests.commandline import refused, rlrun
from tests.traps import curves, set_trap, state

TINY = ["agent=q_learning", "env=frozenlake", "total_steps=200", "eval.every_steps=50", "eval.episodes=1"]
SEARCH = ["train", "-m", "hydra/sweeper=optuna", "hydra.sweep.dir=sw", *TINY, "num_threads=1"]


def table() -> list[dict[str, str]]:
    with open("sw/trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_without_optuna_the_line_names_the_extra(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    line = refused(*SEARCH, "agent.lr=interval(0,1)")
    assert line == "rlrun: hydra/sweeper=optuna is not installed: pip install 'rlrun[search]'"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["agent.lr=0.1"], "hydra/sweeper=optuna: no key has several values, such as 'optimizer.lr="),
        (["agent.lr=interval(0,1)", "seed=1,2"], "seed: is not searched; hydra.sweeper.seeds=3 runs"),
        (["agent.lr=interval(0,1)", "hydra.sweeper.sampler=gp"], "hydra.sweeper.sampler: must be tpe, cmaes, random"),
        (["agent.lr=interval(0,1)", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials: must be at least 1, got 0"),
        (["agent.lr=interval(0,1)", "hydra.sweeper.ntrials=3"], "there is no key 'hydra.sweeper.ntrials'"),
        (["agent.lr=0.1,0.2", "exploration=greedy,gredy"], "exploration: there is no 'gredy'; did you mean greedy?"),
        (
            ["agent.lr=0.1,0.2", "eval.every_steps=0", "hydra.sweeper.pruner=median"],
            "hydra.sweeper.pruner: prunes by evaluations, but eval.every_steps is 0",
        ),
    ],
)
def test_a_search_that_cannot_be_run_is_refused(words: list[str], line: str, workdir: Path) -> None:
    pytest.importorskip("optuna")
    assert refused(*SEARCH, *words).startswith(f"rlrun: {line}")


def test_a_search_from_its_start_to_the_best(workdir: Path) -> None:
    pytest.importorskip("optuna")
    words = ["agent.lr=tag(log,interval(1e-2,1))", "agent.gamma=choice(0.9,0.99)", "hydra.sweeper.seeds=2", "seed=3"]
    done = rlrun(*SEARCH, *words, "hydra.sweeper.n_trials=2")
    assert (done.code, done.err) == (0, ""), done
    assert "sw: 2 trials: 2 finished; 800 steps\n" in done.out
    for row in table():
        runs = [Path(f"sw/trial_{row['trial']}_seed_{seed}") for seed in (3, 4)]
        assert float(row["last"]) == sum(map(last_return, runs)) / 2
    assert done.out.endswith("train with the best:  rlrun train --config-dir sw/best experiment=best\n")

    before = table()
    again = rlrun(*SEARCH, *words, "hydra.sweeper.n_trials=2")
    assert (again.code, again.err) == (0, ""), again
    assert "\njob " not in again.out
    assert table() == before
    other = rlrun(*SEARCH, "agent.lr=0.1,0.2")
    assert other.code == 2
    assert "holds a search with other words: " in other.err


def test_the_best_as_an_experiment_is_the_configuration_that_was_found(workdir: Path) -> None:
    pytest.importorskip("optuna")
    words = ["experiment=frozenlake_q_learning", "total_steps=100", "exploration=epsilon_greedy", "tags=[a,b]"]
    sweep = ["train", "-m", "hydra/sweeper=optuna", "hydra.sweep.dir=sw", "hydra.sweeper.sampler=grid", *words]
    assert rlrun(*sweep, "agent.lr=choice(0.125)", "+env.kwargs.success_rate=0.5").code == 0
    found = tuned.compose([*words, "agent.lr=0.125", "++env.kwargs.success_rate=0.5"])
    best = tuned.compose([f"hydra.searchpath=[file://{workdir}/sw/best]", "experiment=best"])
    assert best == found


def test_a_pruned_trial_ends_all_its_jobs(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    from rl_runner.launch.study import optuna

    class Second(optuna.pruners.BasePruner):  # type: ignore[misc]
        def prune(self, study: Any, trial: Any) -> bool:
            return bool(trial.number == 1 and trial.last_step == 2)

    monkeypatch.setattr("rl_runner.launch.study._pruner", lambda settings: Second())
    words = ["hydra.sweeper.pruner=median", "hydra.sweeper.seeds=2", "hydra.sweeper.sampler=grid"]
    done = rlrun(*SEARCH, *words, "agent.lr=choice(0.1,0.2)")
    assert (done.code, done.err) == (0, ""), done
    assert "sw: 2 trials: 1 finished, 1 pruned; 500 steps\n" in done.out  # of the second: 100, and none
    assert "pruned by the search after 100 of 200 steps\n" in done.out
    assert [state(run) for run in sorted(Path("sw").glob("trial_1_*"))] == ["were pruned", "were pruned"]
    assert rlrun(*SEARCH, *words, "agent.lr=choice(0.1,0.2)").out.count("\njob ") == 0


def test_a_trial_that_failed_is_named_and_the_search_goes_on(workdir: Path) -> None:
    pytest.importorskip("optuna")
    words = ["hydra.sweeper.sampler=grid", "agent.lr=choice(-1,0.2)", "total_steps=100"]
    done = rlrun(*SEARCH, *words)
    assert done.code == 1, done
    assert "sw: 2 trials: 1 finished, 1 failed" in done.out
    _, head, line = done.err.splitlines()
    assert head == "rlrun: 1 job(s) failed:"
    assert line.startswith("  agent.lr=-1: agent.lr: must be")


def test_a_signal_leaves_the_trial_to_the_next_start(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    from rl_runner.launch.search import Optuna

    words = ["hydra.sweeper.sampler=grid", "agent.lr=choice(0.1,0.2)", "total_steps=100"]
    run = Optuna._run

    def stopped(self: Any, search: Any, batch: Any) -> None:
        launchers.received.append(15)

    monkeypatch.setattr(Optuna, "_run", stopped)
    assert rlrun(*SEARCH, *words).code == 143
    monkeypatch.setattr(Optuna, "_run", run)
    done = rlrun(*SEARCH, *words)
    assert (done.code, done.err) == (0, ""), done
    assert [row["state"] for row in table()] == ["finished", "finished"]


def test_of_two_workers_one_is_killed_and_the_trials_are_those_of_a_search_that_was_not(workdir: Path) -> None:
    pytest.importorskip("optuna")
    words = ["hydra.sweeper.sampler=grid", "optimizer.lr=choice(1e-4,1e-3,1e-2,1e-1)", *set_trap(workdir, "kill")]
    command = ["train", "-m", "hydra/sweeper=optuna", *words]
    workers = [
        subprocess.Popen([sys.executable, "-m", "rl_runner", *command, "hydra.sweep.dir=sw"], stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert sorted(worker.wait(timeout=120) for worker in workers) == [-signal.SIGKILL, 0]
    assert Path("sprung").exists()
    done = rlrun(*command, "hydra.sweep.dir=sw")  # takes up what the other worker left, if anything
    assert (done.code, done.err) == (0, ""), done
    assert [row["state"] for row in table()] == ["finished"] * 4

    assert rlrun(*command, "hydra.sweep.dir=alone").code == 0
    rates = {row["optimizer.lr"] for row in table()}
    assert len(rates) == 4
    ours, theirs = (sorted(map(curves, Path(name).glob("trial_*"))) for name in ("sw", "alone"))
    assert ours == theirs
