"""The evaluations of a run, read from its files."""

import json
from pathlib import Path
from typing import Any

import pytest

from rl_runner.report import evaluations


def write(directory: Path, name: str, seed: int, episodes: int, **other: Any) -> None:
    statistics = {"mean": 1.0, "std": 0.5, "min": 0.0, "max": 2.0, "ci95": [0.5, 1.5]}
    content: dict[str, Any] = {"return": statistics, "episodes": episodes, "seed": seed, "step": 40, "protocol": {}}
    content["checkpoint"] = "a/b/best_40"
    (directory / f"{name}.json").write_text(json.dumps({**content, **other}))


def test_those_of_one_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, "best_40_seed0_sticky_0.25", 0, 500)
    write(tmp_path, "best_40_seed0", 0, 10)
    write(tmp_path, "best_40_seed1", 1, 100)
    write(tmp_path, "best_80_seed0", 0, 100, checkpoint="a/b/best_80")
    (tmp_path / "best_40_seed2.json").write_text("{")
    (tmp_path / "best_40_seed3.json").write_text("[1]")
    (tmp_path / "best_40_seed7.json").write_text("[" * 100_000)
    write(tmp_path, "best_40_seed4", 4, 9, **{"return": {"mean": "<script>"}})
    write(
        tmp_path,
        "best_40_seed8",
        8,
        9,
        **{"return": dict.fromkeys(("mean", "std", "min", "max"), 10**400) | {"ci95": [0, 1]}},
    )
    write(tmp_path, "best_40_seed5", 5, 9, step=None)
    write(tmp_path, "best_40_seed6", 6, 9, protocol=None)
    found = evaluations.of_checkpoint(tmp_path, "best_40")
    names = ["best_40_seed1.json", "best_40_seed0.json", "best_40_seed0_sticky_0.25.json"]
    assert [result["file"] for result in found] == names
    assert found[0]["checkpoint"] == "best_40"  # no path of this machine
    assert evaluations.of_checkpoint(tmp_path / "none", "best_40") == []


def test_those_of_training(tmp_path: Path) -> None:
    rows = [(20, 5, 1.0), (20, 6, 4.0), (40, 7, 2.0)]
    lines = [json.dumps({"step": step, "seed": seed, "return": total, "length": 1}) for step, seed, total in rows]
    lines.append('{"step": Infinity, "seed": 0, "return": 1}')
    (tmp_path / "evaluations.jsonl").write_text("\n".join([*lines, '{"step": 40, "se']))
    first, second = evaluations.of_training(tmp_path)
    assert (first["step"], first["episodes"]) == (20, 2)
    assert first["return"] == {"mean": 2.5, "std": pytest.approx(4.5**0.5), "min": 1.0, "max": 4.0}
    assert first["per_episode"] == [{"seed": 5, "return": 1.0}, {"seed": 6, "return": 4.0}]
    assert (second["step"], second["return"]["std"]) == (40, 0.0)
    assert evaluations.of_training(tmp_path / "none") == []
