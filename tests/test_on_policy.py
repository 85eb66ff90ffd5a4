"""Agents that learn from rollouts: the probes solved, each part, resumed at many points, and as whole commands."""

from pathlib import Path

import numpy as np
import pytest
import torch

import rl_runner
from rl_runner.build.environments import environments
from rl_runner.evaluation import evaluate
from rl_runner.types import Evaluate, UserError
from tests.commandline import only_run, rlrun
from tests.envs.probes import ABILITIES
from tests.test_control import goes_on_with_the_same_bits, loop_of
from tests.test_parts_compose import config
from tests.test_resume import assert_same

SMALL = ["tuned=none", "network.torso.sizes=[8,8]", "env.max_steps=15"]
AGENTS = {
    "ppo": ["rollout_steps=8", "batch_size=6", "agent.epochs=2", "env.num_envs=2"],
    "a2c": ["rollout_steps=5", "env.num_envs=2"],
    "actor_critic": [],
    "reinforce": ["rollout_episodes=1"],
    "trpo": ["rollout_steps=8", "batch_size=6", "agent.value_epochs=2", "env.num_envs=2"],
}


@pytest.mark.parametrize("agent", AGENTS)
def test_resumed_at_any_step_a_run_is_the_uninterrupted_one(agent: str, tmp_path: Path) -> None:
    """At the start and the end of rollouts, in the middle of them, at an episode's end."""
    scales = ["network.normalize=true", "agent.normalize_rewards=true"]
    words = [f"agent={agent}", "env=cartpole", *SMALL, *AGENTS[agent], *scales]
    goes_on_with_the_same_bits(words, tmp_path, [1, 7, 8, 15, 20], 64)


KNOWN = ["env=frozenlake", *SMALL, "network/torso=mlp", "log.every_steps=3"]


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("shared", [False, True])
def test_where_the_dynamics_are_known_gradients_are_compared_and_nothing_else_changes(
    agent: str, shared: bool, tmp_path: Path
) -> None:
    words = [f"agent={agent}", *KNOWN, *AGENTS[agent], f"network.shared={str(shared).lower()}"]
    compared, plain = (loop_of(config(words), tmp_path) for _ in range(2))
    plain.gradient = None
    states = []
    for loop in (compared, plain):
        torch.manual_seed(0)
        for _ in range(80):
            loop.step()
        states.append(loop.state_dict())
    cosine = compared.scalars()["exact/policy_gradient_cosine"]
    assert -1 <= cosine <= 1
    assert cosine != 0
    assert "exact/policy_gradient_cosine" not in plain.scalars()
    meters = [state.pop("meter") for state in states]
    assert_same(*states)
    del meters[0]["sums"]["policy_gradient_cosine"], meters[0]["counts"]["policy_gradient_cosine"]
    assert_same(*meters)


@pytest.mark.parametrize("agent", AGENTS)
def test_a_run_whose_gradients_are_compared_is_resumed_with_the_same_bits(agent: str, tmp_path: Path) -> None:
    goes_on_with_the_same_bits([f"agent={agent}", *KNOWN, *AGENTS[agent]], tmp_path, [1, 8, 20, 40], 64)


@pytest.mark.parametrize("env", ["cartpole", "pendulum", "frozenlake"])
def test_ars_is_resumed_with_the_same_bits(env: str, tmp_path: Path) -> None:
    """At the start and the end of episodes, in the middle of them, before and after updates."""
    words = ["agent=ars", f"env={env}", "tuned=none", "env.max_steps=3", "rollout_episodes=4", "agent.top=1"]
    words += [] if env == "frozenlake" else ["network.normalize=true"]
    goes_on_with_the_same_bits([*words, "optimizer.momentum=0.9"], tmp_path, [1, 3, 7, 12, 20], 64)


