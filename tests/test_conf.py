"""Every configuration composes, and the user's words win."""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl_runner import catalogue
from rl_runner.build import checks, saved
from rl_runner.build import jobs as build
from rl_runner.build.signatures import make
from rl_runner.doctor import planned
from rl_runner.doctor.planned import Plan
from rl_runner.launch import tuned
from tests.commandline import SHORT, SHORT_ATARI, only_run, rlrun

CONF = catalogue.conf_dir()
ATARI = [
    "atari",
    "beam_rider",
    "breakout",
    "enduro",
    "ms_pacman",
    "pong",
    "qbert",
    "seaquest",
    "space_invaders",
]
CLASSIC = [
    "acrobot",
    "bitflip",
    "cartpole_no_velocity",
    "cartpole",
    "frozenlake",
    "frozenlake8x8",
    "gridworld",
    "gym",
    "lunarlander",
    "mountaincar",
]
MUJOCO = ["hopper", "walker2d", "halfcheetah", "ant"]
CONTINUOUS = ["bipedalwalker", "carracing", "lunarlander_continuous", "pendulum", *MUJOCO]
NEEDED = {
    "atari": ["env.game=tennis"],
    "gym": ["env.id=Taxi-v4"],
}  # what these cannot choose themselves


def options(group: str) -> list[str]:
    return sorted(p.stem for p in (CONF / group).glob("*.yaml"))


@functools.cache
def config(*words: str) -> dict[str, Any]:
    cfg = saved.plain(tuned.compose(list(words)))
    checks.require(cfg, checks.TRAINING)
    return cfg


def needed(env: str) -> list[str]:
    return [f"env={env}", *NEEDED.get(env, [])]


def test_the_groups_offer_these() -> None:
    assert options("env") == sorted(ATARI + CLASSIC + CONTINUOUS)
    assert options("network") == sorted(
        ["plain", "mlp", "nature_cnn", "dueling", "noisy", "dueling_noisy", "control", "actor_critic"]
    )
    assert options("network/torso") == sorted(
        ["auto", "mlp", "nature_cnn", "nips_cnn", "conv3x3", "cnn", "small_cnn", "encoder", "auto_tanh", "linear"]
    )
    assert options("exploration") == sorted(
        ["epsilon_greedy", "ez_greedy", "boltzmann", "greedy", "gaussian", "ornstein_uhlenbeck"]
    )
    assert options("sync") == sorted(["hard", "soft", "none"])
    assert {"adam", "adamw", "rmsprop", "rmsprop_tf"} <= set(options("optimizer"))
    assert options("value") == sorted(["scalar", "mse", "c51", "qr_dqn", "iqn"])
    assert options("replay") == sorted(["uniform", "prioritized"])
    policies = ["reinforce", "actor_critic", "a2c", "ppo", "trpo", "ars", "pqn"]
    tables = ["value_iteration", "policy_iteration", "model_based", "q_learning", "sarsa"]
    control = ["ddpg", "td3", "d4pg", "sac", "sac_discrete", "tqc", "crossq"]
    assert options("agent") == sorted(["dqn", "rainbow", *control, *policies, *tables])
    lectures = {"frozenlake_dqn", "cartpole_dqn", "lunarlander_dqn", "pong_dqn", "breakout_2013"}
    lectures |= {
        "frozenlake_q_learning",
        "mspacman_dueling",
        "mspacman_dueling_noisy",
        "mnih_2013",
        "mnih_2015",
        "rainbow_atari",
        "ablation",
    }
    lectures |= {
        "cartpole_best",
        "lunarlander_best",
        "pong_84",
        "atari_cpu",
        "atari_fast",
        "atari_best",
        "ablation_cartpole",
    }
    assert lectures <= set(options("experiment"))


def test_the_keys_that_people_type() -> None:
    keys = """seed device num_threads total_steps learning_starts learn_every_steps batch_size env.num_envs env.imports
        env.sticky env.id agent.gamma agent.double agent.n_step optimizer.lr replay.capacity eval.every_steps
        eval.episodes eval.epsilon checkpoint.every_steps checkpoint.keep checkpoint.replay stop.return stop.window
        resume value exploration sync network"""
    for key in keys.split():
        node = config()
        for part in key.split("."):
            assert part in node, key
            node = node[part]
    assert "game" in config("env=pong")["env"]
    assert "sticky" in config("env=pong")["env"]


GROUPS = ["exploration", "sync", "optimizer", "experiment", "value", "replay", "agent", "ablation"]


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_composes(group: str) -> None:
    for option in options(group):
        config(f"{group}={option}")


WITH_HEAD = sorted({*options("network")} - {"control", "actor_critic"})


