"""A new run that begins with what another one learned."""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from rl_runner import api
from rl_runner.run.checkpoint import load
from tests.commandline import SHORT, refused, rlrun

LATER = ["learn_every_episodes=1000", "total_steps=40"]  # nothing is learned: the weights stay what the run began with


def agent(run: str, which: str = "latest") -> dict[str, Any]:
    return dict(load(Path(run, "checkpoints", which))["agent"])


def begin(*words: str) -> str:
    """Train a run that learns nothing; return its start block with single blanks, without line ends."""
    done = rlrun("train", *SHORT, *LATER, *words, "hydra.run.dir=outputs/new")
    assert done.code == 0, done
    return " ".join(done.out.split())


def test_a_run_begins_with_the_weights_and_its_target_too(trained: Path) -> None:
    out = begin(f"init_from={trained}", "optimizer.lr=1e-5", "seed=5")
    best = f"{trained}/checkpoints/best_000000040"
    assert f"begins with {best} (step 40): 6 of 6 arrays" in out.replace("- ", "-")
    new, old = agent("outputs/new"), agent(str(trained), "best")
    for name, weight in old["online"].items():
        assert torch.equal(new["online"][name], weight)
        assert torch.equal(new["target"][name], weight)
    assert new["optimizer"]["state"] == {}
    assert yaml.safe_load(Path("outputs/new/config.yaml").read_text())["init_from"] == best


def test_from_a_checkpoint_a_snapshot_or_latest(trained: Path) -> None:
    done = rlrun("train", *SHORT, "checkpoint.snapshots_every_steps=20", "seed=1", "hydra.run.dir='outputs/a=b'")
    assert done.code == 0, done
    for name in ("outputs/a=b/checkpoints/snapshots/20", f"{trained}/checkpoints/latest", "latest"):
        begin(f"init_from={name}")
        source = {"latest": Path("outputs/a=b/checkpoints/best")}.get(name, Path(name))
        expected = load(source)["agent"]["online"]
        assert all(torch.equal(weight, expected[n]) for n, weight in agent("outputs/new")["online"].items())
        shutil.rmtree("outputs/new")


def test_what_does_not_fit_is_named_and_stays_fresh(trained: Path) -> None:
    out = begin(f"init_from={trained}", "env=acrobot", "eval.episodes=1")
    missing = ["torso.hidden.0.weight (256×6, there 256×4)", "head.values.out.weight (3×256, there 2×256)"]
    assert f": 3 of 6 arrays; not taken: online/{missing[0]}, online/{missing[1]}" in out
    new, old = agent("outputs/new")["online"], agent(str(trained), "best")["online"]
    taken = [name for name, weight in new.items() if weight.shape == old[name].shape and torch.equal(weight, old[name])]
    assert taken == ["torso.hidden.0.bias", "head.values.hidden.0.weight", "head.values.hidden.0.bias"]


def test_with_the_optimizers_state(trained: Path) -> None:
    out = begin(f"init_from={trained}", "init_from_optimizer=true", "optimizer.lr=0.5", "optimizer=adamw")
    assert "with the optimizer's state of 6 of them" in out
    new, old = agent("outputs/new"), agent(str(trained), "best")
    for name, kept in old["optimizer"]["state"].items():
        assert torch.equal(new["optimizer"]["state"][name]["exp_avg_sq"], kept["exp_avg_sq"])
    assert [group["lr"] for group in new["optimizer"]["param_groups"]] == [0.5]
    line = refused("train", f"init_from={trained}", "init_from_optimizer=true", "optimizer=rmsprop")
    assert line.startswith("rlrun: init_from_optimizer: RMSprop keeps ")
    assert "the saved optimizer kept exp_avg, exp_avg_sq, step" in line


def test_from_averaged_weights_unless_with_the_optimizers_state(workdir: Path) -> None:
    words = [*SHORT, "agent.ema_decay=0.9", "checkpoint.snapshots_every_steps=40", "hydra.run.dir=outputs/old"]
    assert rlrun("train", *words).code == 0
    old = agent("outputs/old", "latest")
    for name, words, expected in [
        ("outputs/old/checkpoints/latest", [], "average"),
        ("outputs/old/checkpoints/snapshots/40", [], "average"),
        ("outputs/old/checkpoints/latest", ["init_from_optimizer=true"], "online"),
    ]:
        begin(f"init_from={name}", *words)
        new = agent("outputs/new")["online"]
        same = {key: all(map(torch.equal, new.values(), old[key].values())) for key in ("online", "average")}
        assert same == {key: key == expected for key in same}
        shutil.rmtree("outputs/new")


