"""The table of a sweep: numbers by hand, what is left out and named, how it reads."""

import csv
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rl_runner.report import pictures, results, sweep
from rl_runner.run import notes
from tests.runs import a_job

BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


def table(directory: Path) -> list[dict[str, str]]:
    with open(directory / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, (first, second, third) in enumerate([(1.0, 9.0, 2.0), (3.0, 3.0, 6.0), (5.0, 0.0, 10.0)]):
        a_job(tmp_path / f"{seed}", f"env=cartpole network=mlp seed={seed}", {100: first, 200: second, 300: third})
    a_job(tmp_path / "3", "env=cartpole network=dueling seed=0", {100: 7.0, 200: 8.0, 300: 6.0})
    sweep.report(tmp_path)
    mlp, dueling = table(tmp_path)

    assert (mlp["configuration"], mlp["overrides"]) == ("network=mlp", "env=cartpole network=mlp")
    assert (mlp["seeds"], mlp["seeds_missing"]) == ("3", "0")
    # t(0.975; 2) = 4.302653. last: 2, 6, 10, std 4. best: 9, 6, 10, squares 2/3² + 7/3² + 5/3². area: 4, 4, 5.
    means = [float(mlp[f"{name}_mean"]) for name in ("last", "best", "area", "steps")]
    assert means == pytest.approx([6, 25 / 3, 13 / 3, 300])
    assert float(mlp["last_ci95"]) == pytest.approx(4.302653 * 4 / math.sqrt(3))
    assert float(mlp["best_ci95"]) == pytest.approx(4.302653 * math.sqrt((4 + 49 + 25) / 9 / 2) / math.sqrt(3))
    assert float(mlp["area_ci95"]) == pytest.approx(4.302653 * math.sqrt((1 + 1 + 4) / 9 / 2) / math.sqrt(3))
    assert float(mlp["steps_ci95"]) == 0
    assert [dueling[f"{name}_mean"] for name in ("last", "best", "area", "steps")] == ["6", "8", "7", "300"]
    assert {dueling[f"{name}_ci95"] for name in ("last", "best", "area", "steps")} == {""}  # of one seed

    out = re.sub(" +", " ", capsys.readouterr().out)
    assert out.startswith(f"\n{tmp_path}: 4 of 4 runs finished\nall with env=cartpole\n")
    assert "│ mlp │ 3 │ 6.00 ± 9.94 │ 8.33 ± 5.17 │ 4.33 ± 1.43 │ 300 │" in out
    assert "│ dueling │ 1 │ 6.00 ± - │ 8.00 ± - │ 7.00 ± - │ 300 │" in out
    assert out.endswith(f"written to {tmp_path}/results.csv and results.png\n")


def test_forty_seeds(tmp_path: Path) -> None:
    for seed in range(40):
        a_job(tmp_path / f"{seed}", f"seed={seed}", {100: float(seed % 2)})
    sweep.report(tmp_path)
    (row,) = table(tmp_path)
    # 20 ones and 20 zeros: std sqrt(40 / 4 / 39); t(0.975; 39) = 2.022691.
    assert (row["seeds"], row["last_mean"]) == ("40", "0.5")
    assert float(row["last_ci95"]) == pytest.approx(2.022691 * math.sqrt(10 / 39) / math.sqrt(40), rel=1e-4)


def test_only_finished_runs_are_counted_and_the_others_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    planned = [f"agent={agent} seed={seed}".split() for agent in ("dqn", "rainbow") for seed in range(8)]
    names = {"failed": RuntimeError, "interrupted": SystemExit}
    a_job(tmp_path / "0", "agent=dqn seed=0", {100: 1.0})
    for seed, name in enumerate(["failed", "interrupted", "failed"], start=1):
        a_job(tmp_path / f"{seed}", f"agent=dqn seed={seed}", {100: 99.0}, end=names[name])
    killed = a_job(tmp_path / "4", "agent=dqn seed=4", {100: 99.0}) / "job.json"
    with notes.noted(tmp_path / "4", ["agent=dqn", "seed=4"]):
        text = killed.read_text()
    killed.write_text(text)  # as it stands while the job runs
    a_job(tmp_path / "5", "agent=dqn seed=5", {})
    a_job(tmp_path / "8", "agent=dqn seed=8", {50: 99.0, 100: math.inf})
    a_job(tmp_path / "6", "agent=dqn seed=6", {100: 99.0}).joinpath("metrics.csv").write_text("step,name,value\n1,eva")

    sweep.report(tmp_path, planned)
    dqn, rainbow = table(tmp_path)
    assert (dqn["seeds"], dqn["seeds_missing"], dqn["last_mean"], dqn["last_ci95"]) == ("1", "8", "1", "")
    assert (rainbow["seeds"], rainbow["seeds_missing"], rainbow["last_mean"]) == ("0", "8", "")
    out = capsys.readouterr().out
    assert "1 of 17 runs finished" in out
    assert "│ rainbow │ 0 of 8 │ - │ - │ - │ - │" in re.sub(" +", " ", out)
    named = [line.partition(": ")[2] for line in out.splitlines() if line.startswith("agent=dqn: ")]
    assert sorted(named) == [
        "1 of 9 seeds did not finish, not in the numbers: 4",
        "1 of 9 seeds ended with an evaluation of inf, not in the numbers: 8",
        "1 of 9 seeds have not begun, not in the numbers: 7",
        "1 of 9 seeds left no evaluation, not in the numbers: 5",
        "1 of 9 seeds left no readable table, not in the numbers: 6",
        "1 of 9 seeds were interrupted, not in the numbers: 2",
        "2 of 9 seeds failed, not in the numbers: 1, 3",
    ]
    assert "agent=rainbow: 8 of 8 seeds have not begun, not in the numbers: 0, 1, 2, 3, 4, 5, 6, 7\n" in out


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (["env=a network=mlp seed=0", "env=a network=dueling seed=0"], ["network=mlp", "network=dueling"]),
        (["env=a network=mlp seed=0", "env=b network=mlp +seed=1"], ["env=a", "env=b"]),
        (["env=a network=mlp seed=0", "env=a network=mlp ++seed=1"], ["env=a network=mlp"]),
        (["env=a", "env=a lr=1"], ["defaults", "lr=1"]),
        (["seed=0", "seed=1"], ["defaults"]),
        (["env=a x=1 y=1", "env=a x=1 y=2", "env=a x=2 y=1"], ["x=1 y=1", "x=1 y=2", "x=2 y=1"]),
        (["a=[1,2] b=1", "a=[red] b=1"], ["a=[1,2]", "a=[red]"]),
        (["env.seed=1 seed=3", "env.seed=2 seed=3"], ["env.seed=1", "env.seed=2"]),
    ],
)
def test_labels_say_what_differs(
    told: list[str],
    wanted: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for number, overrides in enumerate(told):
        a_job(tmp_path / f"{number}", overrides, {100: 1.0})
    assert [row.label for row in results.summarise(tmp_path)] == wanted
    sweep.report(tmp_path)
    out = re.sub(" +", " ", capsys.readouterr().out)
    for label in wanted:
        values = [word.rpartition("=")[2].replace("defaults", "default") for word in label.split()]
        assert f"│ {' │ '.join(values)} │" in out or f"all with {label}" in out or f"all with the {label}" in out


def test_nothing_is_said_of_a_sweep_that_never_began(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.report(tmp_path, [["network=mlp"]])
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.iterdir())


def test_two_seeds_have_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Student's t of two values 6 apart is 38: it would hide the values."""
    for seed, value in enumerate((2.0, 8.0)):
        a_job(tmp_path / f"{seed}", f"network=mlp seed={seed}", {100: value})
    sweep.report(tmp_path)
    assert "5.000 ± -" in capsys.readouterr().out
    assert (table(tmp_path)[0]["last_mean"], table(tmp_path)[0]["last_ci95"]) == ("5", "")


def test_lengths_that_differ_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs that stop when the task is solved."""
    for seed, end in enumerate((40_000, 60_000, 110_000)):
        a_job(tmp_path / f"{seed}", f"seed={seed}", {20_000: 0.5, end: 0.8})
    sweep.report(tmp_path)
    # Mean 70,000; squares 30² + 10² + 40² = 2600 (thousands), std sqrt(1300).
    half = 4.302653 * math.sqrt(1300) * 1000 / math.sqrt(3)
    assert f"70,000 ± {half:,.0f}" in capsys.readouterr().out
    assert float(table(tmp_path)[0]["steps_ci95"]) == pytest.approx(half)


def test_digits_suit_the_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for env, value in {"cartpole": 498.75, "acrobot": -71.25, "frozenlake": 0.7431, "nothing": 0.0}.items():
        a_job(tmp_path / env, f"env={env}", {100: value})
    sweep.report(tmp_path)
    out = capsys.readouterr().out
    assert all(out.count(f"{number} ± - │") == 3 for number in ("498.8", "-71.2", "0.743", "0.00"))


def test_a_large_sweep_reads_well_in_100_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    names = [f"rainbow_no_prioritized_{i:02}" for i in range(14)]
    for i, name in enumerate(names):
        for seed in range(5):
            job = f"env=lunarlander ablation={name} seed={seed}"
            a_job(tmp_path / f"{i}_{seed}", job, {100: -100.0, 200: 200.0 + i + 9 * seed})
    sweep.report(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 100  # a path is as long as it is
    rows = [line.split("│")[1:-1] for line in lines if line.startswith("│")]
    assert [row[0].strip() for row in rows] == names
    assert {row[2].index("±") for row in rows} == {rows[0][2].index("±")}
    assert rows[0][2].strip() == "218.0 ± 17.7"  # 200, 209, ... 236: std 9 sqrt(2.5); t(0.975; 4) = 2.776


@pytest.fixture
def two_keys(tmp_path: Path) -> Path:
    """A sweep over two keys, one of which is long; one configuration is told nothing."""
    for network, lr in [("network=mlp", ""), ("network=dueling", "optimizer.lr=0.0001")]:
        for seed in range(3):
            job = f"env=pong {network} {lr} seed={seed}"
            a_job(tmp_path / f"{network}_{seed}", job, {1_000_000: -10.5, 2_000_000 + seed: -12.5 - seed})
    return tmp_path


@pytest.mark.parametrize(
    ("width", "heading", "left_out"),
    [
        (98, "network optimizer.lr seeds last best area steps", []),
        (93, "network lr seeds last best area steps", []),
        (80, "network lr seeds last best area", ["steps"]),
        (61, "network lr seeds last area", ["steps", "best"]),
        (45, "network lr seeds last", ["steps", "best", "area"]),
    ],
)
def test_a_column_for_each_swept_key_and_no_word_or_number_cut(
    width: int,
    heading: str,
    left_out: list[str],
    two_keys: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    sweep.report(two_keys)
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line[:1] in "┃│"]
    assert max(map(len, lines)) <= width
    (head,) = [line for line in lines if line.startswith("┃")]
    assert head.replace("┃", " ").split() == heading.split()
    # -12.5, -13.5 and -14.5: std 1, divided by sqrt(3), times t(0.975; 2) = 4.303.
    cells = [line.replace("│", " ").split()[:6] for line in lines if line.startswith("│")]
    assert cells == [["mlp", "default", "3", "-13.50", "±", "2.48"], ["dueling", "0.0001", "3", "-13.50", "±", "2.48"]]
    narrow = [line for line in out.splitlines() if line.startswith("too narrow here for ")]
    assert narrow == ([f"too narrow here for {', '.join(left_out)}: see results.csv"] if left_out else [])


def test_rows_are_stacked_where_no_table_fits(
    two_keys: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    sweep.report(two_keys)
    lines = capsys.readouterr().out.splitlines()
    i = lines.index("network=dueling  optimizer.lr=0.0001")
    # Areas are the means of -10.5 and each last one: -11.5, -12 and -12.5, std 0.5.
    assert lines[i + 1 : i + 4] == ["  seeds 3", "  last -13.50 ± 2.48", "  best -10.50 ± 0.00"]
    assert lines[i + 4] == "  area -12.00 ± 1.24"


def shows(picture: Path, colour: tuple[int, int, int]) -> bool:
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    return bool((np.abs(pixels - colour).sum(axis=2) < 30).sum() > 500)


@pytest.mark.parametrize(("configurations", "curves"), [(2, True), (8, False)])
def test_the_picture(configurations: int, curves: bool, tmp_path: Path) -> None:
    """Curves and dots, one colour each; of many configurations dots alone."""
    for i in range(configurations):
        for seed in range(3):
            a_job(tmp_path / f"{i}_{seed}", f"network=n{i} seed={seed}", {100: 1.0, 200: 2.0 + i + seed})
    a_job(tmp_path / "x", "network=none seed=0", {}, end=ValueError)
    sweep.report(tmp_path)
    assert shows(tmp_path / "results.png", BLUE)  # the best one
    assert shows(tmp_path / "results.png", VERMILION) == curves


def test_the_picture_has_the_best_first_and_no_band_of_few_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(pictures, "compare", lambda *args, order: drawn.extend([*args, order]))
    for name, last in [("dqn", 2.0), ("none", None), ("rainbow", 9.0), ("noisy", 5.0)]:
        for seed in range(2):
            evaluations = {} if last is None else {100: 0.0, 200: last + seed}
            a_job(tmp_path / f"{name}_{seed}", f"env=pong ablation={name} seed={seed}", evaluations)
    sweep.report(tmp_path)
    path, curves, scores, title, heading, order = drawn
    assert order == ["dqn", "none", "rainbow", "noisy"]
    assert (path.name, title, heading) == ("results.png", f"{tmp_path.name}: env=pong", "ablation")
    assert list(scores.items()) == [("rainbow", [9, 10]), ("noisy", [5, 6]), ("dqn", [2, 3]), ("none", [])]
    lines = [(c.label, c.run, c.mean.tolist()) for c in curves if c.label == "noisy"]
    assert lines == [("noisy", None, [0, 5.5]), ("noisy", 0, [0, 5]), ("noisy", 1, [0, 6])]


def test_without_matplotlib(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "rl_runner.report.pictures", raising=False)
    a_job(tmp_path / "0", "seed=0", {100: 1.0})
    sweep.report(tmp_path)
    assert len(table(tmp_path)) == 1
    assert not (tmp_path / "results.png").exists()
    assert "for a picture too: pip install 'rlrun[plot]'" in capsys.readouterr().out


def test_a_note_is_plain(tmp_path: Path) -> None:
    job = a_job(tmp_path, "network=mlp seed=0", {100: 1.0})
    assert json.loads((job / "job.json").read_text()) == {"overrides": ["network=mlp", "seed=0"], "state": "finished"}
    assert {path.name for path in job.iterdir()} == {"job.json", "metrics.csv"}


def test_a_table_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_job(tmp_path / "0", "env=cartpole seed=0", {100: 1.0})
    (tmp_path / "results.csv").mkdir()
    sweep.report(tmp_path)
    out = capsys.readouterr().out
    assert "1 of 1 runs finished" in out
    assert "results.csv cannot be written: Is a directory" in " ".join(out.split())