@pytest.mark.parametrize(
    ("network", "torso"),
    [*((network, "cnn") for network in WITH_HEAD), *(("dueling_noisy", torso) for torso in options("network/torso"))],
)
def test_networks_compose_with_torsos(network: str, torso: str) -> None:
    cfg = config(f"network={network}", f"network/torso={torso}", "tuned=none")["network"]
    assert cfg["head"]["noisy"] == ("noisy" in network)
    assert cfg["head"]["_target_"].endswith("Dueling" if "dueling" in network else "SingleStream")
    assert cfg["torso"] == config(f"network/torso={torso}", "tuned=none")["network"]["torso"]


@pytest.mark.parametrize("env", ATARI + CLASSIC + CONTINUOUS)
def test_every_environment_can_be_made_and_stepped(env: str) -> None:
    if env in MUJOCO:
        pytest.importorskip("mujoco", reason="needs mujoco: pip install 'rlrun[mujoco]'")
    cfg = config(*needed(env))
    envs = build.environments(cfg["env"], min(cfg["env"]["num_envs"], 2), 0, "test")
    obs = envs.reset()
    assert obs.shape == (envs.num_envs, *envs.observation_space.shape)
    for t in range(3):
        space = envs.action_space
        action = space.high if env in CONTINUOUS else np.int64(t % space.n)
        envs.send(np.repeat(action[None], envs.num_envs, axis=0))
        tr = envs.recv()
        obs = envs.reset(tr.ended) if tr.ended.any() else tr.next_obs
        assert obs.dtype == envs.observation_space.dtype
    envs.close()


def test_every_environment_sets_values_of_its_own() -> None:
    for env in {*CLASSIC, *CONTINUOUS} - {"gym"}:
        cfg = config(*needed(env))
        assert cfg["env"]["name"] == env
        assert env not in MUJOCO or cfg["env"]["id"].endswith("-v5")
        assert cfg["total_steps"] <= 1_000_000
    for env in set(ATARI) - {"atari"}:
        cfg = config(*needed(env))
        assert cfg["env"]["game"] == cfg["env"]["name"] == env
        assert cfg["reward_clip"] == 1.0
        assert cfg["env"]["frame_skip"] == cfg["env"]["stack"] == 4


@pytest.mark.parametrize(("env", "reward"), [("acrobot", -1), ("mountaincar", -1), ("cartpole", 1)])
def test_the_range_of_returns_holds_an_endless_episode_at_gamma_099(env: str, reward: int) -> None:
    """The other bound is 0: an episode may end at once."""
    endless = reward / (1 - 0.99)
    assert config(f"env={env}", "tuned=none")["env"]["returns"] == pytest.approx(sorted((0, endless)))


@pytest.mark.parametrize("size", [1e-7, 1e-5, 1e3])
def test_rmsprop_steps_as_the_paper_does(size: float) -> None:
    """Mnih et al. 2015: G / sqrt(mean G^2 - (mean G)^2 + 0.01), G summed over 32 samples; a mean over them comes in."""
    node = config("optimizer=rmsprop", "optimizer.lr=2.5e-4")["optimizer"]
    settings = {k: v for k, v in node.items() if k not in ("_target_", "lr_end", "lr_steps")}
    w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.RMSprop([w], **settings)
    mean = square = expected = 0.0
    for k in range(50):
        g = size * math.sin(k)
        w.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        mean, square = 0.95 * mean + 0.05 * 32 * g, 0.95 * square + 0.05 * (32 * g) ** 2
        expected -= 2.5e-4 * 32 * g / math.sqrt(square - mean**2 + 0.01)
    assert w.item() == pytest.approx(expected, rel=0.01)  # between these sizes eps after the root is not quite the same


@pytest.mark.parametrize("env", ["pong", "cartpole"])
def test_the_users_words_win_over_the_environments(env: str) -> None:
    cfg = config(f"env={env}", "network=nature_cnn", "total_steps=7", "optimizer.lr=0.5", "exploration.end=0.5")
    assert cfg["network"]["torso"]["_target_"].endswith("NatureCNN")
    assert cfg["total_steps"] == 7
    assert cfg["optimizer"]["lr"] == 0.5
    assert cfg["exploration"]["end"] == 0.5
    for words in [("network=mlp", f"env={env}"), (f"env={env}", "network/torso=mlp")]:  # in any order
        assert config(*words)["network"]["torso"]["_target_"].endswith("MLP")