def test_ars_finds_the_right_actions(tmp_path: Path) -> None:
    words = ["agent=ars", "env=gym", "env.id=ProbePolicy-v0", "env.imports=[tests.envs.probes]", "tuned=none"]
    loop = loop_of(config([*words, "rollout_episodes=8", "agent.std=0.5", "optimizer.lr=0.2"]), tmp_path)
    while loop.clock.steps < 400:
        loop.step()
    action, _ = loop.agent.act(np.array([[-1.0], [1.0]], np.float32), None, Evaluate(np.random.default_rng(0)))
    assert action.tolist() == [0, 1]


MEMORY = ["network.memory=lstm", "network.memory_units=4"]


@pytest.mark.parametrize("agent", ["ppo", "a2c", "actor_critic", "reinforce"])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_with_a_memory_a_run_is_resumed_with_the_same_bits(agent: str, kind: str, tmp_path: Path) -> None:
    words = [f"agent={agent}", "env=cartpole", *SMALL, *AGENTS[agent], *MEMORY, f"network.memory={kind}"]
    words += ["agent.sequence_steps=4"] if agent == "ppo" else []
    goes_on_with_the_same_bits(words, tmp_path, [1, 7, 8, 15, 20], 64)


@pytest.mark.parametrize("agent", ["ppo", "a2c", "reinforce"])
@pytest.mark.parametrize("shared", [False, True])
def test_what_is_learned_from_is_what_was_remembered(agent: str, shared: bool, tmp_path: Path) -> None:
    """Against a pass over each episode from its first step, through several rollouts, with episodes cut short."""
    words = [f"agent={agent}", "env=cartpole", *SMALL, *AGENTS[agent], *MEMORY, f"network.shared={str(shared).lower()}"]
    words += ["env.max_steps=11", "rollout_episodes=3"] + (["batch_size=8"] if agent == "ppo" else [])
    loop = loop_of(config(words), tmp_path)
    network, seen = loop.agent.network, []
    loop.agent.learn = lambda rollout, step: seen.append(rollout) or []  # the weights stay as they are
    while loop.clock.steps < 150:
        loop.step()
    memory = [torch.zeros(1, network.memory_size) for _ in range(loop.envs.num_envs)]
    begins = [True] * loop.envs.num_envs
    cuts = 0

    def one(obs: np.ndarray, i: int, begin: bool) -> tuple[torch.Tensor, ...]:
        return network.recall(torch.from_numpy(obs[None]), memory[i], torch.tensor([begin]))

    for rollout in seen:
        rows = loop.agent.rows(rollout)
        with torch.no_grad():
            log_prob, _, value = loop.agent.evaluate(rows)
            now, after = loop.agent.values(rollout, value)
            for t in range(len(rollout.reward)):
                for i in range(loop.envs.num_envs):
                    row = t * loop.envs.num_envs + i
                    parameters, wanted, memory[i] = one(rollout.obs[t, i], i, begins[i])
                    chosen = parameters.log_softmax(dim=1)[0, int(rollout.action[t, i])]
                    assert float(log_prob[row]) == pytest.approx(float(chosen), abs=1e-5)
                    assert now[t, i] == pytest.approx(float(wanted), abs=1e-5)
                    cut = [k for k, place in enumerate(rollout.cut.tolist()) if place == [t, i]]
                    cuts += len(cut)
                    if cut or t == len(rollout.reward) - 1:
                        end = rollout.cut_obs[cut[0]] if cut else rollout.last_obs[i]
                        assert after[t, i] == pytest.approx(float(one(end, i, False)[1]), abs=1e-5)
                    begins[i] = bool(rollout.ended[t, i])
    assert cuts > 0


def test_sequences_within_a_rollout_begin_with_what_was_remembered(tmp_path: Path) -> None:
    """Else the policy of the first gradient step would not be the one that acted."""
    words = [
        "agent=ppo",
        "env=cartpole",
        *SMALL,
        *MEMORY,
        "env.num_envs=3",
        "rollout_steps=24",
        "agent.epochs=1",
        "network.init=default",
    ]
    for length in (1, 4, 24):
        loop = loop_of(config([*words, "batch_size=72", f"agent.sequence_steps={length}"]), tmp_path)
        learn, kl = loop.agent.learn, []
        loop.agent.learn = lambda rollout, step: [kl.append(m["kl"]) or m for m in learn(rollout, step)]  # noqa: B023
        for _ in range(72):
            loop.step()
        assert len(kl) == 3
        assert max(map(float, kl)) < 1e-9


