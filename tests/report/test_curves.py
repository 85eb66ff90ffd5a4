"""Learning curves: the statistics over runs, checked by hand and against published tables."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rl_runner.report import curves, stats
from rl_runner.report.curves import Series, Unreadable
from rl_runner.run.files import CHECKPOINTS, MANIFEST


def a_run(directory: Path, *lines: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metrics.csv").write_text("\n".join(["step,name,value", *lines]) + "\n")
    return directory


def a_series(points: dict[int, float]) -> Series:
    return Series(np.array(list(points)), np.array(list(points.values())))


@pytest.mark.parametrize(
    ("freedom", "t"),
    [
        (1, 12.7062),
        (2, 4.3027),
        (4, 2.7764),
        (9, 2.2622),
        (30, 2.0423),
        (31, 2.0395),
        (39, 2.0227),
        (60, 2.0003),
        (120, 1.9799),
        (1000, 1.9623),
    ],
)
def test_students_t(freedom: int, t: float) -> None:
    """The quantiles that every statistics book has at its end."""
    assert stats.t_quantile(freedom) == pytest.approx(t, abs=5.1e-5)


def test_the_mean_and_its_interval() -> None:
    # 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14, std sqrt(14 / 2). 10, 14, 18: mean 14, std 4.
    mean, half = stats.mean_and_ci([[1.0, 10.0], [2.0, 14.0], [6.0, 18.0]])
    np.testing.assert_allclose(mean, [3, 14])
    np.testing.assert_allclose(half, [4.30265 * math.sqrt(7 / 3), 4.30265 * 4 / math.sqrt(3)], rtol=1e-6)
    mean, half = stats.mean_and_ci([5.0])
    assert (mean, half) == (5, 0)


def test_a_table_is_read(tmp_path: Path) -> None:
    run = a_run(tmp_path, "200,eval/return_mean,2.0", "100,eval/return_mean,1.0", "200,eval/return_mean,3.0")
    steps, values = curves.series(curves.read_table(run), "eval/return_mean")
    assert (steps.tolist(), values.tolist()) == ([100, 200], [1, 3])  # of two values at one step, the later one
    steps, values = curves.series(curves.read_table(run), "no/such")
    assert (steps.tolist(), values.tolist()) == ([], [])


@pytest.mark.parametrize(
    "damage",
    [
        b"\0" * 64,
        b"\xff\xfe,garbage\n",
        b"300,eval/ret",
        b"9" * 20 + b",eval/return_mean,3\n",
        b"-1,eval/return_mean,3\n",
    ],
)
def test_damaged_lines_cost_no_others(damage: bytes, tmp_path: Path) -> None:
    run = a_run(tmp_path, "100,eval/return_mean,1.0", "200,eval/return_mean,2.0")
    whole = (run / "metrics.csv").read_bytes()
    for damaged in (whole + damage, whole.replace(b"200,", damage.rstrip() + b"\n200,")):
        (run / "metrics.csv").write_bytes(damaged)
        steps, values = curves.series(curves.read_table(run), "eval/return_mean")
        assert (steps.tolist(), values.tolist()) == ([100, 200], [1, 2])


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["100,train/return"], "not step,name,value"),
        (["soon,train/return,1.0"], "not step,name,value"),
        (["100,learn/loss,1.0"], "neither train/return nor eval/return_mean"),
    ],
)
def test_what_cannot_be_read_is_said(lines: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=says):
        curves.read_run(a_run(tmp_path, *lines))
    with pytest.raises(Unreadable, match="is no run"):
        curves.read_run(tmp_path / "nowhere")


def test_evaluations_are_merged_where_all_runs_have_one() -> None:
    one, two = a_series({100: 1, 200: 2, 300: 3}), a_series({200: 6, 250: 7, 300: 9, 400: 10})
    steps, values = curves.shared([one, two])
    assert steps.tolist() == [200, 300]
    assert [v.tolist() for v in values] == [[2, 3], [6, 9]]
    steps, values = curves.shared([one, a_series({150: 1})])
    assert steps.tolist() == [] == values[0].tolist()


def test_neither_torch_nor_matplotlib_is_loaded() -> None:
    code = "import sys, rl_runner.report.sweep; print({'torch', 'matplotlib'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize(
    ("steps", "values", "budget", "wanted"),
    [
        ([10, 20, 30, 40], [1.0, 2.0, 3.0, 4.0], 40, 2.5),
        ([10, 20], [1.0, 5.0], 40, (10 + 50 + 100) / 40),  # stopped early
        ([10, 20], [1.0, 5.0], 0, 3.0),  # the budget is unknown
        ([20, 30], [1.0, 4.0], 25, 2.0),  # a run that went on after its budget
        ([0], [7.0], 0, 7.0),
    ],
)
def test_area_is_the_mean_over_the_budget(steps: list[int], values: list[float], budget: int, wanted: float) -> None:
    assert curves.area(curves.Series(np.array(steps), np.array(values)), budget) == pytest.approx(wanted)


def test_the_budget_of_a_run(tmp_path: Path) -> None:
    assert curves.total_steps(tmp_path) == 0
    (tmp_path / "config.yaml").write_text("agent:\n  total_steps: 7\ntotal_steps: 500\n")
    assert curves.total_steps(tmp_path) == 500


@pytest.mark.parametrize(("step", "whole"), [(200, True), (201, False)])
def test_a_checkpoint_may_be_as_old_as_the_last_evaluation(step: int, whole: bool, tmp_path: Path) -> None:
    run = a_run(tmp_path, "100,eval/return_mean,1.0", "200,eval/return_mean,2.0")
    (run / CHECKPOINTS / f"step_{step}").mkdir(parents=True)
    (run / CHECKPOINTS / f"step_{step}" / MANIFEST).touch()
    if whole:
        assert curves.final_evaluations(run, curves.read_table(run)).values.tolist() == [1, 2]
    else:
        with pytest.raises(Unreadable, match=r"^left a metrics\.csv without its last evaluation$"):
            curves.final_evaluations(run, curves.read_table(run))
