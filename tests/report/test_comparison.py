"""The tables of a comparison, its CSV file and its pictures."""

import csv
import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from rl_runner.report import comparison
from rl_runner.report.compare import Comparison, compare
from rl_runner.report.stats import Estimate
from tests.runs import PONG, a_run


@pytest.fixture
def found(tmp_path: Path) -> Comparison:
    for seed in range(3):
        a_run(tmp_path / f"dqn{seed}", {100: 0.0, 300: 10.0 * seed}, {"seed": seed})
        a_run(tmp_path / f"ppo{seed}", {100: 5.0, 300: 100.0 + seed}, {"seed": seed, "agent.name": "ppo"})
    return compare([str(tmp_path)], threshold=20)


def shown(found: Comparison, width: int = 200, references: bool = False, **files: str) -> str:
    text = io.StringIO()
    comparison.show(Console(file=text, width=width, highlight=False), found, references, **files)
    return text.getvalue()


def test_the_table(found: Comparison) -> None:
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown(found).splitlines() if "│" in line]
    dqn, ppo = rows
    assert dqn[:2] == ["dqn", "3"]
    assert dqn[2].startswith("10.0 [")
    assert dqn[4:5] == ["10.0"]
    assert dqn[6:] == ["1 of 3 runs", "-", "-"]
    assert ppo[6:8] == ["3 of 3 runs, 300 steps, 3.0 min", "1.00 [1.00, 1.00]"]
    assert float(ppo[8]) > 0


def test_a_narrow_terminal_leaves_out_columns_and_says_so(found: Comparison) -> None:
    assert "too narrow here for area, best: see --csv or --html\n" in shown(found, 132)
    assert "too narrow here for area, best: see a.csv\n" in shown(found, 132, csv="a.csv")
    assert "too narrow here for area, best: see a.csv or a.html\n" in shown(found, 132, csv="a.csv", html="a.html")
    assert "seeds 3" in shown(found, 20)


@pytest.mark.parametrize(
    ("width", "explained"),
    [
        (200, ["IQM", "area", "best (chosen)", "P(better)", "detectable"]),
        (132, ["IQM", "P(better)", "detectable"]),
        (80, []),
        (20, ["IQM", "area", "best (chosen)", "P(better)", "detectable"]),  # lines with all numbers
    ],
)
def test_only_columns_that_are_shown_are_explained(found: Comparison, width: int, explained: list[str]) -> None:
    text = shown(found, width).replace("detectable: see", "")
    every = ("IQM", "area", "best (chosen)", "P(better)", "detectable")
    assert [name for name in every if f"{name}: " in text] == explained


def test_only_columns_that_there_are_can_be_left_out(tmp_path: Path) -> None:
    a_run(tmp_path / "dqn", {300: 1.0})
    assert "too narrow here for area, best, IQM: see" in shown(compare([str(tmp_path)]), 32)


def test_the_csv_file(found: Comparison, tmp_path: Path) -> None:
    comparison.write(tmp_path / "a.csv", found)
    with open(tmp_path / "a.csv", newline="") as file:
        dqn, ppo = csv.DictReader(file)
    facts = [dqn[name] for name in ("environment", "group", "runs", "seeds", "last")]
    assert facts == ["CartPole-v1", "dqn", "3", "3", "10"]
    assert (dqn["reached"], dqn["reached_steps"], dqn["better"]) == ("1", "", "")
    assert (ppo["reached_steps"], ppo["better"], ppo["better_low"], ppo["protocol_differs"]) == ("300", "1", "1", "")


def test_the_picture_and_one_for_each_environment(found: Comparison, tmp_path: Path) -> None:
    (drawn,) = comparison.draw(tmp_path / "a.png", found)
    assert drawn == tmp_path / "a.png"
    with Image.open(drawn) as image:
        assert image.size[0] > 1000
    a_run(tmp_path / "pong", {300: 1.0}, PONG)
    drawn = comparison.draw(tmp_path / "b.png", compare([str(tmp_path)]))
    assert [path.name for path in drawn] == ["b_CartPole-v1.png", "b_pong.png"]
    assert all(path.is_file() for path in drawn)


def test_published_scores_with_what_is_not_comparable(tmp_path: Path) -> None:
    a_run(tmp_path / "pong", {300: 1.0}, {**PONG, "env.sticky": 0.25, "eval.epsilon": 0.01})
    text = shown(compare([str(tmp_path)]), references=True)
    assert "20.6  DQN, RL Zoo benchmark; no sticky, 40,000,000 frames" in text
    assert (
        "NOT COMPARABLE: sticky 0, here 0.25; training or evaluation not stated; eval epsilon not stated, here 0.01; 40"
        in text
    )


@pytest.mark.parametrize(
    ("values", "places"), [([0.5], 3), ([5.0, -12.0], 2), ([500.0], 1), ([12_345.0], 0), ([0.0], 2), ([], 2)]
)
def test_four_digits_of_the_largest(values: list[float], places: int) -> None:
    assert comparison.places(values) == places


def test_intervals_as_text() -> None:
    assert comparison.interval(None, 1) == "-"
    assert comparison.interval(Estimate(1234.56), 1) == "1,234.6"
    assert comparison.interval(Estimate(1, -2, 3), 0) == "1 [-2, 3]"


def test_runs_that_share_a_seed_are_counted_as_runs(tmp_path: Path) -> None:
    for number, name in enumerate("xyz"):
        a_run(tmp_path / name, {300: 1.0}, {"seed": number // 2, "init_from": name})
    found = compare([str(tmp_path)])
    assert "│ runs │" in shown(found).replace("┃", "│")
    comparison.write(tmp_path / "a.csv", found)
    (row,) = csv.DictReader((tmp_path / "a.csv").open())
    assert (row["runs"], row["seeds"]) == ("3", "2")