def test_gaussian_policies_keep_the_units_of_their_actions(workdir: Path) -> None:
    words = ["env=pendulum", "total_steps=16", "eval.every_steps=0", "eval.episodes=1"]
    ppo = ["train", "agent=ppo", *words, "rollout_steps=8", "batch_size=8"]
    assert rlrun(*ppo, "hydra.run.dir=outputs/scaled").code == 0
    assert rlrun(*ppo, "scale_actions=false", "hydra.run.dir=outputs/older").code == 0
    config = Path("outputs/older/config.yaml")
    config.write_text(config.read_text().replace("scale_actions: false\n", ""))  # as older versions wrote it
    line = "rlrun: scale_actions: must be false with this init_from: that run's actions are in these units"
    assert refused(*ppo, "init_from=outputs/older").startswith(line)
    assert rlrun(*ppo, "init_from=outputs/older", "scale_actions=false", "hydra.run.dir=outputs/new").code == 0
    for run, wanted in (("outputs/scaled", 1.0), ("outputs/older", 0.5)):  # Pendulum's bounds are -2 and 2
        distribution: Any = api.load(run)._agent.distribution  # type: ignore[attr-defined]
        assert distribution.mode(torch.full((1, 2), 0.5)).tolist() == [[wanted]]
    ddpg = ["train", "agent=ddpg", *words, "learning_starts=4", "batch_size=4", "hydra.run.dir=outputs/ddpg"]
    assert rlrun(*ddpg).code == 0
    assert "nothing of" in refused(*ppo, "init_from=outputs/ddpg")  # no word of units, which it has not


def test_a_resume_does_not_begin_again(trained: Path) -> None:
    run = trained.rename("outputs/old")
    words = [*SHORT, f"init_from={run}", "hydra.run.dir=outputs/new"]
    assert rlrun("train", *words, "total_steps=60").code == 0
    whole = agent("outputs/new")
    shutil.rmtree("outputs/new")
    assert rlrun("train", *words, "total_steps=30").code == 0
    shutil.rmtree(run)
    assert rlrun("train", "resume=outputs/new", "total_steps=60").code == 0
    resumed = agent("outputs/new")
    assert all(torch.equal(weight, resumed["online"][name]) for name, weight in whole["online"].items())


def test_a_table_begins_with_a_table(workdir: Path) -> None:
    words = ["env=frozenlake", "total_steps=500", "eval.episodes=1"]
    assert rlrun("train", "agent=q_learning", *words, "hydra.run.dir=outputs/old").code == 0
    done = rlrun("train", "agent=sarsa", *words, "total_steps=1", "init_from=outputs/old", "hydra.run.dir=outputs/new")
    assert done.code == 0, done
    assert "1 of 1 arrays" in done.out
    old, new = agent("outputs/old", "best")["table"], agent("outputs/new")["table"]
    assert old.any()
    assert np.count_nonzero(old != new) <= 1  # what one step learned
    line = refused("train", "agent=q_learning", "env=frozenlake8x8", "init_from=outputs/old")
    assert line.endswith("fits this agent: table (64×4, there 16×4)")
    line = refused("train", "agent=q_learning", *words, "init_from=outputs/old", "init_from_optimizer=true")
    assert line == "rlrun: init_from_optimizer: QLearning has no optimizer"
    line = refused("train", "agent=policy_iteration", *words, "init_from=outputs/old")
    assert line == "rlrun: init_from: PolicyIteration cannot begin with the weights of another agent"


def test_what_is_refused(trained: Path) -> None:
    best = f"{trained}/checkpoints/best_000000040"
    assert refused("train", "init_from=nowhere").startswith("rlrun: init_from: nowhere: no such directory")
    assert refused("train", "init_from_optimizer=true").startswith(
        "rlrun: init_from_optimizer: must be false without init_from=RUN, got true"
    )
    assert refused("train", "init_from_optimizer=3").endswith("must be true or false, got 3")
    line = refused("train", "env=frozenlake", "agent=q_learning", f"init_from={trained}")
    assert line == f"rlrun: init_from: nothing of {best} fits this agent: table (16×4, not there)"
    assert "init_from: cannot change" in refused("train", f"resume={trained}", f"init_from={trained}")
    (Path(best) / "agent.npz").write_bytes(b"")
    assert refused("train", f"init_from={trained}").startswith(f"rlrun: checkpoint {best} is damaged")


def test_a_strangers_run_is_not_believed(trained: Path) -> None:
    config = trained / "config.yaml"
    config.write_text(config.read_text().replace("rl_runner.exploration.EpsilonGreedy", "their_pkg.Mine"))
    line = refused("train", f"init_from={trained}")
    assert line.startswith("rlrun: trust: ")
    assert line.endswith("trust=[their_pkg]")
    assert "their_pkg" not in sys.modules


@pytest.mark.parametrize("words", [["optimizer._target_=torch.optim.SGD"], []])
def test_an_older_checkpoint_has_no_names(trained: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    numbered = {"state": {0: {}}, "param_groups": []}
    state = {**agent(str(trained), "best"), "optimizer": numbered}
    monkeypatch.setattr("rl_runner.run.directory.load", lambda path, only=None: {"agent": state})
    line = refused("train", f"init_from={trained}", "init_from_optimizer=true", *words)
    assert line.endswith("that run is of an older version, which did not name what it saved")
