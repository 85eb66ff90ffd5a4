"""Tab: what may follow, read from conf/ and the directory of runs."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from rl_runner import catalogue
from rl_runner.cli.completion import candidates
from rl_runner.cli.words import OPTIONS


@pytest.fixture
def runs(workdir: Path) -> None:
    for run in ("outputs/pong/dqn/a_s0", "outputs/pong/dqn/b_s1", "outputs/sweeps/x/0_seed=1"):
        (workdir / run).mkdir(parents=True)
        (workdir / run / "config.yaml").write_text("seed: 0\n")
    (workdir / ".hidden").mkdir()


@pytest.mark.parametrize(
    ("line", "all_of_them"),
    [
        ("rlrun ", ["compare", "doctor", "eval", "export", "play", "plot", "runs", "sweep", "train"]),
        ("rlrun tra", ["train"]),
        ("rlrun --", ["--help", "--version"]),
        ("rlrun train env=car", ["env=carracing", "env=cartpole", "env=cartpole_no_velocity"]),
        ("rlrun train env=cartpole exp", ["experiment=", "exploration.", "exploration="]),
        ("rlrun train +env=cart", ["+env=cartpole", "+env=cartpole_no_velocity"]),
        ("rlrun train ~exploration.st", ["~exploration.start", "~exploration.steps"]),
        ("rlrun train network/torso=ni", ["network/torso=nips_cnn"]),
        ("rlrun train network/", ["network/torso="]),
        ("rlrun train -m network=mlp,du", ["network=mlp,dueling", "network=mlp,dueling_noisy"]),
        ("rlrun train network=mlp,du", []),  # a comma means several only with -m
        ("rlrun train checkpoint.replay=", ["checkpoint.replay=false", "checkpoint.replay=true"]),
        ("rlrun train eval.ep", ["eval.episodes=", "eval.epsilon="]),
        ("rlrun train optimizer=adam optimizer.f", ["optimizer.fused="]),
        ("rlrun train optimizer=rmsprop optimizer.f", []),
        ("rlrun train optimizer.al", ["optimizer.alpha="]),
        ("rlrun train --cf", ["--cfg"]),
        ("rlrun train --cfg ", ["all", "hydra", "job"]),
        ("rlrun train --help opt", ["optimizer"]),
        ("rlrun train --config-dir o", ["outputs/"]),
        ("rlrun eval latest whi", ["which="]),
        ("rlrun eval latest which=", ["which=best", "which=last"]),
        ("rlrun eval episo", ["episodes="]),
        ("rlrun eval la", ["latest"]),
        ("rlrun eval outputs/pong/dqn/", ["outputs/pong/dqn/a_s0", "outputs/pong/dqn/b_s1"]),
        ("rlrun eval outputs/pong/dqn/a_s0 out", ["outputs/"]),
        ("rlrun eval outputs/sweeps/x/", ["outputs/sweeps/x/0_seed=1"]),
        ("rlrun train resume=", ["resume=latest", "resume=outputs/"]),
        ("rlrun train resume=outputs/pong/dqn/b", ["resume=outputs/pong/dqn/b_s1"]),
        ("rlrun play env=po", ["env=pong"]),
        ("rlrun play latest ne", []),
        ("rlrun dance ", []),
        ("rlrun comp", ["compare"]),
        ("rlrun compare ", ["outputs/"]),
        ("rlrun compare outputs/pong/dqn/a", ["outputs/pong/dqn/a_s0"]),
        ("rlrun compare outputs --b", ["--by"]),
        ("rlrun runs --so", ["--sort"]),
        ("rlrun train 'env=", []),
        ("rlrun eval nowhere/", []),
    ],
)
def test_candidates(line: str, all_of_them: list[str], runs: None) -> None:
    assert candidates(line) == all_of_them


def test_each_verb_offers_its_own(runs: None) -> None:
    train, evaluate, play = (set(candidates(f"rlrun {verb} ")) for verb in ("train", "eval", "play"))
    assert {f"{group}=" for group in catalogue.groups()} <= train
    assert "latest" not in train
    assert {"latest", "outputs/", "which=", "episodes="} <= evaluate
    assert not {"env=", "agent=", "seed=0"} & evaluate
    assert {"latest", "outputs/", "env=", "video="} <= play
    assert "agent=" not in play
    assert set(candidates("rlrun eval -")) == {*OPTIONS, "--help"}


def test_a_configuration_of_ones_own(workdir: Path) -> None:
    for file in ("env/mine.yaml", "reward/shaped.yaml"):
        (workdir / "conf" / file).parent.mkdir(parents=True, exist_ok=True)
        (workdir / "conf" / file).write_text("{broken yaml")
    assert candidates("rlrun train --config-dir conf env=mi") == ["env=mine"]
    assert candidates("rlrun train --config-dir=conf rewar") == ["reward=", "reward_clip="]
    assert candidates("rlrun train --config-dir conf reward=") == ["reward=shaped"]
    assert candidates("rlrun train --config-dir nowhere env=mi") == []


def test_it_is_quick_and_says_nothing_else() -> None:
    """Less than half a second of CPU time, at the key that has the most to read."""
    code = "import sys; from rl_runner.cli.main import run; run(['-sc', 'query=bash'])"
    code += "; print({'torch', 'hydra'} & set(sys.modules))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code], env={"COMP_LINE": "rlrun train "}, capture_output=True, text=True, timeout=60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr == ""
    assert done.stdout.endswith("set()\n")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_keys_outside_all_groups_belong_to_the_agents_that_have_them(workdir: Path) -> None:
    assert candidates("rlrun train batch_s") == ["batch_size="]
    assert candidates("rlrun train agent=q_learning batch_s") == []
    assert candidates("rlrun train init_from=lat") == ["init_from=latest"]
