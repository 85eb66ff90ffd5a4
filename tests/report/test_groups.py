"""Groups: what differs between configurations, and what is refused."""

import json
from pathlib import Path

import pytest

from rl_runner.report import groups, runs
from rl_runner.types import UserError
from tests.runs import PONG, a_run


def grouped(tmp_path: Path, *changes: dict[str, object], by: tuple[str, ...] = ()) -> groups.Grouping:
    for i, change in enumerate(changes):
        a_run(tmp_path / f"r{i}", {300: 1.0}, change)
    return groups.group([runs.read(path) for path in runs.find([str(tmp_path)])], by)


def test_what_does_not_matter_makes_no_groups(tmp_path: Path) -> None:
    found = grouped(
        tmp_path, {}, {"seed": 1, "device": "cuda", "log.every_steps": 7, "eval.num_envs": 1}, {"tags": ["a"]}
    )
    assert [(g.label, len(g.runs)) for g in found.groups] == [("all runs", 3)]
    assert (found.keys, found.along, found.within) == ([], [], [])


def test_keys_that_differ_together_are_named_once(tmp_path: Path) -> None:
    ppo = {"agent.name": "ppo", "optimizer.lr": 0.1, "agent.clip": 0.2}
    found = grouped(tmp_path, {}, ppo, {"seed": 1}, {**ppo, "seed": 1})
    assert {g.label: [run.seed for run in g.runs] for g in found.groups} == {"dqn": ["0", "1"], "ppo": ["0", "1"]}
    assert found.keys == ["agent.name"]
    assert sorted(found.along) == ["agent.clip", "optimizer.lr"]


def in_a_sweep(tmp_path: Path, *jobs: tuple[str, dict[str, object]]) -> groups.Grouping:
    for i, (words, change) in enumerate(jobs):
        note = {"overrides": words.split(), "state": "finished"}
        (a_run(tmp_path / f"{i}", {300: 1.0}, change) / "job.json").write_text(json.dumps(note))
    return groups.group([runs.read(path) for path in runs.find([str(tmp_path)])])


RAINBOW: dict[str, object] = {"agent.name": "rainbow", "agent.n_step": 3}


def test_runs_of_a_sweep_are_named_by_what_was_swept(tmp_path: Path) -> None:
    found = in_a_sweep(
        tmp_path,
        ("seed=0 ablation=dqn lr=1", {}),
        ("seed=1 ablation=dqn lr=1", {"seed": 1}),
        ("seed=0 ablation=all lr=1", RAINBOW),
    )
    assert {g.label: [run.seed for run in g.runs] for g in found.groups} == {"dqn": ["0", "1"], "all": ["0"]}
    assert found.keys == ["ablation"]
    assert found.along == ["agent.name", "agent.n_step"]


@pytest.mark.parametrize(
    "jobs",
    [
        [("ablation=dqn", {}), ("ablation=dqn_again", {"seed": 1}), ("ablation=all", RAINBOW)],  # one group, two names
        [("ablation=dqn", {}), ("ablation=dqn", RAINBOW)],  # two groups, one name
        [("ablation=dqn env=a", {}), ("ablation=all env=b", {**PONG, **RAINBOW})],  # two environments
    ],
)
def test_what_was_swept_names_no_groups_that_it_does_not_make(
    jobs: list[tuple[str, dict[str, object]]], tmp_path: Path
) -> None:
    assert "ablation" not in in_a_sweep(tmp_path, *jobs).keys


def test_runs_of_two_sweeps_are_named_by_their_configurations(tmp_path: Path) -> None:
    for name, change in (("one", {}), ("two", RAINBOW)):
        in_a_sweep(tmp_path / name, (f"ablation={name}", change))
    found = groups.group([runs.read(path) for path in runs.find([str(tmp_path)])])
    assert found.keys == ["agent.name"]


def test_what_lies_beside_runs_of_no_sweep_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a whole home directory, with files that come and go."""
    monkeypatch.setattr(groups.results, "told", lambda directory: pytest.fail(f"{directory} was read"))
    assert len(grouped(tmp_path, {}, RAINBOW).groups) == 2


def test_two_keys_make_four_groups(tmp_path: Path) -> None:
    changes = [{"agent.double": double, "optimizer.lr": lr} for double in (True, False) for lr in (0.1, 0.2)]
    found = grouped(tmp_path, *changes)
    assert len(found.groups) == 4
    assert found.groups[0].label == "agent.double=true optimizer.lr=0.1"


def test_values_tuned_for_each_environment_do_not_split_groups(tmp_path: Path) -> None:
    ppo = {"agent.name": "ppo"}
    found = grouped(
        tmp_path,
        {"optimizer.lr": 0.1},
        {**ppo, "optimizer.lr": 0.2},
        {**PONG, "optimizer.lr": 0.3},
        {**PONG, **ppo, "optimizer.lr": 0.4},
    )
    assert [(g.environment, g.label) for g in found.groups] == [
        ("CartPole-v1", "dqn"),
        ("CartPole-v1", "ppo"),
        ("pong", "dqn"),
        ("pong", "ppo"),
    ]


def test_another_version_is_another_environment(tmp_path: Path) -> None:
    found = grouped(tmp_path, {}, {"env.id": "CartPole-v0"})
    assert {g.environment for g in found.groups} == {"CartPole-v0", "CartPole-v1"}


def test_chosen_keys_and_what_groups_then_mix(tmp_path: Path) -> None:
    changes = [{"agent.double": double, "optimizer.lr": lr} for double in (True, False) for lr in (0.1, 0.2)]
    found = grouped(tmp_path, *changes, by=("agent",))
    assert [(g.label, len(g.runs)) for g in found.groups] == [("agent.double=true", 2), ("agent.double=false", 2)]
    assert found.within == ["optimizer.lr"]


def test_keys_that_are_ignored_otherwise_can_be_chosen(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [{"tags": [tag], "seed": seed} for tag in ("old", "new") for seed in range(3)]
    found = grouped(tmp_path, *changes, by=("tags",))
    assert [(g.label, len(g.runs)) for g in found.groups] == [('tags=["old"]', 3), ('tags=["new"]', 3)]
    assert found.within == []


@pytest.mark.parametrize(
    ("by", "says"),
    [
        ("agent.name", "groups would mix env.sticky 0.25 and 0.0; add env.sticky to --by"),
        ("lr", "no run has a key 'lr'; did you mean optimizer.lr?"),
        ("agnet.name", "did you mean agent.name?"),
        ("zzz", "no run has a key 'zzz'"),
    ],
)
def test_what_is_refused(tmp_path: Path, by: str, says: str) -> None:
    with pytest.raises(UserError) as e:
        grouped(tmp_path, {"env.sticky": 0.25}, {"agent.name": "ppo"}, {}, by=(by,))
    assert says in str(e.value)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("env.sticky", (0.0, 0.25)),
        ("env.frame_skip", (1, 4)),
        ("eval.epsilon", (0.0, 0.05)),
        ("total_steps", (300, 600)),
        ("stop.eval_return", (None, 18.0)),
        ("env.kwargs.slippery", (True, False)),
    ],
)
def test_protocols_that_differ(tmp_path: Path, key: str, values: tuple[object, object]) -> None:
    found = grouped(tmp_path, *({key: value} for value in values))
    (by,) = groups.protocol_differences(found.groups).values()
    assert len(set(by.values())) == 2
