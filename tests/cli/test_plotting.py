"""`rlrun plot`: the numbers that it draws, checked by hand, and that it draws them."""

import contextlib
import csv
import itertools
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rl_runner.run import notes
from tests.commandline import refused, rlrun


def plot(*args: object) -> str:
    done = rlrun("plot", *map(str, args))
    assert (done.code, done.err) == (0, ""), done
    return done.out


def a_run(
    directory: Path, train: dict[int, float], evaluation: dict[int, tuple[float, float]] | None = None, skip: int = 4
) -> Path:
    """Make what `rlrun train` leaves; a step takes 0.6 seconds."""
    directory.mkdir(parents=True)
    lines = ["step,name,value"]
    for step, value in train.items():
        lines += [f"{step},train/return,{value!r}", f"{step},train/length,7.0", f"{step},time/seconds,{step * 0.6!r}"]
    for step, (mean, std) in (evaluation or {}).items():
        lines += [f"{step},eval/return_mean,{mean!r}", f"{step},eval/return_std,{std!r}", f"{step},eval/return_max,9.0"]
    (directory / "metrics.csv").write_text("\n".join(lines) + "\n")
    (directory / "config.yaml").write_text(f"seed: 0\nenv:\n  game: pong\n  frame_skip: {skip}\n")
    return directory


def numbers(picture: Path, run: str = "") -> dict[tuple[str, str], list[tuple[float, ...]]]:
    """Return the table beside a picture, of all runs or of one: (label, curve) -> [(x, mean, low, high, runs)]."""
    with open(picture.with_suffix(".csv"), newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:2] + header[3:] == ["label", "curve", "mean", "low", "high", "runs", "run"]
    table: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for label, curve, *values, one in rows:
        if one == run:
            table.setdefault((label, curve), []).append(tuple(map(float, values)))
    return table


def test_one_run(tmp_path: Path) -> None:
    run = a_run(tmp_path / "dqn" / "s0", {100: 1.0, 200: 3.0, 300: 8.0, 400: 10.0}, {200: (5.0, 1.5), 400: (12.0, 2.0)})
    out = tmp_path / "new" / "curve.png"
    said = plot(run, "--out", out, "--smooth", 2, "--goal", 11, "--goal-label", "solved")
    assert str(out) in said
    assert numbers(out) == {
        ("dqn", "train"): [(100, 1, 1, 1, 1), (200, 2, 2, 2, 1), (300, 5.5, 5.5, 5.5, 1), (400, 9, 9, 9, 1)],
        ("dqn", "eval"): [(200, 5, 3.5, 6.5, 1), (400, 12, 10, 14, 1)],
    }
    with Image.open(out) as image:
        image.verify()
    pixels = np.asarray(Image.open(out).convert("RGB"))
    assert pixels.shape == (760, 1440, 3)
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    blue = np.abs(pixels.astype(int) - (0, 114, 178)).sum(axis=2) < 30
    assert blue.sum() > 2000  # the curve
    assert np.ptp(np.flatnonzero(blue.any(axis=0))) > 500  # from left to right

    # The table alone draws the same picture.
    plot(out.with_suffix(".csv"), "--out", tmp_path / "again.png", "--goal", 11, "--goal-label", "solved")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "again.png").convert("RGB")), pixels)
    assert not (tmp_path / "again.csv").exists()


def test_runs_of_one_label_are_merged_as_far_as_all_went(tmp_path: Path) -> None:
    means = {"s0": (1.0, 10.0), "s1": (2.0, 14.0), "s2": (6.0, 18.0)}
    for seed, (first, second) in means.items():
        train = {100: first, 300: second} | ({500: 99.0} if seed == "s0" else {})
        evaluation = {200: (first, 0.5), 400: (second, 0.5)} | ({500: (99.0, 0.5)} if seed == "s0" else {})
        a_run(tmp_path / "dqn" / seed, train, evaluation)
    other = a_run(tmp_path / "rainbow" / "s0", {150: 7.0})
    out = tmp_path / "curve.png"
    plot(*sorted((tmp_path / "dqn").iterdir()), other, "--out", out, "--x", "frames")

    table = numbers(out)
    assert set(table) == {("dqn", "train"), ("dqn", "eval"), ("rainbow", "train")}
    # Of 3 runs a confidence interval would say nothing: their range, and each one's own line.
    assert table["dqn", "eval"] == [(800, 3, 1, 6, 3), (1600, 14, 10, 18, 3)]
    assert numbers(out, "2") == {("dqn", "eval"): [(800, 6, 6, 6, 3), (1600, 18, 18, 18, 3)]}
    np.testing.assert_allclose(np.array(table["dqn", "train"])[:, :2], [(400, 3), (1200, 14)])
    assert table["rainbow", "train"] == [(600, 7, 7, 7, 1)]


