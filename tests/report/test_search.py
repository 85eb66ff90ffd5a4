"""What a search says at its end."""

from pathlib import Path

import pytest

from rl_runner.report import search
from rl_runner.report.search import Trial

TRIALS = [
    Trial(2, "finished", 480.125, 3000, {"optimizer.lr": "0.00123456789", "network": "mlp"}),
    Trial(0, "finished", 20.0, 3000, {"optimizer.lr": "0.5", "network": "dueling"}),
    Trial(1, "pruned", 9.5, 1000, {"optimizer.lr": "1e-05", "network": "mlp"}),
    Trial(3, "unfinished", None, 0, {"optimizer.lr": "0.1"}),
]


def test_the_best_comes_first_and_the_file_has_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search.show(tmp_path, TRIALS, "last", {"optimizer.lr": 0.75, "network": 0.25}, "rlrun train experiment=best")
    shown = capsys.readouterr().out
    assert f"{tmp_path}: 4 trials: 2 finished, 1 pruned, 1 unfinished; 7,000 steps\n" in shown
    rows = [line.replace("│", " ").split() for line in shown.splitlines() if line.startswith("│")]
    assert rows[0] == ["2", "0.001235", "mlp", "finished", "480.12", "3,000"]
    assert rows[3] == ["3", "0.1", "-", "unfinished", "-", "0"]
    assert "importance: optimizer.lr 75%, network 25% (of few trials, so it says little)\n" in shown
    assert f"continue with:  the same command and hydra.sweep.dir={tmp_path}\n" in shown
    assert shown.endswith("train with the best:  rlrun train experiment=best\n")
    assert (tmp_path / "trials.csv").read_text() == (
        "trial,state,last,steps,optimizer.lr,network\n"
        "0,finished,20,3000,0.5,dueling\n"
        "1,pruned,9.5,1000,1e-05,mlp\n"
        "2,finished,480.125,3000,0.00123456789,mlp\n"
        "3,unfinished,,0,0.1,\n"
    )
    assert (tmp_path / "importance.png").read_bytes().startswith(b"\x89PNG")


def test_a_search_without_trials_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search.show(tmp_path, [], "last", {}, None)
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.iterdir())


def test_values_are_shown_with_four_digits() -> None:
    assert list(map(search.short, ["0.00123456", "1e-05", "12345678", "-3", "mlp"])) == [
        "0.001235",
        "1e-05",
        "12345678",
        "-3",
        "mlp",
    ]
