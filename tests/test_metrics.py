"""Scalars: means of updates, and a table and curves that say the same, also after a resume."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from rl_runner.metrics import Meter, MetricsLog, grouped

Scalars = list[tuple[int, str, float]]


@pytest.fixture(autouse=True)
def _file_numbers_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event files of one second and process are sorted, as text, by this number: keep it to one digit."""
    monkeypatch.setattr(event_file_writer, "_global_uid", type(event_file_writer._global_uid)(0))


def table(run: Path) -> Scalars:
    with open(run / "metrics.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.reader(f))
    assert rows[0] == ["step", "name", "value"]
    return [(int(step), name, float(value)) for step, name, value in rows[1:]]


def curves(run: Path) -> Scalars:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return [(e.step, name, e.value) for name in events.Tags()["scalars"] for e in events.Scalars(name)]


def as_float32(scalars: Scalars) -> Scalars:
    """Sorted, as TensorBoard keeps numbers; NaN as a word, so that it equals itself."""
    return sorted((s, n, "nan" if math.isnan(v) else float(np.float32(v))) for s, n, v in scalars)  # type: ignore[misc]


# Meter


def test_meter_gives_means_and_begins_anew() -> None:
    meter = Meter()
    for loss, q in [(1.0, -2.0), (2.0, 0.0), (6.0, 5.0)]:
        meter.add({"loss": torch.tensor(loss), "q": torch.tensor(q)})
    assert meter.drain() == {"loss": 3.0, "q": 1.0}
    assert meter.drain() == {}
    meter.add({"loss": torch.tensor(7.0)})
    assert meter.drain() == {"loss": 7.0}


def test_meter_leaves_what_it_is_given_alone() -> None:
    first = torch.tensor(1.0)
    meter = Meter()
    meter.add({"loss": first})
    meter.add({"loss": torch.tensor(2.0)})
    assert first.item() == 1.0


def test_meter_restored_goes_on() -> None:
    meter, fresh = Meter(), Meter()
    meter.add({"loss": torch.tensor(1.0)})
    state = meter.state_dict()
    for m in (meter, fresh):
        if m is fresh:
            fresh.load_state_dict(state)
        m.add({"loss": torch.tensor(4.0)})
    assert meter.drain() == fresh.drain() == {"loss": 2.5}


# MetricsLog

FIRST = {"train/return": 1.5, "learn/loss": 0.1, "count": 3}
LATER = {"train/return": -2e-7, "learn/loss": 1e30, "count": 4}


def test_table_and_curves_hold_the_same(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(10, FIRST)
    log.write(25, LATER)
    log.close()
    wanted = [(10, n, v) for n, v in FIRST.items()] + [(25, n, v) for n, v in LATER.items()]
    assert table(tmp_path) == wanted  # to the last bit of a float64
    assert as_float32(curves(tmp_path)) == as_float32(wanted)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64(0.1), np.float32(0.5), 2**40])
def test_odd_numbers_are_written_as_numbers(tmp_path: Path, value: float) -> None:
    log = MetricsLog(tmp_path)
    log.write(1, {"x": value})
    log.close()
    wanted = [(1, "x", float(value))]
    assert as_float32(table(tmp_path)) == as_float32(wanted) == as_float32(curves(tmp_path))


def test_a_line_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(1, {"x": 0.5})
    assert table(tmp_path) == [(1, "x", 0.5)]
    log.close()


def write(log: MetricsLog, *steps: int, wrong: float = 0.0) -> None:
    for step in steps:
        log.write(step, {"a": step / 3 + wrong, "b": -step + wrong})


def test_a_resumed_run_writes_what_the_uninterrupted_one_writes(tmp_path: Path) -> None:
    """Resumed from step 2 though it had come to step 4, and once more from step 3."""
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    straight.mkdir()
    resumed.mkdir()
    log = MetricsLog(straight)
    write(log, 1, 2, 3, 4, 5)
    log.close()

    log = MetricsLog(resumed)
    write(log, 1, 2)
    sizes = log.state_dict()
    write(log, 3, 4, wrong=100.0)
    log.close()
    log = MetricsLog(resumed, sizes, step=2)
    write(log, 3)
    sizes = log.state_dict()
    write(log, 4, 5, wrong=200.0)
    log.close()
    log = MetricsLog(resumed, sizes, step=3)
    write(log, 4, 5)
    log.close()

    assert table(resumed) == table(straight)
    assert (resumed / "metrics.csv").read_bytes() == (straight / "metrics.csv").read_bytes()
    assert as_float32(curves(resumed)) == as_float32(curves(straight)) == as_float32(table(straight))


def test_event_files_from_after_the_checkpoint_go(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    write(log, 1)
    sizes = log.state_dict()
    log.close()
    first = {f.name for f in (tmp_path / "tensorboard").iterdir()}
    log = MetricsLog(tmp_path, sizes, step=1)
    write(log, 2, wrong=100.0)
    log.close()
    second = {f.name for f in (tmp_path / "tensorboard").iterdir()} - first
    log = MetricsLog(tmp_path, sizes, step=1)  # resumed from the same checkpoint again
    write(log, 2)
    log.close()
    now = {f.name for f in (tmp_path / "tensorboard").iterdir()}
    assert len(second) == 1
    assert first < now
    assert not second & now
    assert sorted(table(tmp_path)) == [(1, "a", 1 / 3), (1, "b", -1.0), (2, "a", 2 / 3), (2, "b", -2.0)]
    assert as_float32(curves(tmp_path)) == as_float32(table(tmp_path))


def test_sizes_are_those_of_the_files_on_disk(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    empty = log.state_dict()
    write(log, 1)
    sizes = log.state_dict()
    assert set(sizes) == set(empty)
    assert all(sizes[name] > empty[name] for name in sizes)
    assert {name: (tmp_path / name).stat().st_size for name in sizes} == sizes
    log.close()


def test_a_file_that_somebody_removed_does_not_stop_the_resume(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    write(log, 1)
    sizes = log.state_dict()
    log.close()
    for name in sizes:
        (tmp_path / name).unlink()
    log = MetricsLog(tmp_path, sizes, step=1)
    write(log, 2)
    log.close()
    assert table(tmp_path) == [(2, "a", 2 / 3), (2, "b", -2.0)]


def test_hyperparameters_reach_tensorboard(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.hyperparameters({"lr": 0.1, "name": "dqn", "sizes": [1, 2], "none": None}, metric="eval/return_mean")
    log.write(1, {"eval/return_mean": 3.0})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert "_hparams_/session_start_info" in events.summary_metadata
    assert curves(tmp_path) == [(1, "eval/return_mean", 3.0)]


def test_scalars_stand_under_their_groups():
    assert grouped(learn={"loss": 1.0, "q": 2.0}, explore={}) == {"learn/loss": 1.0, "learn/q": 2.0}
    assert grouped(learn={"x": 1.0}, explore={"x": 3.0}) == {"learn/x": 1.0, "explore/x": 3.0}
