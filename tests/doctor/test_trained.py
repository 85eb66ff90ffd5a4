"""Each fault of a run is found by its numbers, and a sound run gives no finding."""

import math
from typing import Any

import numpy as np
import pytest

from rl_runner.doctor import trained
from rl_runner.doctor.played import Played
from rl_runner.doctor.trained import Trained

EPSILON = {"_target_": "rl_runner.exploration.EpsilonGreedy", "start": 1.0, "end": 0.05, "steps": 1_000}
CFG: dict[str, Any] = {
    "total_steps": 10_000,
    "learning_starts": 1_000,
    "batch_size": 32,
    "reward_clip": None,
    "agent": {"gamma": 0.9},
    "env": {"returns": [-10, 10]},
    "exploration": EPSILON,
    "replay": {"capacity": 5_000},
}
TABLE = {
    "learn/loss": [(5_000, 0.1), (10_000, 0.2)],
    "learn/q_max": [(5_000, 9.0), (10_000, 8.0)],
    "learn/updates": [(1_000, 0.0), (10_000, 9_000.0)],
    "explore/epsilon": [(1_000, 0.05), (10_000, 0.05)],
    "eval/return_mean": [(10_000, 5.0)],
}


def played(values: float = 5.0, returns: float = 5.0, dead: int = 90) -> Played:
    return Played(500, {"torso.1": (dead, 100)}, np.full(200, values), np.full(200, returns), 1.0)


def findings(
    table: dict[str, Any] | None = None, steps: int = 10_000, seen: Played | None = None, **cfg: Any
) -> list[str]:
    run = Trained({**CFG, **cfg}, {**TABLE, **(table or {})}, steps, True, 10_000, seen or played())
    return list(map(str, trained.findings(run)))


def test_a_sound_run() -> None:
    assert findings() == []
    assert findings(steps=5_000) == []


CASES: list[tuple[dict[str, Any], str]] = [
    ({"table": {"learn/loss": [(5_000, 0.1), (6_000, math.nan)]}}, "learn/loss: nan at step 6,000 is not finite"),
    ({"table": {"learn/updates": [(10_000, 0.0)]}}, "learn/updates: 0 at step 10,000 and learning_starts=1000"),
    ({"table": {"learn/q_max": [(5_000, 31.0), (6_000, 2.0)]}}, "learn/q_max: 31 at step 5,000 is beyond 3 × 10"),
    ({"table": {"learn/q_mean": [(5_000, -31.0)]}}, "learn/q_mean: -31 at step 5,000 is beyond 3 × 10"),
    ({"table": {"learn/q_max": [(1, 10.6)]}, "reward_clip": 1.0}, "learn/q_max: 10.6 at step 1 is beyond the largest"),
    (
        {"table": {"explore/epsilon": [(9_000, 0.9)]}, "exploration": {**EPSILON, "steps": 100_000}},
        "explore/epsilon: 0.9 at step 9,000 does not fall to 0.05 in this run: the schedule gets there at step "
        "100,000, the run ends at 10,000; use exploration.steps of at most 10,000",
    ),
    ({"table": {"explore/epsilon": [(10_000, 0.0)]}}, "explore/epsilon: 0 at step 10,000 and never above"),
    (
        {"table": {"explore/noise_std": [(10_000, 0.0)]}},
        "explore/noise_std: 0 at step 10,000 and never above: nothing was explored; use exploration.start=0.1",
    ),
    (
        {"exploration": {"_target_": "rl_runner.exploration.Greedy"}},
        "exploration: Greedy at step 10,000 with a network without noisy layers",
    ),
    ({"replay": {"capacity": 300}}, "replay: 300 at step 10,000 is the number of its transitions, few"),
    ({"seen": played(dead=96)}, "dead units in torso.1: 0.96 at step 10,000 of its 100 units are 0"),
    (
        {"seen": played(values=8.0)},
        "max Q: 8 at step 10,000 is the mean over 200 states, and the return from there on 5",
    ),
]


@pytest.mark.parametrize(("changes", "wanted"), CASES, ids=[wanted[:20] for _, wanted in CASES])
def test_a_fault_is_found(changes: dict[str, Any], wanted: str) -> None:
    (found,) = findings(**changes)
    assert found.startswith(wanted)


def test_what_is_no_fault() -> None:
    assert findings({"learn/q_max": [(5_000, 29.0)]}) == []
    assert findings({"learn/q_max": [(5_000, 10.4)]}, reward_clip=1.0) == []
    assert findings({"learn/updates": [(1_000, 0.0)], "learn/loss": []}, steps=1_000) == []  # still collecting
    assert findings(seen=played(values=7.4)) == []
    (untrained,) = findings({"learn/updates": [(10_000, 0.0)]}, seen=played(values=0.0, returns=-300.0))
    assert untrained.startswith("learn/updates: 0")  # and no advice on values of random weights
    assert findings(seen=played(values=-5.0)) == []  # too low is no over-estimation
    assert findings(seen=played(values=50.0, returns=5.0)._replace(values=np.empty(0), returns=np.empty(0))) == []


def test_a_short_run_needs_no_larger_replay_memory() -> None:
    short = {"learn/updates": [(300, 100.0)]}
    (found,) = findings(short, steps=300)
    assert found.endswith("use more total_steps, or learning_starts=320 or more")
    (found,) = findings(short, steps=300, replay={"capacity": 300})
    assert found.endswith("use replay.capacity=320 or more")


def test_weights_that_are_not_finite() -> None:
    (found,) = trained.findings(Trained(CFG, TABLE, 10_000, finite=False, saved=9_000))
    assert str(found).startswith("checkpoint: a weight at step 9,000 is not finite")


def test_a_checkpoint_that_is_damaged() -> None:
    (found,) = trained.findings(Trained(CFG, TABLE, 10_000, damaged=["checkpoint a/best_7 is damaged: agent.npz ..."]))
    assert str(found).startswith("checkpoint: a/best_7 is damaged: agent.npz ...; restore it from a copy")


def test_a_table_that_is_empty() -> None:
    assert trained.findings(Trained(CFG, {}, 0)) == []
