"""Records of single episodes: exact, the same after a resume, and no reason to end a run."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from rl_runner.run.records import EpisodeRecords
from rl_runner.types import Episode
from tests.disk import full_beyond

FILES = ("episodes.csv", "evaluations.jsonl")


def episode(seed: int, total: float, length: int) -> Episode:
    return Episode(0, seed, total, length, [0] * length)


def write(records: EpisodeRecords, *steps: int, wrong: float = 0.0) -> None:
    """Two training episodes and one evaluation of two episodes at each step."""
    for step in steps:
        records.training(step, [episode(2 * step, step / 3 + wrong, step), episode(2 * step + 1, -1e-7, 1)])
        records.evaluation(step, [{"seed": step + i, "return": step / 7 + wrong, "length": 3 + i} for i in range(2)])


def contents(run: Path) -> list[bytes]:
    return [(run / name).read_bytes() for name in FILES]


def whole(run: Path, *steps: int) -> list[bytes]:
    """What an uninterrupted run writes."""
    run.mkdir()
    records = EpisodeRecords(run)
    write(records, *steps)
    records.close()
    return contents(run)


def test_each_episode_is_a_row(tmp_path: Path) -> None:
    records = EpisodeRecords(tmp_path)
    records.training(30, [episode(2**63, 0.1 + 0.2, 17), episode(5, -21.0, 3)])
    records.evaluation(40, [{"seed": 7, "return": 1.5, "length": 9}])
    with open(tmp_path / "episodes.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(int(r["step"]), int(r["seed"]), float(r["return"]), int(r["length"])) for r in rows] == [
        (30, 2**63, 0.1 + 0.2, 17),  # to the last bit
        (30, 5, -21.0, 3),
    ]
    lines = (tmp_path / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 40, "seed": 7, "return": 1.5, "length": 9}]
    records.close()


def test_a_resumed_run_writes_the_same_files(tmp_path: Path) -> None:
    """Resumed from step 2 though it had come to step 4, and once more from step 3."""
    run = tmp_path / "run"
    run.mkdir()
    records = EpisodeRecords(run)
    write(records, 1, 2)
    sizes = records.state_dict()
    write(records, 3, 4, wrong=100.0)
    records.close()
    records = EpisodeRecords(run, sizes, 2)
    write(records, 3)
    sizes = records.state_dict()
    write(records, 4, 5, wrong=200.0)
    records.close()
    records = EpisodeRecords(run, sizes, 3)
    write(records, 4, 5)
    records.close()
    assert contents(run) == whole(tmp_path / "whole", 1, 2, 3, 4, 5)


@pytest.mark.parametrize("exist", [True, False])
def test_a_checkpoint_that_knows_of_no_records(tmp_path: Path, exist: bool) -> None:
    """One of an older version: the records start where the run is resumed."""
    if exist:
        whole(tmp_path / "run", 1, 2)
    else:
        (tmp_path / "run").mkdir()
    said: list[str] = []
    records = EpisodeRecords(tmp_path / "run", {"metrics.csv": 10}, 2, said.append)
    write(records, 3)
    records.close()
    assert contents(tmp_path / "run") == whole(tmp_path / "whole", 3)
    assert said == []


def test_a_run_without_an_episode_before_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    records = EpisodeRecords(tmp_path / "run")
    sizes = records.state_dict()
    write(records, 3, wrong=100.0)
    records.close()
    said: list[str] = []
    records = EpisodeRecords(tmp_path / "run", sizes, 2, said.append)
    write(records, 4)
    records.close()
    assert contents(tmp_path / "run") == whole(tmp_path / "whole", 4)
    assert said == []


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda data: data[:-1], "its last row is of step 2"),
        (lambda data: data[: data.index(b"1")], "it holds no row"),
        (lambda data: data[:-10] + bytes(10), "its last row is of step 2"),  # blocks that were never written
    ],
    ids=["cut short", "no row", "blocks of zeros"],
)
@pytest.mark.parametrize("name", FILES)
def test_records_that_are_shorter_than_at_the_checkpoint(tmp_path: Path, name: str, damage: Any, kept: str) -> None:
    whole(tmp_path / "run", 1, 2)
    file = tmp_path / "run" / name
    sizes = {n: (tmp_path / "run" / n).stat().st_size for n in FILES}
    file.write_bytes(damage(file.read_bytes()))
    said: list[str] = []
    EpisodeRecords(tmp_path / "run", sizes, 2, said.append).close()
    assert said == [f"{file} is shorter than at the checkpoint: {kept}, what followed up to step 2 is missing"]
    assert file.read_bytes().count(b"\0") == 0
    assert whole(tmp_path / "whole", 1, 2)[FILES.index(name)].startswith(file.read_bytes())


def test_a_full_disk_is_said_once_for_each_file_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    said: list[str] = []
    records = EpisodeRecords(tmp_path / "run", say=said.append)
    write(records, 1)
    with full_beyond(200):
        write(records, *range(2, 9))
    assert len(said) == 2
    for name in FILES:
        assert any(f"{name} cannot be written (File too large); the run goes on" in line for line in said)
    sizes = records.state_dict()
    write(records, 9)
    records.close()
    assert len(said) == 2
    expected = whole(tmp_path / "whole", *range(1, 10))
    assert contents(tmp_path / "run") == expected
    assert sizes == {n: len(e) - len(last) for n, e, last in zip(FILES, expected, rows_of(9, tmp_path), strict=True)}


def rows_of(step: int, tmp_path: Path) -> list[bytes]:
    training, evaluations = whole(tmp_path / "one", step)
    return [training.removeprefix(b"step,seed,return,length\n"), evaluations]
