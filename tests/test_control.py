"""Agents with an actor and critics: each with each part, resumed at many points, and as whole commands."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rl_runner
from rl_runner.build import jobs as build
from rl_runner.run import checkpoint
from rl_runner.run.directory import RunDirectory
from rl_runner.types import Evaluate, UserError
from tests.commandline import only_run, rlrun
from tests.test_parts_compose import config
from tests.test_resume import assert_same

AGENTS = ["ddpg", "td3", "d4pg", "sac"]
PENDULUM = ["env=pendulum", "tuned=none", "network.hidden=[8,8]", "env.num_envs=2", "env.max_steps=15", "batch_size=4"]
PENDULUM += ["learning_starts=20", "replay.capacity=60", "learn_every_steps=2"]  # the ring wraps
PARTS = {  # several in a case, where they do not touch each other
    "average-prioritized": [
        "agent.ema_decay=0.9",
        "replay=prioritized",
        "agent.clip_grad_norm=0.5",
        "optimizer=rmsprop_tf",
    ],
    "c51-three_critics": ["value=c51", "network.critics=3"],
    "qr_dqn-hard": ["value=qr_dqn", "value.quantiles=11", "sync=hard", "sync.every_updates=3"],
    "huber-no_target-layer_norm": ["value=scalar", "sync=none", "network.layer_norm=true", "network.activation=silu"],
    "normalize-hidden_torso-rmsprop": [
        *["network.normalize=true", "network/torso=mlp", "network.torso.sizes=[6]", "optimizer=rmsprop"],
    ],
    "lecture_init-actor_lr-lr_end": [
        *["network.init=xavier", "network.actor_last_layer=0.3", "network.critic_last_layer=0.003"],
        *["agent.actor_lr=1e-4", "optimizer.lr_end=1e-5"],
    ],
    "no_random_steps-reward_clip": ["agent.random_steps=0", "reward_clip=1"],
    "batch_norm-policy_delay-critic_hidden": [
        *["network.batch_norm=true", "sync=none", "agent.policy_delay=3", "network.critic_hidden=[12]"],
    ],
}
NOT_OF_SAC = {
    "n_step-prioritized": ["agent.n_step=3", "replay=prioritized"],
    "ornstein_uhlenbeck": ["exploration=ornstein_uhlenbeck"],
    "gaussian": ["exploration.start=1", "exploration.end=0", "exploration.steps=50"],
}
SAC = {"alpha": ["agent.alpha=0.1"], "target_entropy": ["agent.target_entropy=-2", "agent.initial_alpha=0.1"]}
SAC["truncated-n_critics"] = ["value=qr_dqn", "value.quantiles=5", "agent.dropped_quantiles=2", "network.critics=3"]
PIXELS = ["env=gym", "env.id=RlrunPixels-v0", "env.imports=[tests.envs.pixel_control]", "tuned=none", "batch_size=2"]
PIXELS += ["network.hidden=[8]", "learning_starts=6", "replay.capacity=40"]


def loop_of(cfg: dict[str, Any], directory: Path) -> Any:
    return build.train_job(copy.deepcopy(cfg), RunDirectory(directory)).loop


def goes_on_with_the_same_bits(words: list[str], directory: Path, cuts: list[int], steps: int) -> None:
    """Save a run at several steps; each one restored must end as the uninterrupted run does."""
    cfg = config(words)
    whole = loop_of(cfg, directory)
    for step in range(steps):
        if step in cuts:
            checkpoint.save(directory / f"saved_{step}", whole.state_dict(), {})
        whole.step()
    assert whole.clock.updates > 3
    wanted = whole.state_dict()
    for step in cuts:
        resumed = loop_of(cfg, directory)
        resumed.load_state_dict(checkpoint.load(directory / f"saved_{step}"))
        for _ in range(step, steps):
            resumed.step()
        assert_same(resumed.state_dict(), wanted)


@pytest.mark.parametrize("agent", AGENTS)
def test_resumed_at_any_step_a_run_is_the_uninterrupted_one(agent: str, tmp_path: Path) -> None:
    """Before learning, in the middle of an episode, at its end, between updates of the actor, in a wrapped ring."""
    noise = [] if agent == "sac" else ["exploration=ornstein_uhlenbeck"]
    goes_on_with_the_same_bits([f"agent={agent}", *PENDULUM, *noise], tmp_path, [5, 14, 15, 22, 29, 33], 36)


@pytest.mark.parametrize("agent", ["td3", "sac"])
def test_environments_in_processes_are_resumed_as_exactly(agent: str, tmp_path: Path) -> None:
    goes_on_with_the_same_bits([f"agent={agent}", *PENDULUM, "env.processes=true"], tmp_path, [15, 22], 30)


CASES = [(agent, part) for agent in ("td3", "sac") for part in PARTS]  # ddpg and d4pg are td3 with other switches
CASES += [(agent, "n_step-prioritized") for agent in ("ddpg", "d4pg")]
CASES += [("td3", part) for part in NOT_OF_SAC] + [("sac", part) for part in SAC]


@pytest.mark.parametrize(("agent", "part"), CASES, ids=[f"{agent}-{part}" for agent, part in CASES])
def test_each_part_trains_is_saved_and_goes_on(agent: str, part: str, tmp_path: Path) -> None:
    words = {**PARTS, **NOT_OF_SAC, **SAC}[part]
    goes_on_with_the_same_bits([f"agent={agent}", *PENDULUM, *words], tmp_path, [16], 21)


DISCRETE = ["agent=sac_discrete", "tuned=none", "network.hidden=[8,8]", "batch_size=4", "replay.capacity=60"]
DISCRETE += ["learning_starts=20", "learn_every_steps=2"]


@pytest.mark.parametrize(
    "words",
    [
        ["env=cartpole", "env.num_envs=2", "network.normalize=true", "replay=prioritized", "agent.alpha=0.1"],
        ["env=frozenlake", "value=c51", "agent.clip_grad_norm=0.5", "network/torso=mlp", "network.torso.sizes=[6]"],
        ["env=cartpole", "network.batch_norm=true", "sync=none", "agent.policy_delay=2"],
    ],
    ids=["normalize-prioritized-alpha", "c51-clip-hidden_torso", "batch_norm-policy_delay"],
)
def test_discrete_sac_goes_on_with_the_same_bits(words: list[str], tmp_path: Path) -> None:
    goes_on_with_the_same_bits([*DISCRETE, *words], tmp_path, [5, 14, 22, 29, 33], 36)


VALUES = {  # of the best action, in the states -1, 0 and 1
    "constant": {1: 1},
    "truncated": {1: 2},
    "observation": {0: -1, 2: 1},
    "discount": {1: 0.5, 2: 1},
    "action": {1: 1},
    "policy": {0: 1, 2: 1},
}
STATES = np.array([[-1.0], [0.0], [1.0]], np.float32)
PROBE = ["env=gym", "env.imports=[tests.envs.probes]", "tuned=none", "agent.gamma=0.5", "network.hidden=[16]"]
PROBE += ["optimizer.lr=1e-2", "batch_size=32", "learn_every_steps=1", "sync.tau=0.1"]


@pytest.mark.parametrize("ability", VALUES)
def test_discrete_sac_solves_the_probes(ability: str, tmp_path: Path) -> None:
    """The values of the better action are right to 0.15; where the action matters, it is the right one."""
    words = [f"env.id=Probe{ability.capitalize()}-v0", "agent.target_entropy=0.1", "agent.initial_alpha=0.1"]
    loop = loop_of(config([*DISCRETE, *PROBE, *words]), tmp_path)
    while loop.clock.updates < 200:
        loop.step()
    q = loop.agent.network.critic(torch.from_numpy(STATES)).detach().numpy()[..., 0].min(axis=0)  # (3, A)
    action, _ = loop.agent.act(STATES, None, Evaluate(np.random.default_rng(0)))
    for i, v in VALUES[ability].items():
        assert q[i].max() == pytest.approx(v, abs=0.15)
    assert ability != "action" or action[1] == 1
    assert ability != "policy" or action.tolist()[::2] == [0, 1]


SOLVE = {
    "ddpg": ["exploration.start=1", "exploration.end=1"],
    "td3": ["exploration.start=1", "exploration.end=1"],
    "d4pg": ["exploration.start=1", "exploration.end=1", "value.low=-3", "value.high=3"],
    "sac": ["agent.alpha=0.02"],
}


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("ability", VALUES)
def test_agents_with_continuous_actions_solve_the_probes(agent: str, ability: str, tmp_path: Path) -> None:
    """The values of the chosen actions are right to 0.15; where the action matters, it is the right one."""
    words = [f"env.id=Probe{ability.capitalize()}Continuous-v0", "learning_starts=100", "replay.capacity=2_000"]
    loop = loop_of(config([f"agent={agent}", *PROBE, *words, *SOLVE[agent]]), tmp_path)
    while loop.clock.updates < 200:
        loop.step()
    action, _ = loop.agent.act(STATES, None, Evaluate(np.random.default_rng(0)))
    q = loop.agent.network.critic(torch.from_numpy(STATES), torch.from_numpy(action))  # (K, 3, M)
    values = loop.agent.value.mean(q).detach().numpy().min(axis=0)
    for i, v in VALUES[ability].items():
        assert values[i] == pytest.approx(v, abs=0.15)
    assert ability != "action" or action[1] > 0
    assert ability != "policy" or action[0] <= 0 < action[2]


@pytest.mark.parametrize(
    "words",
    [
        ["agent=d4pg", "value.low=-10", "value.high=10", "network.shared_encoder=true"],
        ["agent=sac"],
        ["agent=sac", "network.shared_encoder=true"],
    ],
    ids=" ".join,
)
def test_pixels(words: list[str], tmp_path: Path) -> None:
    goes_on_with_the_same_bits([*words, *PIXELS], tmp_path, [8], 12)


def test_whole_commands(workdir: Path) -> None:
    """Train, resume, begin with the weights, evaluate, play, load, sweep."""
    short = ["num_threads=1", "total_steps=40", "learning_starts=10", "batch_size=8", "network.hidden=[8]"]
    short += ["eval.episodes=1", "env.max_steps=20"]
    done = rlrun("train", "agent=sac", "env=pendulum", *short)
    assert done.code == 0, done
    said = " ".join(done.out.split())
    assert "Encoder, then 8 units; actor (squashed Gaussian) and 2 critic(s)" in said
    assert "tuned sac/pendulum" in said
    run = str(only_run())
    for words in [("train", f"resume={run}", "total_steps=50"), ("eval", run, "episodes=2", "epsilon=0.5")]:
        done = rlrun(*words)
        assert done.code == 0, done
    done = rlrun("train", f"init_from={run}", "init_from_optimizer=true", "agent=sac", "env=pendulum", *short)
    assert done.code == 0, done
    assert "9 of 9 arrays" in done.out
    assert "with the optimizer's state of 9 of them" in " ".join(done.out.split())
    agent = rl_runner.load(run)
    env = agent.make_env()
    obs, _ = env.reset(seed=0)
    action = agent.act(obs)
    assert env.action_space.contains(action)
    assert agent.act(np.stack([obs] * 3)).shape == (3, 1)
    np.testing.assert_allclose(agent.act(np.stack([obs] * 3))[0], action, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["agent=sac", "env=cartpole"], "env: the actions are Discrete(2); this agent needs continuous ones (Box)"),
        (["agent=dqn", "env=pendulum"], "env: Pendulum-v1 has actions Box(-2.0, 2.0, (1,), float32); this agent needs"),
        (["agent=td3", "env=pendulum", "network=mlp"], "network: QNetwork has no actor"),
        (["agent=sac", "env=pendulum", "network=mlp"], "network: QNetwork has no actor; this agent needs"),
        (["agent=sac", "env=pendulum", "network=actor_critic"], "network: ActorCritic has no actor; this agent needs"),
        (
            ["agent=ddpg", "env=pendulum", "value=iqn"],
            "value: must be mse, scalar, c51 or qr_dqn for an agent with an actor, got ImplicitQuantile",
        ),
        (["agent=sac_discrete", "env=pendulum"], "env: Pendulum-v1 has actions Box(-2.0, 2.0, (1,), float32); this"),
        (["agent=td3", "env=pendulum", "agent.clip_grad_norm=0"], "agent.clip_grad_norm: must be above 0, or null for"),
        (
            ["agent=ddpg", "env=pendulum", "exploration=epsilon_greedy"],
            "exploration: EpsilonGreedy does not fit this agent, which needs exploration=gaussian or one like it",
        ),
        (
            ["agent=dqn", "env=cartpole", "exploration=gaussian"],
            "exploration: Gaussian does not fit this agent, which needs exploration=epsilon_greedy or one like it",
        ),
        (
            ["agent=dqn", "env=cartpole", "network=control"],
            "network: ControlNetwork has no action values; this agent needs network=plain",
        ),
        (["agent=sac", "env=pendulum", "network.critics=0"], "network.critics: must be 1 or more, got 0"),
        (
            ["agent=sac", "env=pendulum", "network.actor_last_layer=-1"],
            "network.actor_last_layer: must be above 0, or null, got -1",
        ),
        (
            ["agent=sac", "env=pendulum", "agent.n_step=3"],
            "agent.n_step: must be 1, because this agent's returns of more steps would leave out the entropies",
        ),
        (
            ["agent=sac_discrete", "env=cartpole", "agent.n_step=2"],
            "agent.n_step: must be 1, because this",
        ),
        (
            ["agent=sac_discrete", "env=pong", "tuned=none", "replay.capacity=200"],
            "env: the observations of pong are images Box(0, 255, (4, 84, 84), uint8); this agent reads vectors and",
        ),
        (["agent=sac", "env=pendulum", "agent.actor_lr=0"], "agent.actor_lr: must be a number above 0, or null, got 0"),
        (["agent=sac", "env=pendulum", "agent.random_steps=-1"], "agent.random_steps: must be a whole number, 0 or"),
    ],
    ids=lambda x: x if isinstance(x, str) else " ".join(x),
)
def test_what_does_not_fit_is_refused(words: list[str], line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        loop_of(config(words), tmp_path)
    assert str(error.value).startswith(line)