def test_only_with_a_memory_the_last_action_matches_the_first_observation(tmp_path: Path) -> None:
    words = ["agent=ppo", "env=gym", "env.id=ProbeMemory-v0", "env.imports=[tests.envs.probes]", "tuned=none"]
    words += ["network/torso=mlp", "network.torso.sizes=[16]", "env.num_envs=8", "rollout_steps=24", "batch_size=96"]
    words += ["agent.sequence_steps=12", "optimizer.lr=1e-2", "network.memory_units=16"]
    means = {}
    for kind in ("null", "gru", "lstm"):
        cfg = config([*words, f"network.memory={kind}"])
        loop = loop_of(cfg, tmp_path)
        while loop.clock.steps < 3_500:
            loop.step()
        envs, mode = environments(cfg["env"], 8, 0, "test"), Evaluate(np.random.default_rng(0))
        means[kind] = np.mean([episode.total_reward for episode in evaluate(loop.agent, envs, 50, mode).episodes])
    assert abs(means.pop("null")) < 0.6
    assert means == {"gru": 1.0, "lstm": 1.0}


PARTS = {
    "shared": ["network.shared=true"],
    "default_init": ["network.init=default"],
    "relu": ["network/torso=mlp", "network.torso.sizes=[8]", "network.torso.layer_norm=true"],
    "lr_end": ["optimizer.lr_end=1e-5"],
    "rmsprop": ["optimizer=rmsprop"],
    "reward_clip": ["reward_clip=0.5"],
    "clip_end": ["agent.clip_end=0.01", "agent.clip_value=0.2", "agent.target_kl=0.01", "agent.entropy_coef=0.01"],
    "whole_episodes": ["rollout_steps=null", "env.num_envs=1"],
}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_trains_is_saved_and_goes_on(part: str, tmp_path: Path) -> None:
    words = ["agent=ppo", "env=cartpole", *SMALL, *AGENTS["ppo"], *PARTS[part]]
    goes_on_with_the_same_bits(words, tmp_path, [12], 40)


VALUES = {
    "plain": [],
    "c51-dueling": ["value=c51", "value.low=0", "value.high=9", "network=dueling"],
    "qr_dqn-noisy": ["value=qr_dqn", "value.quantiles=5", "network=noisy", "exploration=greedy"],
    "iqn-boltzmann": ["value=iqn", "exploration=boltzmann"],
    "scalar-ez_greedy": ["value=scalar", "exploration=ez_greedy", "exploration.start=1"],
    "scales": ["network.normalize=true", "agent.normalize_rewards=true"],
    "lr_end-reward_clip": ["optimizer.lr_end=1e-5", "reward_clip=0.5", "agent.clip_grad_norm=null"],
    "adam-xavier": ["optimizer=adam", "network.init=xavier", "network.last_layer_std=1e-3"],
    "whole_episodes": ["rollout_steps=null", "env.num_envs=1"],
}


@pytest.mark.parametrize("part", VALUES)
def test_each_part_of_pqn_trains_is_saved_and_goes_on(part: str, tmp_path: Path) -> None:
    """At the start and the end of rollouts, in the middle of them, at an episode's end."""
    words = ["agent=pqn", "env=cartpole", "network/torso=mlp", *SMALL, *AGENTS["ppo"], *VALUES[part]]
    goes_on_with_the_same_bits(words, tmp_path, [1, 7, 8, 15, 20], 64)


@pytest.mark.parametrize(
    "env",
    [
        ["env=frozenlake", "env.num_envs=2", "network/torso=mlp", "network.torso.sizes=[8]"],
        ["env=pong", "env.max_frames=40", "env.num_envs=2", "network/torso=nips_cnn", "network.torso.fc=[8]"],
    ],
    ids=lambda env: env[0],
)
def test_pqn_on_discrete_states_and_images(env: list[str], tmp_path: Path) -> None:
    goes_on_with_the_same_bits(
        ["agent=pqn", "tuned=none", *env, "rollout_steps=4", "batch_size=4"], tmp_path, [5, 6], 18
    )


