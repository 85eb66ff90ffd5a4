"""Published scores: where a protocol is not that of the runs."""

import pytest

from rl_runner.report import reference

PONG = {"env.game": "pong", "env.sticky": 0.0, "env.frame_skip": 4, "eval.epsilon": 0.0, "total_steps": 10_000_000}


def test_human_scores() -> None:
    assert len(reference.human_scores()) == 57
    assert reference.human_scores()["breakout"] == (1.7, 30.5)


def test_other_versions_of_an_environment_are_found() -> None:
    found = reference.published("LunarLander-v3")
    assert {score.game for score in found} == {"LunarLander-v2", "LunarLander"}
    assert reference.published("Nothing-v0") == []


@pytest.mark.parametrize(
    ("protocol", "frames", "changes", "differs"),
    [
        ("no sticky, greedy", "40000000", {}, []),
        ("no sticky", "40000000", {}, ["training or evaluation not stated"]),
        ("sticky 0.25, greedy", "40000000", {"env.sticky": None}, ["sticky 0.25, here 0"]),  # ~env.sticky
        ("no sticky, greedy", "40000000", {"env.sticky": 0.25}, ["sticky 0, here 0.25"]),
        ("sticky 0.25, train return", "40000000", {}, ["sticky 0.25, here 0", "training returns, here evaluations"]),
        ("", "40000000", {}, ["stickiness not stated, here 0", "training or evaluation not stated"]),
        (
            "no sticky, eval eps 0.05",
            "10000000",
            {},
            ["eval epsilon 0.05, here 0", "10,000,000 frames, here 40,000,000"],
        ),
        ("no sticky, best", "40000000", {}, ["best chosen, here the agent at the end"]),
        ("no sticky, greedy", "", {}, ["budget not stated"]),
        ("no sticky, 10 eval episodes", "40000000", {}, []),
        ("no sticky, 10 eval episodes", "40000000", {"eval.epsilon": 0.01}, ["eval epsilon not stated, here 0.01"]),
        ("no sticky, train", "40000000", {"eval.epsilon": 0.01}, ["training returns, here evaluations"]),
        ("no sticky, greedy", "40000000", {"eval.epsilon": 0.01}, ["eval epsilon 0, here 0.01"]),
    ],
)
def test_protocols(protocol: str, frames: str, changes: dict[str, object], differs: list[str]) -> None:
    score = reference.Published("pong", "a source", "DQN", protocol, frames, "20", "")
    assert reference.differences(score, {**PONG, **changes}) == differs


def test_gymnasium_counts_steps_and_has_versions() -> None:
    score = reference.Published("LunarLander-v2", "a source", "PPO", "greedy, 1 run", "1000000", "242", "")
    config = {"env.id": "LunarLander-v3", "total_steps": 500_000, "eval.epsilon": 0.0}
    assert reference.differences(score, config) == [
        "of LunarLander-v2, here LunarLander-v3",
        "1,000,000 steps, here 500,000",
    ]
