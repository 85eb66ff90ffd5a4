"""`rlrun doctor` as a command, and what `rlrun train` takes from it."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rl_runner.run.checkpoint import Checkpoints
from tests.commandline import SHORT, files, refused, rlrun

LATE = "exploration.steps: 9,000 is beyond total_steps=40"
FAST = ["env=cartpole", "num_threads=1", "--seconds", "0"]


def test_a_sound_configuration(workdir: Path) -> None:
    done = rlrun("doctor", *FAST)
    assert (done.code, done.err) == (0, "")
    for row in ("environment", "tuned", "memory", "disk", "device", "nothing suspicious found"):
        assert f"\n{row}" in f"\n{done.out}"
    assert files() == set()


def test_a_run_that_would_be_resumed_if_there_is_one_is_checked_as_a_new_one(workdir: Path) -> None:
    done = rlrun("doctor", *FAST, "resume=auto")
    assert (done.code, done.err) == (0, "")
    assert files() == set()


def test_warnings_and_a_refusal(workdir: Path) -> None:
    done = rlrun("doctor", *FAST, *SHORT, "exploration.steps=9_000")
    assert done.code == 0
    assert f"\nwarning: {LATE}" in done.out
    done = rlrun("doctor", *FAST, *SHORT, "learning_starts=41", "--json")
    found = json.loads(done.out)
    assert (done.code, found["refused"]) == (2, True)
    kinds = {finding["key"]: finding["kind"] for finding in found["findings"]}
    assert kinds == {"learning_starts": "refused", "exploration.steps": "warning"}
    assert found["disk"]["checkpoint"] > 0
    assert files() == set()


def test_what_is_measured(workdir: Path) -> None:
    found = json.loads(rlrun("doctor", *FAST[:-1], "0.5", "learn_every_steps=1", "updates_per_learn=1", "--json").out)
    measured = found["speed"]
    assert measured["updates_per_s"] == pytest.approx(measured["steps_per_s"])
    assert measured["before_per_s"] > 0
    assert measured["hours"] > 0
    evaluations = found["evaluations"]
    assert (evaluations["episodes"], evaluations["rounds"], evaluations["limit"]) == (20, 4, 500)  # 5 environments
    assert 8 <= evaluations["length"] < 500
    assert evaluations["hours"] == pytest.approx(
        evaluations["number"] * 4 * evaluations["length"] / evaluations["steps_per_s"] / 3600
    )
    assert files() == set()


@pytest.mark.parametrize("every", [0, 15, 20, 100])
def test_evaluations_are_as_many_as_a_run_makes(every: int, workdir: Path) -> None:
    words = ["env=cartpole", *SHORT, f"eval.every_steps={every}", "exploration.steps=20", "num_threads=1"]
    found = json.loads(rlrun("doctor", *words, "--seconds", "0.05", "--json").out)
    assert rlrun("train", *words, "hydra.run.dir=run").code == 0
    with Path("run/metrics.csv").open() as file:
        rows = list(csv.reader(file))
    assert found["evaluations"]["number"] == sum(name == "eval/return_mean" for _, name, _ in rows)


def test_train_refuses_what_cannot_learn(workdir: Path) -> None:
    line = refused("train", "env=cartpole", *SHORT, "learning_starts=41")
    assert line.startswith("rlrun: learning_starts: 41 leaves no update within total_steps=40")
    line = refused("train", "agent=ppo", "env=cartpole", "total_steps=100", "rollout_steps=32")
    assert line.startswith("rlrun: rollout_steps: 32 × env.num_envs=8 is longer than total_steps=100")


def test_train_warns_in_its_start_block(workdir: Path) -> None:
    done = rlrun("train", "env=cartpole", *SHORT, "exploration.steps=9_000", "hydra.run.dir=run")
    assert done.code == 0
    assert LATE in Path("run/train.log").read_text()
    assert "warning" not in rlrun("train", "env=cartpole", *SHORT, "exploration.steps=20", "sync.every_updates=1").out


def test_a_run(trained: Path) -> None:
    before = files()
    done = rlrun("doctor", str(trained), "--json")
    assert done.code == 0
    assert json.loads(done.out)["steps"] == 40
    assert files() == before
    with open(trained / "metrics.csv", "a", newline="") as file:
        csv.writer(file).writerow([40, "learn/q_max", 1e6])
    done = rlrun("doctor", "latest")
    assert "\nwarning: learn/q_max: 1e+06 at step 40 is beyond 3 × 100" in done.out


def test_checkpoints_that_are_damaged_are_named(trained: Path) -> None:
    newest, best = (trained / f"checkpoints/{name}_000000040" for name in ("step", "best"))
    (newest / "agent.npz").write_bytes(b"cut")
    done = rlrun("doctor", str(trained))
    assert done.code == 0, done.err
    assert f"\nwarning: checkpoint: {newest} is damaged: agent.npz has 3 bytes, " in done.out
    assert done.out.count("is damaged") == 1
    assert "agent is not looked at" not in done.out  # the best one is whole
    (best / "manifest.json").write_text("{")
    done = rlrun("doctor", str(trained))
    assert done.code == 0, done.err
    assert done.out.count("\nwarning: checkpoint: ") == 2
    assert "no whole checkpoint: its agent is not looked at" in done.out


def test_a_checkpoint_that_a_run_deletes_meanwhile(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is training has a newer one by then."""
    listed, newer = Checkpoints.newest, trained / "checkpoints/step_000000041"

    def then(checkpoints: Checkpoints) -> Iterator[Path]:
        found = list(listed(checkpoints))
        if not newer.exists():
            found[0].rename(newer)
        return iter(found)

    monkeypatch.setattr(Checkpoints, "newest", then)
    monkeypatch.setattr("rl_runner.build.doctor.in_use", lambda _: True)
    done = rlrun("doctor", str(trained))
    assert done.code == 0, done
    assert "of step 40, played" in done.out


def test_a_run_without_a_checkpoint_cannot_be_resumed(trained: Path) -> None:
    shutil.rmtree(trained / "checkpoints")
    wanted = f"rlrun: resume: {trained} holds no whole checkpoint"
    for verb in (["doctor", "--seconds", "0"], ["train"]):
        assert refused(*verb, f"resume={trained}", "total_steps=60") == wanted


def test_a_run_that_goes_on_is_not_refused(trained: Path) -> None:
    done = rlrun("doctor", f"resume={trained}", "total_steps=60", "--seconds", "0")
    assert done.code == 0
    assert "total_steps: must be" not in done.out
    line = refused("doctor", f"resume={trained}", "env.num_envs=3", "--seconds", "0")
    assert "env.num_envs: cannot change when a run is resumed" in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["env=cartpol"], "did you mean cartpole?"),
        (["cartpole"], "cartpole: no such run; did you mean env=cartpole?"),
        (["env=cartpole", "batchsize=3"], "did you mean batch_size"),
        (["nowhere"], "nowhere: no such directory; name a run's directory, or latest"),
        (["env=cartpole", "--seconds=x"], "--seconds: must be a number, 0 or more, got 'x'"),
        (["env=cartpole", "--secnds=1"], "did you mean --seconds?"),
        (["-m", "env=cartpole"], "there is no option '-m'"),
        (["env=cartpole", "agent=ddpg"], "this agent needs continuous ones"),
    ],
)
def test_wrong_words(words: list[str], says: str, workdir: Path) -> None:
    assert says in refused("doctor", *words)


def test_a_run_takes_no_settings(trained: Path) -> None:
    assert "only trust=[...] goes with it" in refused("doctor", str(trained), "seed=3")