@pytest.mark.parametrize("ability", ABILITIES)
def test_pqn_solves_the_probes(ability: str, tmp_path: Path) -> None:
    """The largest action value is right to 0.1 and, where the action matters, it is the right one. gamma is 0.5."""
    words = ["agent=pqn", "env=gym", f"env.id=Probe{ability.capitalize()}-v0", "agent.gamma=0.5", "agent.lam=0.5"]
    words += ["env.imports=[tests.envs.probes]", "tuned=none", "network/torso=mlp", "network.torso.sizes=[16]"]
    words += ["env.num_envs=4", "rollout_steps=16", "batch_size=64", "agent.epochs=8", "optimizer.lr=1e-2"]
    loop = loop_of(config([*words, "exploration.steps=500"]), tmp_path)
    while loop.clock.steps < 1_500:
        loop.step()
    states = np.array([[-1.0], [0.0], [1.0]], np.float32)
    q = loop.agent.q_values(torch.from_numpy(states)).numpy()
    wanted = {"constant": {1: 1}, "truncated": {1: 2}, "observation": {0: -1, 2: 1}, "discount": {1: 0.5, 2: 1}}
    wanted |= {"action": {1: 1}, "policy": {0: 1, 2: 1}}
    for i, v in wanted[ability].items():
        assert q[i].max() == pytest.approx(v, abs=0.1)
    right = {"action": {1: 1}, "policy": {0: 0, 2: 1}}.get(ability, {})
    assert {i: q[i].argmax() for i in right} == right


COMMON = ["network.shared=true", "optimizer.lr_end=1e-5", "reward_clip=0.5"]


@pytest.mark.parametrize("agent", ["a2c", "actor_critic", "reinforce", "trpo"])
@pytest.mark.parametrize("optimizer", ["rmsprop", "rmsprop_tf"])
def test_the_parts_of_all_go_with_each_agent(agent: str, optimizer: str, tmp_path: Path) -> None:
    words = [f"agent={agent}", "env=cartpole", *SMALL, *AGENTS[agent], *COMMON, f"optimizer={optimizer}"]
    words += [] if agent == "trpo" else ["agent.entropy_coef=0.01"]
    goes_on_with_the_same_bits([*words, "agent.clip_grad_norm=0.5"], tmp_path, [12], 60)


@pytest.mark.parametrize(
    "env",
    [
        ["env=pendulum"],
        ["env=frozenlake", "network/torso=mlp"],
        ["env=gym", "env.id=Taxi-v4"],
        ["env=gym", "env.id=ProbeJoint-v0", "env.imports=[tests.envs.probes]"],
    ],
    ids=" ".join,
)
def test_other_actions_and_observations(env: list[str], tmp_path: Path) -> None:
    """At the start and the end of rollouts, in the middle of them, at an episode's end."""
    goes_on_with_the_same_bits(["agent=ppo", *env, *SMALL, *AGENTS["ppo"]], tmp_path, [1, 7, 8, 12, 15, 20], 24)


def test_images(tmp_path: Path) -> None:
    words = ["agent=ppo", "env=pong", "tuned=none", "network.shared=true", "network/torso=nips_cnn", "batch_size=4"]
    words += ["rollout_steps=4", "agent.epochs=1", "env.num_envs=2", "env.max_frames=40"]
    goes_on_with_the_same_bits(words, tmp_path, [6], 18)


PROBES = [(agent, ability) for agent in ("ppo", "ppo-continuous", *list(AGENTS)[1:]) for ability in ABILITIES]
SOLVE = {
    "ppo": ["env.num_envs=4", "rollout_steps=16", "batch_size=64", "agent.epochs=8", "optimizer.lr=1e-2"],
    "a2c": ["env.num_envs=8", "rollout_steps=4", "optimizer.lr=2e-2"],
    "actor_critic": ["env.num_envs=8", "optimizer.lr=2e-2"],
    "reinforce": ["rollout_episodes=16", "optimizer.lr=2e-2"],
    "trpo": ["env.num_envs=4", "rollout_steps=16", "batch_size=32", "agent.max_kl=0.05", "optimizer.lr=1e-2"],
}
SOLVE["ppo-continuous"] = SOLVE["ppo"]


