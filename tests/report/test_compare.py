"""The numbers of a comparison, by hand; what is left out, and what is never mixed."""

from pathlib import Path

import numpy as np
import pytest

from rl_runner.report.compare import compare
from rl_runner.run.checkpoint import Checkpoints
from rl_runner.types import UserError
from tests.runs import INTERRUPTED, PONG, a_run, an_evaluation

BREAKOUT = {**PONG, "env.name": "breakout", "env.game": "breakout"}


def a_group(directory: Path, finals: list[float], changes: dict[str, object] | None = None) -> Path:
    for seed, final in enumerate(finals):
        a_run(directory / f"s{seed}", {100: 0.0, 200: 50.0, 300: final}, {**(changes or {}), "seed": seed})
    return directory


def test_the_numbers_of_two_groups(tmp_path: Path) -> None:
    a_group(tmp_path / "dqn", [10.0, 20.0, 30.0, 40.0])
    a_group(tmp_path / "ppo", [25.0, 35.0, 45.0, 100.0], {"agent.name": "ppo"})
    found = compare([str(tmp_path)], threshold=40.0)
    (block,) = found.blocks
    dqn, ppo = block.rows
    assert (block.environment, dqn.label, ppo.label) == ("CartPole-v1", "dqn", "ppo")
    assert (dqn.last.value, dqn.iqm.value, dqn.best) == (25, 25, 50)
    assert (ppo.last.value, ppo.iqm.value, ppo.best) == (51.25, 40, (3 * 50 + 100) / 4)
    assert ppo.area.value == pytest.approx((3 * 4 * 0 + 4 * 50 + 205) / 12)
    # Of 16 pairs ppo wins 2 + 3 + 4 + 4.
    assert ppo.better is not None
    assert ppo.better.value == 13 / 16
    assert dqn.better is None
    assert ppo.detectable is not None
    assert dqn.last.low is not None
    assert 10 < dqn.last.low < 25
    assert dqn.reached == (40, 4, 200, pytest.approx(2))
    assert (block.source, found.overall, found.notes) == ("the last evaluation while training", None, [])
    np.testing.assert_allclose(dqn.curves[0].mean, [0, 50, 25])
    shares = dict(zip(block.profile[0].x, block.profile[0].mean, strict=True))
    assert {share for threshold, share in shares.items() if 20 < threshold < 30} == {0.5}


def test_a_threshold_that_half_of_the_runs_do_not_reach(tmp_path: Path) -> None:
    a_group(tmp_path, [10.0, 60.0, 60.0, 20.0])
    (row,) = compare([str(tmp_path)], threshold=55).blocks[0].rows
    assert row.reached == (55, 2, float("inf"), float("inf"))


