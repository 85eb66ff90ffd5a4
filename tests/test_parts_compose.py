"""Every pair of parts trains, is saved, is put back into fresh objects, and goes on with the same bits.

A run has many parts. Of any two there is a run with both, one with each alone, and one with neither.
"""

from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl_runner.build import jobs as build
from rl_runner.build import saved
from rl_runner.launch import tuned
from rl_runner.run import checkpoint
from rl_runner.run.directory import RunDirectory
from tests.commandline import refused
from tests.test_resume import assert_same

SWITCHES = {  # name: words of the command line; two that set the same key exclude each other
    "double": ["agent.double=true"],
    "n_step": ["agent.n_step=3"],
    "munchausen": ["agent.munchausen=true"],
    "average": ["agent.ema_decay=0.9"],
    "clip_value": ["agent.clip_grad_value=1.0"],
    "prioritized": ["replay=prioritized"],
    "c51": ["value=c51"],
    "qr_dqn": ["value=qr_dqn", "value.quantiles=11"],
    "iqn": ["value=iqn"],
    "mse": ["value.loss=mse"],
    "dueling": ["network=dueling"],
    "noisy": ["network=noisy"],
    "dueling_noisy": ["network=dueling_noisy"],
    "soft": ["sync=soft"],
    "no_target": ["sync=none"],
    "per_episode": ["sync.every_episodes=2"],
    "boltzmann": ["exploration=boltzmann"],
    "ez_greedy": ["exploration=ez_greedy"],
    "greedy": ["exploration=greedy"],
    "rmsprop": ["optimizer=rmsprop"],
}
CARTPOLE = ["env=cartpole", "tuned=none", "env.num_envs=2", "network/torso=mlp", "network.torso.sizes=[16,16]"]
FROZENLAKE = ["env=frozenlake", "tuned=none", "env.num_envs=2", "network.hidden=[8]"]
PONG = [
    "env=pong",
    "tuned=none",
    "env.max_frames=120",
    "network/torso=nips_cnn",
    "network.torso.fc=[8]",
]
SHORT = ["learning_starts=20", "learn_every_steps=2", "updates_per_learn=1", "batch_size=4", "replay.capacity=64"]

GROUPS: dict[str, list[str]] = {}  # switches that exclude each other; the first, "", is none of them
for name, (first, *_) in SWITCHES.items():
    key = first.split("=")[0]
    GROUPS.setdefault(key if key.startswith("agent.") else key.split(".")[0], [""]).append(name)


def runs_with(size: int) -> list[str]:
    """Return few runs, as switches joined by +, so that any `size` groups stand together in all their combinations."""
    sets = [
        set(zip(g, options, strict=True))
        for g in combinations(GROUPS, size)
        for options in product(*map(GROUPS.get, g))
    ]
    runs = []
    while sets:
        run = dict(sets[0])
        for group in GROUPS:
            if group not in run:
                run[group] = max(GROUPS[group], key=lambda s: sum(part <= {*run.items(), (group, s)} for part in sets))
        runs.append("+".join(run[group] for group in GROUPS if run[group]))
        sets = [part for part in sets if not part <= run.items()]
    return runs


def config(words: list[str]) -> dict[str, Any]:
    return saved.plain(tuned.compose(words))


def goes_on_with_the_same_bits(words: list[str], directory: Path, steps: int = 20) -> None:
    cfg = config([*words, *SHORT])

    def loop() -> Any:
        return build.train_job(cfg, RunDirectory(directory)).loop

    uninterrupted = loop()
    for _ in range(steps):
        uninterrupted.step()
    checkpoint.save(directory / "saved", uninterrupted.state_dict(), {})
    for _ in range(steps):
        uninterrupted.step()
    resumed = loop()
    resumed.load_state_dict(checkpoint.load(directory / "saved"))
    assert resumed.clock.updates > 0
    for _ in range(steps):
        resumed.step()
    assert resumed.clock.updates > 15
    assert_same(resumed.state_dict(), uninterrupted.state_dict())


BITFLIP = ["env=bitflip", "env.kwargs.bits=5", "tuned=none", "replay.hindsight=0.8"]


@pytest.mark.parametrize(
    "words",
    [
        ["network/torso=mlp", "network.torso.sizes=[8]", "env.num_envs=2", "agent.n_step=3", "agent.double=true"],
        ["network/torso=mlp", "network.torso.sizes=[8]", "env.processes=true", "replay=prioritized"],
        ["agent=rainbow", "network/torso=mlp", "network.torso.sizes=[8]"],
        ["agent=sac_discrete", "network.hidden=[8]"],
    ],
    ids=" ".join,
)
def test_hindsight_goes_with_the_other_parts(words: list[str], tmp_path: Path) -> None:
    goes_on_with_the_same_bits([*words, *BITFLIP], tmp_path, steps=50)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["env=cartpole"],
            "replay.hindsight: must be 0 here: CartPole-v1 has no goals; they need a Dict with achieved_goal ",
        ),
        (["env=pong", "replay.capacity=100"], "replay.hindsight: must be 0 here: pong has no goals; they need"),
        (["env=bitflip", "env.frame_stack=2"], "replay.hindsight: must be 0 with env.frame_stack=2; set"),
        (["env=bitflip", "replay.hindsight=1.5"], "replay.hindsight: must be a number in [0, 1], got 1.5"),
    ],
)
def test_hindsight_is_refused_in_one_line(words: list[str], line: str, workdir: Path) -> None:
    assert refused("train", "tuned=none", "replay.hindsight=0.5", *words).startswith(f"rlrun: {line}")


