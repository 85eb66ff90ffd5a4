"""Each mistake is found, and a sound configuration gives no finding."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest

from rl_runner.build import saved
from rl_runner.doctor import planned
from rl_runner.doctor.planned import Plan
from rl_runner.launch.composed import compose
from rl_runner.types import State
from tests.loops.test_replay import make

GIGA = 10**9
BREAKOUT = {"game": "breakout", "repeat_action_probability": 0.25, "frameskip": 4}  # as ale-py registers it


@functools.cache
def _composed(*words: str) -> State:
    return saved.plain(compose(list(words))[0])


def config(*words: str, **changes: Any) -> State:
    """Return the configuration of these words with changes, whose keys have "__" for a dot."""
    cfg = copy.deepcopy(_composed(*words))
    for key, value in changes.items():
        *groups, name = key.split("__")
        node = functools.reduce(lambda node, group: node[group], groups, cfg)
        node[name] = value
    return cfg


def keys(plan: Plan) -> list[str]:
    return [finding.key for finding in planned.findings(plan)]


dqn = functools.partial(config, "env=cartpole")
c51 = functools.partial(config, "env=cartpole", "value=c51")
ppo = functools.partial(config, "agent=ppo", "env=cartpole")
ddpg = functools.partial(config, "agent=ddpg", "env=pendulum")
gym = functools.partial(config, "env=gym", "env.id=ALE/Breakout-v5")
SKIP: State = {"_target_": "gymnasium.wrappers.MaxAndSkipObservation", "skip": 4}

MISTAKES: list[tuple[Callable[..., State], State, State, str]] = [  # wrong, right, and the key that is named
    (dqn, {"learning_starts": 50_001}, {"learning_starts": 40_000}, "learning_starts"),
    (dqn, {"learn_every_steps": 50_001}, {"learn_every_steps": 40_000}, "learn_every_steps"),
    (ppo, {"rollout_steps": 6_251}, {"rollout_steps": 6_250}, "rollout_steps"),
    (dqn, {"exploration__steps": 50_001}, {"exploration__steps": 50_000}, "exploration.steps"),
    (dqn, {"exploration__start": 1.0, "exploration__end": 1.0}, {"exploration__end": 0.2}, "exploration.end"),
    (dqn, {"exploration__start": 0.0, "exploration__end": 0.0}, {"exploration__end": 0.0}, "exploration"),
    (ddpg, {"exploration__start": 0.0, "exploration__end": 0.0}, {"exploration__end": 0.0}, "exploration.start"),
    (
        ppo,
        {"optimizer__lr_steps": 49_999},
        {"optimizer__lr_steps": 49_999, "optimizer__lr_end": 1e-5},
        "optimizer.lr_steps",
    ),
    (dqn, {"eval__every_steps": 0, "stop__eval_return": 500}, {"eval__every_steps": 0}, "stop.eval_return"),
    (
        dqn,
        {"eval__every_steps": 50_000, "stop__eval_return": 500},
        {"eval__every_steps": 49_999, "stop__eval_return": 500},
        "stop.eval_return",
    ),
    (dqn, {"replay__capacity": 999}, {"replay__capacity": 1_000}, "replay.capacity"),
    (dqn, {"sync__every_updates": 25_001}, {"sync__every_updates": 5_000}, "sync.every_updates"),
    (dqn, {"sync__every_steps": 50_001}, {"sync__every_steps": 50_000}, "sync.every_steps"),
    (dqn, {"batch_size": 100_001}, {"batch_size": 1_000}, "batch_size"),
    (ppo, {"agent__batch_size": 257}, {"agent__batch_size": 256}, "batch_size"),
    (c51, {"reward_clip": 0.5}, {"reward_clip": 1.0}, "value"),  # returns up to 50, where the bounds are 0 and 100
    (c51, {"reward_clip": 200.0, "agent__gamma": 0.9}, {"agent__gamma": 0.9}, "value"),
    (c51, {"agent__gamma": 0.999}, {"agent__gamma": 0.98}, "value"),
    (
        gym,
        {"env__wrappers": [SKIP], "env__kwargs": {"frameskip": 2}},
        {"env__kwargs": {"frameskip": 4}},
        "env.wrappers",
    ),
    (gym, {}, {"env__kwargs": {"frameskip": 1}, "env__wrappers": [SKIP]}, "env.id"),
]


def test_learning_by_episodes_must_begin_within_the_run() -> None:
    cfg = config("experiment=lunarlander_dqn", total_steps=1_000, learning_starts=1_000)
    (refused,) = (finding for finding in planned.findings(Plan(cfg)) if finding.refused)
    assert refused.key == "learning_starts"
    assert not any(finding.refused for finding in planned.findings(Plan({**cfg, "learning_starts": 999})))


@pytest.mark.parametrize(("of", "wrong", "right", "key"), MISTAKES, ids=lambda x: x if isinstance(x, str) else "")
def test_a_mistake_is_found_and_what_is_right_is_not(
    of: Callable[..., State], wrong: State, right: State, key: str
) -> None:
    registered = BREAKOUT if of is gym else {}
    (found,) = planned.findings(Plan(of(**wrong), registered=registered))
    assert found.key == key
    assert str(found).startswith(f"{key}: ")
    assert "\n" not in str(found)
    assert keys(Plan(of(**right), registered=registered)) == []


def test_only_what_cannot_learn_is_refused_and_only_of_a_new_run() -> None:
    for cfg in (dqn(total_steps=1_000, learning_starts=1_001), ppo(rollout_steps=99_999)):
        assert planned.findings(Plan(cfg))[0].refused
        assert not any(finding.refused for finding in planned.findings(Plan(cfg, resumed=True)))


def test_a_rule_of_the_users_own_may_have_the_name_of_ours() -> None:
    rule = {"_target_": "my_pkg.EpsilonGreedy", "epsilon": 0.1}
    assert keys(Plan({**dqn(), "exploration": rule})) == []


def test_a_greedy_rule_needs_a_network_that_explores() -> None:
    cfg = config("env=cartpole", "exploration=greedy")
    assert keys(Plan(cfg)) == ["exploration"]
    assert keys(Plan(cfg, noisy=True)) == []


@pytest.mark.parametrize(("free", "refused"), [(10 * GIGA, []), (5 * GIGA, [False]), (4 * GIGA, [True])])
def test_memory_of_all_parts_together(free: int, refused: list[bool]) -> None:
    plan = Plan(dqn(), memory={"the replay memory": 3 * GIGA, "the network": int(1.2 * GIGA)}, free_memory=free)
    assert [finding.refused for finding in planned.findings(plan)] == refused
    assert keys(Plan(dqn(), memory=plan.memory, free_memory=None)) == []


def test_checkpoints_that_do_not_fit_on_the_disk() -> None:
    plan = functools.partial(Plan, dqn(checkpoint__keep=2), checkpoint=GIGA)
    assert keys(plan(free_disk=3 * GIGA)) == []
    (found,) = planned.findings(plan(free_disk=2 * GIGA))
    assert found.right == "use checkpoint.keep=1"
    (found,) = planned.findings(plan(free_disk=GIGA))
    assert found.right == "use checkpoint.replay=false"
    assert keys(plan(free_disk=GIGA, resumed=True)) == []


def test_clipped_bounds_of_atari() -> None:
    rainbow = functools.partial(config, "agent=rainbow", "env=breakout")
    assert keys(Plan(rainbow(), noisy=True)) == []
    assert keys(Plan(rainbow(reward_clip=None), noisy=True)) == ["value"]
    pong = config("agent=rainbow", "env=pong", reward_clip=None)
    assert keys(Plan(pong, noisy=True)) == []  # whose rewards are -1, 0 and 1 as they are


def test_an_untuned_pair() -> None:
    checks = (planned.untuned,)
    assert planned.findings(Plan(dqn()), checks) == []
    assert planned.findings(Plan(config("env=cartpole", "tuned=none")), checks) == []  # as asked
    (found,) = planned.findings(Plan(config("agent=actor_critic", "env=cartpole")), checks)
    assert "actor_critic on cartpole" in str(found)


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("num_envs", [1, 3, 8])
@pytest.mark.parametrize(
    ("starts", "every"), [(0, 1), (1, 1), (10, 4), (50, 7), (99, 50), (100, 3), (101, 1), (5, 200)]
)
def test_updates_are_those_of_the_loop(starts: int, every: int, num_envs: int, overlap: bool) -> None:
    loop, _ = make(num_envs, learning_starts=starts, learn_every=every, updates_per_learn=2, overlap=overlap)
    while loop.clock.steps < 100:
        loop.step()
    values = {"learning_starts": starts, "learn_every_steps": every, "updates_per_learn": 2, "overlap": overlap}
    assert Plan(dqn(total_steps=100, env__num_envs=num_envs, **values)).updates == loop.clock.updates