@pytest.mark.parametrize(("agent", "ability"), PROBES, ids=[f"{a}-{b}" for a, b in PROBES])
def test_probes(agent: str, ability: str, tmp_path: Path) -> None:
    """The values are right to 0.1 and, where the action matters, it is the right one. gamma is 0.5."""
    name, _, continuous = agent.partition("-")
    words = ["env=gym", f"env.id=Probe{ability.capitalize()}{continuous.capitalize()}-v0", "agent.gamma=0.5"]
    words += ["env.imports=[tests.envs.probes]", "tuned=none", "network.torso.sizes=[16]"]
    loop = loop_of(config([f"agent={name}", *words, *SOLVE[agent]]), tmp_path)
    while loop.clock.steps < (1_500 if name in ("a2c", "reinforce") else 750):
        loop.step()
    states = np.array([[-1.0], [0.0], [1.0]], np.float32)
    value = loop.agent.network.value(torch.from_numpy(states)).detach().numpy()
    wanted = {"constant": {1: 1}, "truncated": {1: 2}, "observation": {0: -1, 2: 1}, "discount": {1: 0.5, 2: 1}}.get(
        ability, {}
    )
    for i, v in wanted.items():
        assert value[i] == pytest.approx(v, abs=0.1)
    action, _ = loop.agent.act(states, None, Evaluate(np.random.default_rng(0)))
    if ability == "action":
        assert action[1] > 0
        assert value[1] > 0.7
    if ability == "policy":
        assert action[0] <= 0 < action[2]