def words_of(run: str) -> list[str]:
    return [word for switch in filter(None, run.split("+")) for word in SWITCHES[switch]]


@pytest.mark.parametrize("run", runs_with(2))
def test_every_pair_of_parts(run: str, tmp_path: Path) -> None:
    goes_on_with_the_same_bits([*CARTPOLE, *words_of(run)], tmp_path)


@pytest.mark.parametrize("run", runs_with(1))
def test_every_part_on_discrete_states(run: str, tmp_path: Path) -> None:
    goes_on_with_the_same_bits([*FROZENLAKE, *words_of(run)], tmp_path)


@pytest.mark.parametrize("run", runs_with(1))
def test_every_part_on_pixels(run: str, tmp_path: Path) -> None:
    goes_on_with_the_same_bits([*PONG, *words_of(run)], tmp_path, steps=40)


@pytest.mark.parametrize("agent", ["q_learning", "sarsa", "model_based", "value_iteration", "policy_iteration"])
def test_tables(agent: str, tmp_path: Path) -> None:
    cfg = config([f"agent={agent}", "env=frozenlake"])
    steps = {"policy_iteration": 3, "model_based": 150}.get(agent, 20)
    first, second = (build.train_job(cfg, RunDirectory(tmp_path)).loop for _ in range(2))
    for _ in range(steps):
        first.step()
    checkpoint.save(tmp_path / "saved", first.state_dict(), {})
    second.load_state_dict(checkpoint.load(tmp_path / "saved"))
    for loop in (first, second):
        for _ in range(steps):
            loop.step()
    assert_same(second.state_dict(), first.state_dict())


@pytest.mark.parametrize("env", ["cartpole", "lunarlander", "frozenlake", "pong", "breakout"])
def test_rainbow_is_dqn_with_six_switches(env: str) -> None:
    words = ["agent.double=true", "agent.n_step=3", "replay=prioritized", "value=c51", "network=dueling_noisy"]
    switched = config([f"env={env}", "agent=dqn", "tuned=none", *words, "exploration=greedy"])
    rainbow = config([f"env={env}", "agent=rainbow", "tuned=none"])
    assert switched["agent"].pop("name") == "dqn"
    assert rainbow["agent"].pop("name") == "rainbow"
    assert switched == rainbow


@pytest.mark.parametrize("part", ["double", "n_step", "prioritized", "c51", "dueling", "noisy"])
def test_the_ablation_adds_and_takes_away_one_part(part: str) -> None:
    """Each variant differs from its whole in the keys of that part, and DQN plus all parts is Rainbow minus none."""
    groups = {"prioritized": "replay", "c51": "value", "dueling": "network", "noisy": "network"}
    for whole, variant in [("dqn", f"dqn_{part}"), ("rainbow", f"rainbow_no_{part}")]:
        a, b = (config(["experiment=ablation", f"ablation={name}"]) for name in (whole, variant))
        changed = {key for key in a if a[key] != b[key] and key != "tuned"}
        assert changed == {groups.get(part, "agent")} | ({"exploration"} if part == "noisy" else set())
    assert config(["ablation=rainbow", "tuned=none"]) == config(["agent=rainbow", "tuned=none"])


SQUASHED = ["env=pendulum", "network.hidden=[8,8]"]
NUMBERED = ["agent=sac_discrete", "env=cartpole", "network.hidden=[8,8]"]
AVERAGING = [CARTPOLE, ["agent=td3", *SQUASHED], ["agent=sac", *SQUASHED], NUMBERED]


@pytest.mark.parametrize("words", AVERAGING, ids=["dqn", "td3", "sac", "sac_discrete"])
def test_an_average_of_the_weights_changes_evaluation_and_nothing_of_training(words: list[str], tmp_path: Path) -> None:
    def trained(*more: str) -> Any:
        loop = build.train_job(config([*words, *SHORT, "tuned=none", *more]), RunDirectory(tmp_path)).loop
        averages = [[p.detach().double().clone() for p in loop.agent.network.parameters()]]
        for _ in range(40):
            updates = loop.clock.updates
            loop.step()
            assert loop.clock.updates - updates <= 1
            if loop.clock.updates > updates:
                averages.append([0.9 * a + 0.1 * p for a, p in zip(averages[-1], parameters(loop), strict=True)])
        return loop, averages[-1]

    def parameters(loop: Any) -> list[Any]:
        return [p.detach().double() for p in loop.agent.network.parameters()]

    def acts(agent: Any) -> Any:
        obs = np.random.default_rng(0).normal(size=(64, *agent_obs)).astype(np.float32)
        return agent.outputs(torch.from_numpy(obs))

    (plain, _), (averaged, wanted) = trained(), trained("agent.ema_decay=0.9")
    agent_obs = plain.envs.observation_space.shape
    state = averaged.state_dict()
    assert state["agent"].pop("average")
    assert_same(state, plain.state_dict())
    for mine, by_hand in zip(averaged.agent.acting.parameters(), wanted, strict=True):
        torch.testing.assert_close(mine.double(), by_hand, rtol=1e-5, atol=1e-6)
    kept, _ = trained("agent.ema_decay=0.9", "seed=1")
    kept.agent.load_weights(averaged.agent.weights())
    name = next(iter(acts(plain.agent)))
    assert torch.equal(acts(kept.agent)[name], acts(averaged.agent)[name])  # a snapshot holds the average
    assert not torch.equal(acts(plain.agent)[name], acts(averaged.agent)[name])
