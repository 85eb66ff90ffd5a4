"""Random combinations of agents, environments and parts, interrupted at random steps, equal the uninterrupted run.

The pairs of `test_parts_compose.py` do not reach faults of three parts together. A number stands for one combination:
the first eight run by default, on each loop that learns; `RLRUN_FUZZ=100:300` runs those from 100 to 299.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl_runner.run import checkpoint
from rl_runner.types import UserError
from tests.test_control import loop_of
from tests.test_parts_compose import config
from tests.test_resume import assert_same

Part = list[list[str]]  # choices of one part, each the words of a command line

ALWAYS = ["tuned=none", "num_threads=1", "precision=fp32", "total_steps=200"]
SMALL_ENVS: Part = [
    ["env=cartpole"],
    ["env=cartpole", "env.frame_stack=2"],
    ["env=cartpole", "env.max_steps=9"],
    ["env=cartpole", "env.processes=true", "env.num_envs=2"],
    ["env=frozenlake"],
]
TORSO: Part = [["network/torso=mlp", "network.torso.sizes=[8]"]]
ATARI: Part = [
    ["env=pong", "env.max_frames=80", "env.screen_size=42", "env.point_ends=true"],
    ["env=breakout", "env.max_frames=100", "env.screen_size=42", "env.sticky=0.25"],
]
NIPS: Part = [
    ["network/torso=nips_cnn", "network.torso.fc=[8]", option]
    for option in ("network.torso.centre=true", "network.torso.centre=false", "network.torso.layer_norm=true")
]
PENDULUM: Part = [
    ["env=pendulum", "env.max_steps=11"],
    ["env=pendulum", "env.max_steps=7", "env.frame_stack=3"],
    ["env=pendulum", "env.max_steps=9", "env.processes=true"],
]
ENVS: Part = [[], ["env.num_envs=2"], ["env.num_envs=3"]]
REPLAY: list[Part] = [
    [["learning_starts=20"], ["learning_starts=7"]],
    [[], ["learn_every_steps=3"], ["learn_every_steps=2", "updates_per_learn=3"], ["learn_every_episodes=2"]],
    [["batch_size=4"], ["batch_size=7"]],
    [["replay.capacity=37"], ["replay.capacity=64"], ["replay.capacity=500"]],
    [[], ["replay=prioritized"], ["replay=prioritized", "replay.sampler.alpha=0.9"]],
    [[], ["overlap=true"]],
    [[], ["reward_clip=0.5"]],
    [[], ["agent.ema_decay=0.9"]],
    [[], ["optimizer=rmsprop"], ["optimizer=adamw"], ["optimizer.lr_end=1e-5"]],
]
VALUES: list[Part] = [
    [[], ["value=c51", "value.low=0", "value.high=9"], ["value=qr_dqn", "value.quantiles=5"], ["value=iqn"]],
    [[], ["network=dueling"], ["network=noisy"], ["network=dueling_noisy"]],
    [[], ["network.normalize=true"]],
    [[], ["exploration=boltzmann"], ["exploration=greedy"], ["exploration.steps=50"], ["exploration=ez_greedy"]],
]
DQN: list[Part] = [
    *REPLAY,
    [[], ["agent.double=true"]],
    [[], ["agent.munchausen=true"]],
    [[], ["agent.n_step=3"], ["agent.n_step=6"]],
    *VALUES,
    [[], ["sync=soft"], ["sync=none"], ["sync.every_episodes=2"], ["sync.every_updates=5"]],
]
CONTROL: list[Part] = [
    *REPLAY,
    [["network.hidden=[8]"], ["network.hidden=[8,8]", "network.layer_norm=true"]],
    [[], ["network.normalize=true"]],
    [[], ["network.critics=2"]],
    [[], ["sync=hard", "sync.every_updates=4"], ["sync=none"], ["sync=none", "network.batch_norm=true"]],
    [[], ["agent.policy_delay=3"]],
    [[], ["agent.random_steps=3"]],
    [[], ["agent.clip_grad_norm=1"]],
]
NOISE: list[Part] = [
    [[], ["agent.n_step=4"]],
    [[], ["exploration=ornstein_uhlenbeck"]],
    [[], ["value=c51", "value.low=-99", "value.high=0"], ["value=qr_dqn", "value.quantiles=5"]],
]
POLICY: list[Part] = [
    [[], ["network.shared=true"]],
    [[], ["network.normalize=true"]],
    [[], ["agent.normalize_rewards=true"]],
    [[], ["agent.entropy_coef=0.1"]],
    [[], ["reward_clip=0.5"]],
    [[], ["optimizer=rmsprop_tf"], ["optimizer.lr_end=1e-5"]],
]
UNITS: Part = [[], ["scale_actions=false"]]
TRACES: Part = [[], ["agent.lam=0.5"], ["agent.normalize_advantages=true"]]
ROLLOUTS: Part = [["rollout_steps=5"], ["rollout_steps=13"], ["rollout_steps=null", "rollout_episodes=2"]]
MEMORY: Part = [[], ["network.memory=lstm"], ["network.memory=gru", "network.memory_units=4"]]
SEQUENCES: Part = [
    ["rollout_steps=8", "batch_size=8", "agent.sequence_steps=4"],
    ["rollout_steps=6", "batch_size=13", "agent.sequence_steps=16"],
]
REINFORCED: Part = [
    [],
    ["agent.baseline=mean", "rollout_episodes=3"],
    ["agent.returns=trajectory", "agent.baseline=none"],
    ["agent.returns=to_go", "agent.normalize_advantages=true"],
]
FAMILIES: list[tuple[str, list[Part]]] = [
    ("dqn", [SMALL_ENVS, ENVS, TORSO, *DQN]),
    ("td3", [PENDULUM, ENVS, *CONTROL, *NOISE]),
    ("ppo", [SMALL_ENVS, ENVS, TORSO, *POLICY, ROLLOUTS, [["batch_size=4"], ["batch_size=50"]]]),
    ("a2c", [PENDULUM, ENVS, TORSO, UNITS, *POLICY, ROLLOUTS, TRACES]),
    ("reinforce", [SMALL_ENVS, TORSO, *POLICY, REINFORCED]),
    (
        "ars",
        [
            SMALL_ENVS,
            [["env.max_steps=4"]],
            *POLICY[1:2],
            [["rollout_episodes=2"], ["rollout_episodes=6", "agent.top=2"]],
        ],
    ),
    ("q_learning", [[["env=frozenlake"], ["env=gridworld"]], ENVS]),
    ("dqn", [ATARI, ENVS, NIPS, *DQN]),
    ("sac", [PENDULUM, ENVS, *CONTROL, [[], ["agent.alpha=0.2"], ["agent.target_entropy=-2"]]]),
    ("rainbow", [SMALL_ENVS, ENVS, TORSO, [["value.low=0", "value.high=9"]], *REPLAY]),
    ("ddpg", [PENDULUM, ENVS, *CONTROL, *NOISE]),
    ("d4pg", [PENDULUM, ENVS, *CONTROL, NOISE[1], [["value.low=-99", "value.high=0"]]]),
    ("sac_discrete", [SMALL_ENVS, ENVS, *CONTROL, [[], ["agent.alpha=0.2"]]]),
    ("ppo", [PENDULUM, ENVS, TORSO, *POLICY, ROLLOUTS, [[], ["agent.target_kl=0.01"], ["agent.clip_value=0.2"]]]),
    ("a2c", [SMALL_ENVS, ENVS, TORSO, *POLICY, ROLLOUTS, TRACES]),
    ("ppo", [SMALL_ENVS, ENVS, TORSO, *POLICY, SEQUENCES, MEMORY[1:]]),
    ("a2c", [PENDULUM, ENVS, TORSO, *POLICY, ROLLOUTS, MEMORY]),
    ("reinforce", [SMALL_ENVS, TORSO, *POLICY, REINFORCED, MEMORY]),
    ("trpo", [PENDULUM, ENVS, TORSO, UNITS, *POLICY[:3], *POLICY[4:], ROLLOUTS, [["batch_size=4"], ["batch_size=50"]]]),
    ("actor_critic", [SMALL_ENVS, TORSO, *POLICY]),
    (
        "pqn",
        [SMALL_ENVS, ENVS, TORSO, *VALUES, POLICY[2], *POLICY[4:], ROLLOUTS, [["batch_size=4"], ["batch_size=50"]]],
    ),
    ("sarsa", [[["env=frozenlake"], ["env=gridworld"]], ENVS]),
    ("model_based", [[["env=frozenlake"], ["env=gridworld"]], ENVS]),
]


def fitting(number: int, directory: Path) -> tuple[list[str], dict[str, Any]]:
    """Draw the words of a command line until they are accepted: some parts do not go together."""
    rng = np.random.default_rng(number)
    for _ in range(50):
        agent, parts = FAMILIES[number % len(FAMILIES)]
        words = [f"agent={agent}", *ALWAYS, f"seed={number}"]
        for choices in parts:
            words += choices[rng.integers(len(choices))]
        try:
            cfg = config(words)
            loop_of(cfg, directory)
        except UserError:
            continue
        return words, cfg
    raise AssertionError(f"50 combinations of {agent} were refused")


def numbers() -> range:
    first, _, end = os.environ.get("RLRUN_FUZZ", "0:8").partition(":")
    return range(int(first), int(end))


@pytest.mark.parametrize("number", numbers())
def test_a_run_interrupted_at_random_steps_is_the_uninterrupted_one(number: int, tmp_path: Path) -> None:
    words, cfg = fitting(number, tmp_path)
    print(*words)  # shown if the test fails
    rng = np.random.default_rng([number, 1])
    total = int(rng.integers(60, 120))
    cuts = {int(cut) for cut in rng.integers(0, total, size=3)}
    print("total", total, "cuts", sorted(cuts))
    whole = loop_of(cfg, tmp_path)
    for _ in range(total):
        whole.step()
    wanted = whole.state_dict()
    interrupted = loop_of(cfg, tmp_path)
    for step in range(total):
        if step in cuts:
            checkpoint.save(tmp_path / "saved", interrupted.state_dict(), {})
            interrupted = loop_of(cfg, tmp_path)
            torch.rand(3)  # whatever else a process does with the global stream
            interrupted.load_state_dict(checkpoint.load(tmp_path / "saved"))
        interrupted.step()
    assert_same(interrupted.state_dict(), wanted)