def test_whole_commands(workdir: Path) -> None:
    """Train, resume, begin with the weights, evaluate, load."""
    short = ["num_threads=1", "total_steps=64", "rollout_steps=8", "env.num_envs=2", "eval.episodes=1"]
    done = rlrun("train", "agent=ppo", "env=cartpole", *short)
    assert done.code == 0, done
    said = " ".join(done.out.split())
    assert "agent PPO, learning in RolloutLoop" in said
    assert "rollout 8 steps of each environment" in said
    run = str(only_run())
    for words in [("train", f"resume={run}", "total_steps=80"), ("eval", run, "episodes=2", "epsilon=0.5")]:
        done = rlrun(*words)
        assert done.code == 0, done
    done = rlrun("train", f"init_from={run}", "init_from_optimizer=true", "agent=ppo", "env=cartpole", *short)
    assert done.code == 0, done
    agent = rl_runner.load(run)
    assert agent.act(np.zeros(4, np.float32)) in (0, 1)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["agent=ppo", "env=cartpole", "network=mlp"],
            "network: QNetwork has no state value; this agent needs",
        ),
        (
            ["agent=dqn", "env=cartpole", "network=actor_critic"],
            "network: ActorCritic has no action values; this",
        ),
        (["agent=ppo", "env=cartpole", "agent.entropy_coef=nan"], "agent.entropy_coef: must be a number, got nan"),
        (["agent=ppo", "env=cartpole", "agent.clip_end=-1"], "agent.clip_end: must be 0 or more, or null for"),
        (["agent=actor_critic", "env=cartpole", "agent.normalize_advantages=true"], "agent.normalize_advantages: must"),
        (
            ["agent=ppo", "env=cartpole", "total_steps=248"],
            "rollout_steps: 32 × env.num_envs=8 is longer than total_steps=248: nothing would be learned; use at most "
            "31, or raise total_steps",
        ),
        (
            ["agent=ppo", "env=pendulum", "rollout_steps=1"],
            "agent.normalize_advantages: must be false where",
        ),
        (
            ["agent=reinforce", "env=cartpole", "agent.baseline=mean"],
            "rollout_episodes: must be at least 2 with agent.baseline=mean, which is the mean over the steps of the",
        ),
        (
            [
                *["agent=reinforce", "env=cartpole", "agent.returns=trajectory", "agent.baseline=none"],
                "agent.normalize_advantages=true",
            ],
            "agent.normalize_advantages: must be false with returns=trajectory and rollout_episodes=1, because",
        ),
        (
            ["agent=ppo", "env=cartpole", "rollout_steps=null", "env.num_envs=1", "agent.compiled=true"],
            "agent.compiled: must be false for whole episodes",
        ),
        (["agent=ppo", "env=cartpole", "batch_size=1"], "agent.normalize_advantages: must be false where"),
        (["agent=ppo", "env=cartpole", "rollout_steps=0"], "rollout_steps: must be a whole number, 1 or more, or null"),
        (["agent=ppo", "env=cartpole", "batch_size=0"], "agent.batch_size: must be at least 1, got 0"),
        (["agent=reinforce", "env=cartpole", "env.num_envs=2"], "env.num_envs: must be 1, because rollouts are whole"),
        (
            ["agent=reinforce", "env=cartpole", "rollout_steps=64", "env.num_envs=3"],
            "rollout_steps: must be null, because this agent learns from whole episodes, got 64",
        ),
        (
            ["agent=ppo", "env=cartpole", *MEMORY, "agent.sequence_steps=5"],
            "agent.sequence_steps: must divide rollout_steps=32, got 5",
        ),
        (
            ["agent=ppo", "env=cartpole", *MEMORY, "batch_size=8"],
            "batch_size: must be at least 16, the steps of one sequence (the smaller of agent.sequence_steps and "
            "rollout_steps), got 8",
        ),
        (
            ["agent=ppo", "env=cartpole", *MEMORY, "~agent.sequence_steps", "rollout_steps=100"],
            "agent.sequence_steps: must divide rollout_steps=100, got 16",
        ),
        (["agent=ppo", "env=cartpole", "agent.sequence_steps=0"], "agent.sequence_steps: must be a whole number, 1 or"),
        (
            ["agent=ppo", "env=cartpole", *MEMORY, "agent.compiled=true"],
            "agent.compiled: must be false with network.memory",
        ),
        (
            ["agent=ppo", "env=cartpole", *MEMORY, "rollout_steps=null", "env.num_envs=1"],
            "rollout_steps: must be a number of steps with network.memory and this agent, got null",
        ),
        (
            ["agent=ars", "env=cartpole", "rollout_episodes=5"],
            "rollout_episodes: must be even, because this agent plays",
        ),
        (
            ["agent=ars", "env=cartpole", "env.num_envs=2"],
            "env.num_envs: must be 1, because rollouts are whole episodes",
        ),
        (["agent=ars", "env=cartpole", *MEMORY], "network.memory: must be null with this agent; agent=ppo learns with"),
        (
            ["agent=trpo", "env=cartpole", *MEMORY],
            "network.memory: must be null with this agent; agent=ppo learns with",
        ),
        (["agent=a2c", "env=cartpole", "network.memory=rnn"], "network.memory: must be one of lstm, gru, or null, got"),
        (["agent=pqn", "env=pendulum"], "env: Pendulum-v1 has actions Box(-2.0, 2.0, (1,), float32); this agent needs"),
        (["agent=pqn", "env=cartpole", "network=actor_critic"], "network: ActorCritic has no action values; this"),
        (["agent=pqn", "env=cartpole", "agent.lam=2"], "agent.lam: must be in [0, 1], got 2"),
        (["agent=pqn", "env=cartpole", "exploration=gaussian"], "exploration: "),
        (["agent=a2c", "env=cartpole", "agent.value_coef=-1"], "agent.value_coef: must be a number, 0 or more, got -1"),
        (["agent=a2c", "env=cartpole", "agent.clip_grad_norm=0"], "agent.clip_grad_norm: must be above 0, or null"),
    ],
    ids=lambda x: x if isinstance(x, str) else " ".join(x),
)
def test_what_does_not_fit_is_refused(words: list[str], line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        loop_of(config(words), tmp_path)
    assert str(error.value).startswith(line)