def test_a_threshold_that_is_reached_before_the_clock_is_logged(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r", {100: 60.0, 300: 0.0})
    table = run / "metrics.csv"
    table.write_text(table.read_text().replace("100,time/seconds,60.0\n", ""))  # 180 seconds at step 300
    (row,) = compare([str(tmp_path)], threshold=55).blocks[0].rows
    assert row.reached == (55, 1, 100, pytest.approx(1))


def test_scores_of_fresh_seeds_where_every_run_has_them(tmp_path: Path) -> None:
    a_group(tmp_path, [10.0, 20.0, 30.0])
    for seed in range(3):
        run = tmp_path / f"s{seed}"
        an_evaluation(run, "step_000000200", 99.0, step=200)  # not at the end
        an_evaluation(run, "best_000000200", 7.0 + seed, step=200)
        an_evaluation(run, "step_000000300", 99.0, protocol={"eval_epsilon": float(seed)})  # not the same for all
        if seed < 2:
            an_evaluation(run, "step_000000300", 1.0 + seed)
    (block,) = compare([str(tmp_path)]).blocks
    assert block.rows[0].scores == [10, 20, 30]
    assert block.rows[0].best == 8
    assert block.chosen.startswith("rlrun eval, 100 episodes of fresh seeds")
    an_evaluation(tmp_path / "s2", "step_000000300", 3.0)
    (block,) = compare([str(tmp_path)]).blocks
    assert block.rows[0].scores == [1, 2, 3]
    assert block.source == "rlrun eval, 100 episodes of fresh seeds (seed 0; eval_epsilon: 0.0)"


def test_the_runs_without_scores_of_fresh_seeds_are_named(tmp_path: Path) -> None:
    a_group(tmp_path, [10.0, 20.0, 30.0])
    assert compare([str(tmp_path)]).notes == []
    an_evaluation(tmp_path / "s0", "step_000000300", 1.0)
    an_evaluation(tmp_path / "s1", "step_000000300", 2.0)
    found = compare([str(tmp_path)])
    assert found.blocks[0].rows[0].scores == [10, 20, 30]
    assert found.notes == [
        f"scores of rlrun eval do not count, because 1 of 3 runs have none of their last agent: {tmp_path / 's2'}"
    ]
    an_evaluation(tmp_path / "s2", "step_000000300", 3.0, protocol={"eval_epsilon": 0.5})
    found = compare([str(tmp_path)])
    assert found.blocks[0].rows[0].scores == [10, 20, 30]
    assert found.notes == ["rlrun eval has evaluated these runs in different ways, so none of its scores count"]


def test_a_run_that_stops_early_is_not_the_worse_for_it(tmp_path: Path) -> None:
    early = {"stop.eval_return": 100, "total_steps": 1000}
    for seed in range(3):
        a_run(tmp_path / "fast" / f"s{seed}", {100: 0.0, 200: 120.0}, {**early, "seed": seed})
        a_run(tmp_path / "slow" / f"s{seed}", {100: 0.0, 500: 20.0, 1000: 110.0}, {**early, "seed": seed, "x": 1})
    found = compare([str(tmp_path)], by=["x"])
    fast, slow = found.blocks[0].rows
    assert fast.area.value == pytest.approx((100 * 0 + 900 * 120) / 1000)
    assert slow.area.value == pytest.approx((100 * 0 + 400 * 20 + 500 * 110) / 1000)
    assert [note for note in found.notes if "stop.eval_return ends a run at an evaluation" in note]


def test_scores_of_an_agent_that_is_the_best_no_more_do_not_count(tmp_path: Path) -> None:
    a_group(tmp_path, [10.0, 20.0, 60.0])
    for seed in range(3):
        run = tmp_path / f"s{seed}"
        (run / "checkpoints/best_000000300").mkdir(parents=True)
        (run / "checkpoints/best_000000300/manifest.json").write_text("{}")
        an_evaluation(run, "best_000000200", 7.0, step=200)
    (block,) = compare([str(tmp_path)]).blocks
    assert block.rows[0].best == pytest.approx((50 + 50 + 60) / 3)  # of training's evaluations
    assert block.chosen.startswith("the highest evaluation while training")
    for seed in range(3):
        an_evaluation(tmp_path / f"s{seed}", "best_000000300", 8.0 + seed)
    (block,) = compare([str(tmp_path)]).blocks
    assert block.rows[0].best == 9
    assert block.chosen.startswith("rlrun eval")


def test_training_evaluations_that_differ_do_not_touch_scores_of_rlrun_eval(tmp_path: Path) -> None:
    a_group(tmp_path / "a", [1.0, 2.0, 3.0])
    a_group(tmp_path / "b", [1.0, 2.0, 3.0], {"eval.episodes": 3, "agent.name": "ppo"})
    found = compare([str(tmp_path)])
    assert [note.partition(":")[0] for note in found.notes] == ["PROTOCOL DIFFERS in eval.episodes"]
    assert found.blocks[0].rows[1].better is None
    for name in "ab":
        for seed in range(3):
            an_evaluation(tmp_path / name / f"s{seed}", "step_000000300", 1.0 + seed)
    found = compare([str(tmp_path)])
    assert [note.partition(":")[0] for note in found.notes] == ["training's evaluations differ in eval.episodes"]
    assert "areas, thresholds and the choice of the best agents are not comparable" in found.notes[0]
    better = found.blocks[0].rows[1].better
    assert better is not None
    assert better.value == 0.5


def test_what_changed_at_a_resume_is_said(tmp_path: Path) -> None:
    a_group(tmp_path, [1.0, 2.0, 3.0])
    changes = "step,key,before,after\n100,total_steps,100,300\n100,optimizer.lr,1e-08,0.001\n100,log.every_steps,1,2\n"
    (tmp_path / "s1/changes.csv").write_text(changes)
    assert compare([str(tmp_path)]).notes == [
        f"{tmp_path}/s1: optimizer.lr was changed from 1e-08 to 0.001 at step 100"
    ]


def test_runs_of_one_seed_that_began_with_different_agents_all_count(tmp_path: Path) -> None:
    for name in "xyz":
        a_run(tmp_path / name, {300: float(ord(name))}, {"seed": 0, "init_from": f"outputs/{name}"})
    found = compare([str(tmp_path)])
    assert [(row.label, len(row.runs)) for row in found.blocks[0].rows] == [("all runs", 3)]
    assert not [note for note in found.notes if "left out" in note]
    rows = compare([str(tmp_path)], by=["init_from"]).blocks[0].rows
    assert [row.label for row in rows] == [f"init_from=outputs/{name}" for name in "xyz"]


def test_runs_that_are_left_out_are_named(tmp_path: Path) -> None:
    a_group(tmp_path / "a", [10.0, 20.0])
    a_run(tmp_path / "cut", {100: 99.0}, {"seed": 5}, log=INTERRUPTED)
    a_run(tmp_path / "nan", {200: 15.0, 300: float("nan")}, {"seed": 6})
    a_run(tmp_path / "incomplete", {200: 15.0}, {"seed": 7})  # a full disk, or a copy that was not complete
    Checkpoints(tmp_path / "incomplete" / "checkpoints").save(300, {}, {})
    a_run(tmp_path / "again", {300: 30.0}, {"seed": 0})
    a_run(tmp_path / "broken", {300: 1.0}).joinpath("config.yaml").write_text("a: [")
    found = compare([str(tmp_path)])
    assert sorted(found.blocks[0].rows[0].scores) == [20, 30]
    said = "\n".join(found.notes)
    assert f"left out: {tmp_path}/cut is interrupted at step 100, not finished" in said
    assert f"left out: {tmp_path}/nan ended with an evaluation of nan" in said
    assert f"left out: {tmp_path}/incomplete left a metrics.csv without its last evaluation" in said
    assert f"left out: {tmp_path}/a/s0; a later run of all runs has seed 0 too" in said
    assert f"left out: {tmp_path}/broken/config.yaml cannot be read" in said
    assert "no interval, P(better) or detectable difference from fewer than 3 seeds: all runs (2)" in said
    assert found.blocks[0].rows[0].last.low is None


def test_nothing_to_compare(tmp_path: Path) -> None:
    a_run(tmp_path / "cut", {100: 1.0}, log=INTERRUPTED)
    with pytest.raises(UserError, match="none of these runs has finished"):
        compare([str(tmp_path)])


def test_protocols_that_differ_are_said_and_not_compared(tmp_path: Path) -> None:
    a_group(tmp_path / "a", [1.0, 2.0, 3.0])
    a_group(tmp_path / "b", [1.0, 2.0, 3.0], {"env.sticky": 0.25})
    found = compare([str(tmp_path)])
    assert found.notes == ["PROTOCOL DIFFERS in env.sticky: 0.0, 0.25; these scores are not comparable"]
    assert [(row.better, row.detectable) for row in found.blocks[0].rows] == [(None, None)] * 2


def test_games_are_averaged_by_human_normalised_scores_only(tmp_path: Path) -> None:
    """A random agent and a human score -20.7 and 14.6 in Pong, 1.7 and 30.5 in Breakout."""
    a_group(tmp_path / "p", [14.6, 14.6, 14.6], PONG)
    a_group(tmp_path / "b", [1.7, 30.5, 59.3], BREAKOUT)
    found = compare([str(tmp_path)])
    assert [block.environment for block in found.blocks] == ["breakout", "pong"]
    assert found.overall is not None
    (row,) = found.overall.rows
    # 1 1 1 and 0 1 2 without one of six at each end.
    assert (row.runs, row.iqm.value, row.mean.value) == (6, pytest.approx(1), pytest.approx(1))
    assert row.iqm.low is not None
    a_group(tmp_path / "c", [1.0, 2.0, 3.0])
    found = compare([str(tmp_path)])
    assert found.overall is None
    assert "nothing is averaged over environments: CartPole-v1 has no human-normalised score" in found.notes


def test_a_group_that_lacks_a_game_is_not_averaged(tmp_path: Path) -> None:
    a_group(tmp_path / "p", [1.0, 2.0, 3.0], PONG)
    a_group(tmp_path / "b", [1.0, 2.0, 3.0], BREAKOUT)
    a_group(tmp_path / "r", [1.0, 2.0, 3.0], {**PONG, "agent.name": "rainbow"})
    found = compare([str(tmp_path)])
    assert found.overall is not None
    assert [row.label for row in found.overall.rows] == ["dqn"]
    assert "not averaged over games, because a game is missing: rainbow" in found.notes


def test_groups_that_mix_configurations_have_no_intervals(tmp_path: Path) -> None:
    for seed in range(2):
        for lr in (0.1, 0.2, 0.3):
            for agent in ("dqn", "ppo"):
                changes = {"seed": seed, "optimizer.lr": lr, "agent.name": agent}
                a_run(tmp_path / f"{agent}{seed}{lr}", {300: 10 * lr + seed}, changes)
    found = compare([str(tmp_path)], by=["agent.name"])
    for row in found.blocks[0].rows:
        assert (len(row.runs), row.last.value) == (6, pytest.approx(2.5))
        assert (row.last.low, row.iqm.low, row.area.low, row.better, row.detectable) == (None,) * 5
        (curve,) = row.curves
        assert (curve.low == curve.high).all()
    assert all((curve.low == curve.high).all() and curve.runs == 1 for curve in found.blocks[0].profile)
    assert "groups mix runs with different optimizer.lr: no interval, P(better) or detectable difference" in found.notes