def test_the_users_words_win_over_the_experiments() -> None:
    words = ["total_steps=7", "env=acrobot", "network=dueling", "network/torso=auto", "optimizer=rmsprop", "sync=soft"]
    assert config("experiment=cartpole_dqn")["total_steps"] != 7
    cfg = config("experiment=cartpole_dqn", "total_steps=7", "agent.gamma=0.5", "network.torso.sizes=[3]")
    assert (cfg["total_steps"], cfg["agent"]["gamma"], cfg["network"]["torso"]["sizes"]) == (7, 0.5, [3])
    assert config("experiment=breakout_2013", "network=nature_cnn")["network"]["torso"]["_target_"].endswith(
        "NatureCNN"
    )
    assert config("experiment=breakout_2013", "network=dueling")["network"]["torso"]["_target_"].endswith("NipsCNN")
    cfg = config("experiment=breakout_2013", "network/torso=nature_cnn", *words[:2])
    assert cfg["network"]["torso"]["_target_"].endswith("NatureCNN")
    assert cfg["env"]["id"] == "Acrobot-v1"


def test_the_tuned_file_for_atari_has_the_values_of_the_experiment_that_was_measured() -> None:
    tuned, experiment = config("agent=dqn", "env=breakout"), config("experiment=atari_fast")
    assert {**tuned, "tuned": None} == {**experiment, "tuned": None}


@pytest.mark.parametrize(("word", "unit"), [("sync.every_steps=50", "steps"), ("sync.every_episodes=3", "episodes")])
def test_another_sync_period_takes_the_place_of_updates(word: str, unit: str) -> None:
    cfg = config(word)
    assert cfg["sync"]["every_updates"] is not None
    assert make("sync", cfg["sync"]).every.unit == unit


def test_every_torch_optimizer_by_target() -> None:
    cfg = config("optimizer._target_=torch.optim.SGD", "+optimizer.momentum=0.9", "~optimizer.eps", "~optimizer.fused")
    assert cfg["optimizer"]["momentum"] == 0.9


@pytest.mark.parametrize("experiment", sorted({*options("experiment")} - {"ablation", "ablation_cartpole"}))
def test_every_experiment_trains_and_is_evaluated(experiment: str, workdir: Path) -> None:
    cfg = config(f"experiment={experiment}")
    noisy = (cfg.get("network") or {}).get("head", {}).get("noisy", False)
    assert planned.findings(Plan(cfg, noisy=noisy)) == []  # rlrun does not warn of its own recipes
    short = SHORT_ATARI if "game" in cfg["env"] else SHORT
    short = [word for word in short if word.partition("=")[0].partition(".")[0] in cfg]  # tables have no replay
    short += ["env.max_steps=10"] if cfg.get("learn_every_episodes") else []
    done = rlrun("train", f"experiment={experiment}", *short)
    assert done.code == 0, done
    assert " updates in " in done.out
    assert " 0 updates in " not in done.out
    done = rlrun("eval", str(only_run()), "episodes=2")
    assert done.code == 0, done
    assert "2 episodes, seed 0, raw rewards" in done.out


def test_combinations_of_parts_train(workdir: Path) -> None:
    parts = [
        ["network=dueling_noisy", "exploration=greedy", "agent.double=true", "agent.n_step=3", "sync=soft"],
        ["network=noisy", "exploration=greedy", "optimizer=rmsprop", "value.loss=mse", "env.num_envs=3"],
        ["network=dueling", "exploration=boltzmann", "sync=none", "optimizer=adamw", "env=frozenlake"],
        ["agent.clip_grad_value=10", "agent.clip_grad_norm=null", "reward_clip=1", "network.init=xavier"],
    ]
    for number, words in enumerate(parts):
        done = rlrun("train", *SHORT, *words, f"hydra.run.dir=outputs/{number}")
        assert done.code == 0, (words, done)
        done = rlrun("eval", f"outputs/{number}", "episodes=1")
        assert done.code == 0, (words, done)


@pytest.mark.parametrize(("agent", "optimizer"), [("ppo", "torch.optim.Adam"), ("a2c", "rl_runner.optim.RMSpropTF")])
def test_policy_gradients_on_an_atari_game_share_the_torso_and_clip_rewards(agent: str, optimizer: str) -> None:
    cfg = config(f"agent={agent}", "env=breakout")
    assert cfg["tuned"] == {"file": f"{agent}/atari", "unused": []}
    assert cfg["network"]["shared"]
    assert cfg["network"]["init"] == "orthogonal"
    assert cfg["reward_clip"] == 1.0
    assert cfg["env"]["life_loss"]
    assert cfg["optimizer"]["_target_"] == optimizer
    assert (cfg["optimizer"]["eps"], cfg["optimizer"]["lr_end"]) == (1e-5, 0.0)