def test_the_confidence_interval_of_five_runs(tmp_path: Path) -> None:
    for seed, (first, second) in enumerate([(1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (4.0, 0.0), (5.0, 20.0)]):
        a_run(tmp_path / "dqn" / f"s{seed}", {100: 0.0}, {100: (first, 0.5), 200: (second, 0.5)})
    out = tmp_path / "curve.png"
    plot(*(tmp_path / "dqn").iterdir(), "--out", out)
    # The bootstrap interval of the mean, against all 3125 resamples.
    every = list(itertools.product(range(5), repeat=5))
    first = np.quantile([sum(drawn) / 5 + 1 for drawn in every], (0.025, 0.975))
    second = np.quantile([20 * drawn.count(4) / 5 for drawn in every], (0.025, 0.975))
    wanted = [(100, 3, *first, 5), (200, 4, *second, 5)]
    np.testing.assert_allclose(numbers(out)["dqn", "eval"], wanted, atol=0.21)
    assert numbers(out, "0") == {}


def test_files_without_single_runs_are_still_drawn(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("label,curve,steps,mean,low,high,runs\ndqn,eval,1,2,1,3,1\ndqn,eval,2,2,1,3,1\n")
    plot(tmp_path / "old.csv", "--out", tmp_path / "new.png")
    assert (tmp_path / "new.png").exists()


def test_names_minutes_and_steps_logged_by_one_run_only(tmp_path: Path) -> None:
    one = a_run(tmp_path / "one", {100: 0.0, 300: 4.0})
    two = a_run(tmp_path / "two", {100: 2.0, 200: 6.0, 300: 6.0, 400: 0.0})
    out = tmp_path / "curve.png"
    plot(one, two, "--out", out, "--x", "minutes", "--labels", "ours")
    table = numbers(out)
    # At step 200 the first run stands half way between 0 and 4.
    np.testing.assert_allclose(np.array(table["ours", "train"])[:, :2], [(1, 1), (2, 4), (3, 5)])
    plot(one, two, "--out", out, "--labels", "a,b")
    assert set(numbers(out)) == {("a", "train"), ("b", "train")}


def test_evaluations_at_different_steps_are_left_out(tmp_path: Path) -> None:
    one = a_run(tmp_path / "dqn" / "s0", {100: 0.0, 200: 1.0}, {100: (1.0, 0.0)})
    two = a_run(tmp_path / "dqn" / "s1", {100: 0.0, 200: 1.0}, {150: (1.0, 0.0)})
    out = tmp_path / "curve.png"
    done = rlrun("plot", str(one), str(two), "--out", str(out))
    assert done.err == "rlrun: dqn: its runs were evaluated at different steps; evaluations are left out\n"
    assert set(numbers(out)) == {("dqn", "train")}


def test_long_training_curves_are_thinned(tmp_path: Path) -> None:
    run = a_run(tmp_path / "dqn" / "s0", {step: float(step) for step in range(1, 5001)})
    plot(run, "--out", tmp_path / "curve.png")
    rows = numbers(tmp_path / "curve.png")["dqn", "train"]
    assert len(rows) == 200
    assert (rows[0][:2], rows[-1][:2]) == ((1, 1), (5000, 5000))
    assert (tmp_path / "curve.csv").stat().st_size < 20_000


def test_any_curve_of_the_table(tmp_path: Path, workdir: Path) -> None:
    run = a_run(tmp_path / "dqn" / "s0", {100: 1.0, 200: 3.0}, {200: (5.0, 1.5)})
    out = tmp_path / "length.png"
    plot(run, "--metric", "train/length", "--out", out)
    assert numbers(out) == {("dqn", "train"): [(100, 7, 7, 7, 1), (200, 7, 7, 7, 1)]}
    said = refused("plot", str(run), "--metric", "learn/loss", "--out", str(out))
    assert said.endswith(
        "has no learn/loss; it has eval/return_max, eval/return_mean, eval/return_std, time/seconds, train/length, "
        "train/return"
    )


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep over a key and two seeds; one more job has failed."""
    for i, words in enumerate(["lr=1 seed=0", "lr=1 seed=1", "lr=2 seed=0", "lr=2 seed=1"]):
        run = a_run(tmp_path / "sweep" / f"{i}_{words}", {100: float(i)}, {200: (float(i), 0.0)})
        with contextlib.suppress(ValueError), notes.noted(run, ["env=pong", *words.split()]):
            if i == 3:
                raise ValueError
    for file in ("multirun.yaml", "results.csv"):
        (tmp_path / "sweep" / file).write_text("hydra: {}\n")
    return tmp_path / "sweep"


def test_a_sweep(sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "curve.png"
    done = rlrun("plot", str(sweep), "--out", str(out))
    assert (done.code, done.err) == (0, f"rlrun: {sweep}: jobs left out because they have not finished: 1\n")
    assert numbers(out)["1", "eval"] == [(200, 0.5, 0, 1, 2)]
    assert numbers(out)["2", "eval"] == [(200, 2, 2, 2, 1)]  # not the job that failed


def test_jobs_of_two_sweeps_and_an_unfinished_one(sweep: Path, workdir: Path) -> None:
    shutil.copytree(sweep, "other")
    plot(str(sweep / "0_lr=1 seed=0"), "other/0_lr=1 seed=0")
    assert {label for label, _ in numbers(Path("curves.png"))} == {"sweep: 1", "other: 1"}
    plot("other", "other/3_lr=2 seed=1")  # the one that failed, named by itself after its sweep
    assert numbers(Path("curves.png"))["2", "train"] == [(100, 2.5, 2, 3, 2)]


def test_the_newest_run_may_be_an_unfinished_job(sweep: Path, workdir: Path) -> None:
    os.rename(sweep, "outputs")
    plot("latest")
    assert numbers(Path("curves.png"))["2", "train"] == [(100, 3, 3, 3, 1)]
    for job in sorted(Path("outputs").glob("[012]*")):
        shutil.rmtree(job)
    done = rlrun("plot", "outputs", "--out", "a.png")
    assert done.code == 2
    assert done.err.splitlines()[1:] == [
        "rlrun: plot: nothing to draw: no run that is named has finished or can be read"
    ]
    assert not list(workdir.glob("a.*"))


def test_all_that_is_in_a_sweep(sweep: Path, tmp_path: Path) -> None:
    """Among its runs `*` finds files, which are left out."""
    out = tmp_path / "curve.png"
    plot(*sorted(sweep.iterdir()), "--out", out)
    assert {(label, kind): rows[0][1] for (label, kind), rows in numbers(out).items()} == {
        ("1", "train"): 0.5,
        ("1", "eval"): 0.5,
        ("2", "train"): 2.5,
        ("2", "eval"): 2.5,
    }


def test_the_newest_run_and_all_runs_of_a_directory(workdir: Path) -> None:
    for agent, values in {"dqn": {100: 1.0}, "rainbow": {100: 7.0}}.items():
        for seed in range(2):
            a_run(workdir / f"outputs/pong/{agent}/s{seed}", values)
            os.utime(workdir / f"outputs/pong/{agent}/s{seed}/config.yaml", (1e9, 1e9))
    assert plot("outputs/pong") == "written to curves.png and curves.csv\n"
    assert {label: rows[0][1::3] for (label, _), rows in numbers(Path("curves.png")).items()} == {
        "dqn": (1, 2),
        "rainbow": (7, 2),
    }
    os.utime(workdir / "outputs/pong/rainbow/s1/config.yaml")
    plot("latest", "--out", "latest.png")
    assert numbers(Path("latest.png")) == {("rainbow", "train"): [(100, 7, 7, 7, 1)]}
    assert plot("latest.csv", "--out", "again.png") == "written to again.png\n"
    plot("outputs/pong/d*", "latest", "outputs/pong/rainbow/s1", "--labels", "a,b,c")
    assert {label: rows[0][4] for (label, _), rows in numbers(Path("curves.png")).items()} == {"a": 2, "b": 1}
    plot("outputs/pong/dqn", "outputs/pong/rainbow", "outputs/pong/dqn")
    assert {label: rows[0][4] for (label, _), rows in numbers(Path("curves.png")).items()} == {"dqn": 2, "rainbow": 2}
    assert refused("plot", "outputs/pong/dqn", "outputs/typo") == "rlrun: outputs/typo: no such directory"


def test_directories_of_one_name_are_told_apart(workdir: Path) -> None:
    for game in ("pong", "breakout"):
        a_run(workdir / f"outputs/{game}/dqn/s0", {100: 1.0})
        a_run(workdir / f"other/{game}/dqn/s0", {100: 1.0})
    plot("outputs")
    assert {label for label, _ in numbers(Path("curves.png"))} == {"pong/dqn", "breakout/dqn"}
    plot("outputs/pong", "other/pong")
    assert {label for label, _ in numbers(Path("curves.png"))} == {"outputs/pong/dqn", "other/pong/dqn"}


def test_more_labels_than_colours(workdir: Path) -> None:
    for i in range(9):
        a_run(workdir / f"outputs/{i}/s0", {100: 1.0})
    assert rlrun("plot", "outputs").err == "rlrun: more than 8 labels: colours repeat\n"


def test_runs_that_cannot_be_read_are_left_out_unless_they_are_named(workdir: Path) -> None:
    for name, rows in {"good": {100: 1.0}, "empty": {}}.items():
        a_run(workdir / f"outputs/pong/dqn/{name}", rows)
    done = rlrun("plot", "outputs")
    assert done.code == 0
    assert re.fullmatch(r"rlrun: left out: outputs/pong/dqn/empty/metrics.csv has neither .*\n", done.err)
    assert numbers(Path("curves.png")) == {("dqn", "train"): [(100, 1, 1, 1, 1)]}
    assert "neither train/return" in refused("plot", "outputs/pong/dqn/empty")
    shutil.rmtree("outputs/pong/dqn/good")
    a_run(workdir / "outputs/pong/ppo/good", {100: 2.0})
    assert rlrun("plot", "outputs/pong/ppo", "outputs/pong/dqn").code == 0  # its only run was not named by itself


def test_no_other_table_is_replaced(workdir: Path) -> None:
    run = a_run(workdir / "run", {100: 1.0})
    line = refused("plot", "run", "--out", "run/metrics.png")
    assert line == "rlrun: --out: run/metrics.csv exists, and rlrun plot has not written it; choose another name"
    plot("run")
    plot("run")  # its own table is replaced
    Path("curves.csv").write_text("")  # the disk was full
    plot("run")
    Path("curves.csv").write_text("label,curve,steps,mean,low,high,runs,run\n")
    assert "holds no curves" in refused("plot", "curves.csv", "--out", "a.png")
    assert (run / "metrics.csv").read_text().startswith("step,name,value\n100,")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "plot: name runs, such as rlrun plot latest"),
        (["RUN/none", "--out", "a.png"], "no such directory"),
        (["RUN/good", "--colour", "a.png"], "plot: there is no option '--colour'"),
        (["RUN/good/config.yaml", "--out", "a.png"], "holds no run"),
        (["RUN/empty", "--out", "a.png"], "neither train/return nor eval/return_mean"),
        (["RUN/broken", "--out", "a.png"], "not step,name,value"),
        (["RUN/good", "--out", "a.txt"], "--out: "),
        (["RUN/good", "--out", "a.png", "--smooth", "0"], "--smooth: must be a whole number, 1 or more"),
        (["RUN/good", "--out", "a.png", "--x", "hours"], "--x: must be one of steps, frames, minutes, got 'hours'"),
        (["RUN/good", "RUN/other", "RUN/third", "--out", "a.png", "--labels", "a,b"], "--labels: got 2 for 3 names"),
        (["RUN/old.csv", "--out", "a.png", "--x", "frames"], "--x: is for runs, and"),
        (["RUN/good/metrics.csv", "--out", "a.png"], "no CSV file that rlrun plot has written"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, workdir: Path, options: list[str], message: str) -> None:
    for name in ("good", "other", "third"):
        a_run(tmp_path / name, {1: 1.0})
    a_run(tmp_path / "empty", {})
    a_run(tmp_path / "broken", {1: 1.0}).joinpath("metrics.csv").write_text("step,name,value\n1,train/return,\n")
    assert message in refused("plot", *(o.replace("RUN", str(tmp_path)) for o in options))
    assert not list(workdir.glob("a.*"))


def test_without_matplotlib_the_cure_is_named_in_one_line(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rl_runner.report.pictures", raising=False)
    monkeypatch.delattr("rl_runner.report.pictures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert refused("plot", "run") == "rlrun: plot: needs matplotlib: pip install 'rlrun[plot]'"
