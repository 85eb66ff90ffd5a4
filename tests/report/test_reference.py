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


def score(game: str = "pong", **fields: str) -> reference.Published:
    """Return a score whose protocol is that of PONG, but for the fields given."""
    same = {"sticky": "0", "measured": "evaluation", "chosen": "", "eval_epsilon": "0", "frames": "40000000"}
    return reference.Published(
        game, source="a source", agent="DQN", protocol="", score="20", spread="", **{**same, **fields}
    )


@pytest.mark.parametrize(
    ("fields", "changes", "differs"),
    [
        ({}, {}, []),
        ({"measured": ""}, {}, ["training or evaluation not stated"]),
        ({"measured": "training"}, {}, ["training returns, here evaluations"]),
        ({"sticky": "0.25"}, {"env.sticky": None}, ["sticky 0.25, here 0"]),  # ~env.sticky
        ({"sticky": "0.25"}, {"env.sticky": 0.25}, []),
        ({}, {"env.sticky": 0.25}, ["sticky 0, here 0.25"]),
        ({"sticky": ""}, {}, ["stickiness not stated, here 0"]),
        ({"chosen": "best"}, {}, ["best chosen, here the agent at the end"]),
        ({"eval_epsilon": "0.05"}, {}, ["eval epsilon 0.05, here 0"]),
        ({"eval_epsilon": ""}, {}, []),
        ({"eval_epsilon": ""}, {"eval.epsilon": 0.01}, ["eval epsilon not stated, here 0.01"]),
        ({"eval_epsilon": "", "measured": "training"}, {"eval.epsilon": 0.01}, ["training returns, here evaluations"]),
        ({}, {"eval.epsilon": 0.01}, ["eval epsilon 0, here 0.01"]),
        ({"frames": "10000000"}, {}, ["10,000,000 frames, here 40,000,000"]),
        ({"frames": ""}, {}, ["budget not stated"]),
    ],
)
def test_protocols(fields: dict[str, str], changes: dict[str, object], differs: list[str]) -> None:
    assert reference.differences(score(**fields), {**PONG, **changes}) == differs


def test_the_fields_of_all_published_scores_can_be_read() -> None:
    for one in reference._all():
        assert one.measured in ("", "training", "evaluation"), one
        assert one.chosen in ("", "best"), one
        for number in (one.sticky, one.eval_epsilon, one.frames, one.score):
            float(number or 0)


def test_gymnasium_counts_steps_and_has_versions() -> None:
    other = score("LunarLander-v2", sticky="", frames="1000000")
    config = {"env.id": "LunarLander-v3", "total_steps": 500_000, "eval.epsilon": 0.0}
    assert reference.differences(other, config) == [
        "of LunarLander-v2, here LunarLander-v3",
        "1,000,000 steps, here 500,000",
    ]
