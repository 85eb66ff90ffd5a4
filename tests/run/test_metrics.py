"""Scalars: means of updates, and a table and curves that say the same, also after a resume."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rl_runner.meter import Meter, grouped
from rl_runner.run.checkpoint import load, save
from rl_runner.run.metrics import MetricsLog
from rl_runner.types import Episode
from tests.disk import full_beyond

Scalars = list[tuple[int, str, float]]


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


# Files that are shorter than the checkpoint says, by a crash of the machine or a copy that was cut short.


def begun(run: Path) -> dict[str, int]:
    """Three rows of two steps, and more of a third one after the checkpoint."""
    log = MetricsLog(run)
    log.write(1, {"a": 0.5, "b": 2.25})
    log.write(2, {"a": 1.5})
    sizes = log.state_dict()
    log.write(3, {"a": 2.5})
    log.close()
    return sizes


def resume(run: Path, sizes: dict[str, int]) -> list[str]:
    """Go on from step 2; return what is said."""
    said: list[str] = []
    log = MetricsLog(run, sizes, step=2, say=said.append)
    log.write(4, {"a": 9.0})
    log.close()
    return said


ROWS = [b"1,a,0.5\n", b"1,b,2.25\n", b"2,a,1.5\n"]


@pytest.mark.parametrize(
    ("left", "whole", "last"),
    [
        (b"".join(ROWS)[:-1], 2, "its last row is of step 1"),
        (b"".join(ROWS[:2]), 2, "its last row is of step 1"),
        (b"".join(ROWS[:1]) + b"1,b,", 1, "its last row is of step 1"),
        (b"".join(ROWS[:1]) + bytes(17), 1, "its last row is of step 1"),  # blocks that were never written
        (b"1", 0, "it holds no row"),
        (b"", 0, "it holds no row"),
    ],
)
def test_a_table_that_was_cut_short(tmp_path: Path, left: bytes, whole: int, last: str) -> None:
    """It is cut to its last whole row, and what is missing is said."""
    sizes = begun(tmp_path)
    (tmp_path / "metrics.csv").write_bytes(b"step,name,value\n" + left)
    said = resume(tmp_path, sizes)
    kept = b"".join(ROWS[:whole])
    assert (tmp_path / "metrics.csv").read_bytes() == b"step,name,value\n" + kept + b"4,a,9.0\n"
    words = f"is shorter than at the checkpoint: {last}, what followed up to step 2 is missing"
    assert said == [f"{tmp_path / 'metrics.csv'} {words}"]


@pytest.mark.parametrize("left", [None, b"", b"step,na"])
def test_a_table_that_is_missing_starts_again(tmp_path: Path, left: bytes | None) -> None:
    sizes = begun(tmp_path)
    (tmp_path / "metrics.csv").unlink()
    if left is not None:
        (tmp_path / "metrics.csv").write_bytes(left)
    (line,) = resume(tmp_path, sizes)
    assert (tmp_path / "metrics.csv").read_bytes() == b"step,name,value\n4,a,9.0\n"
    assert "up to step 2" in line


def test_a_whole_table_is_cut_to_the_checkpoint_in_silence(tmp_path: Path) -> None:
    assert resume(tmp_path, begun(tmp_path)) == []
    assert (tmp_path / "metrics.csv").read_bytes() == b"step,name,value\n" + b"".join(ROWS) + b"4,a,9.0\n"


def test_event_files_that_were_cut_short(tmp_path: Path) -> None:
    sizes = begun(tmp_path)
    (events,) = (tmp_path / "tensorboard").iterdir()
    events.write_bytes(events.read_bytes()[: sizes[f"tensorboard/{events.name}"] - 5])  # in the middle of step 2
    said = resume(tmp_path, sizes)
    assert said == [f"{events} is shorter than at the checkpoint: TensorBoard lacks a part of the curves"]
    assert sorted(curves(tmp_path)) == [(1, "a", 0.5), (1, "b", 2.25), (4, "a", 9.0)]


def test_a_checkpoint_cannot_cut_files_elsewhere(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "mine").write_text("of value")
    (run / "train.log").write_text("of value")
    resume(
        run, begun(run) | {"../mine": 0, "train.log": 0, str(tmp_path / "mine"): 0, "tensorboard/events./../../x": 0}
    )
    assert (tmp_path / "mine").read_text() == (run / "train.log").read_text() == "of value"


# A full disk.


def test_a_full_disk_ends_nothing_and_loses_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    log = MetricsLog(tmp_path, say=said.append)
    rows = {f"name_{i:04}": i / 3 for i in range(200)}  # about 6 kB in the table and 9 kB of events a step
    with full_beyond(8000):
        for step in (1, 2, 3):
            log.write(step, rows)
            assert {s for s, *_ in table(tmp_path)} == {1}  # whole rows, of whole steps
        sizes = log.state_dict()
    assert len(said) == 2  # one line for each file
    log.write(4, rows)
    log.close()
    assert (tmp_path / "metrics.csv").read_bytes()[: sizes["metrics.csv"]].splitlines()[-1].startswith(b"3,name_0199,")
    assert len(said) == 2
    assert table(tmp_path) == [(step, name, value) for step in (1, 2, 3, 4) for name, value in rows.items()]
    assert as_float32(curves(tmp_path)) == as_float32(table(tmp_path))


def test_rows_that_a_crash_lost_on_a_full_disk_are_named_at_the_resume(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, say=lambda line: None)
    log.write(1, {"a": 1.0})
    with full_beyond(100):
        log.write(2, {"a" * 100: 2.0})
        sizes = log.state_dict()  # then it crashes
    said: list[str] = []
    MetricsLog(tmp_path, sizes, step=2, say=said.append).close()
    assert said[0].endswith("its last row is of step 1, what followed up to step 2 is missing")
    log.close()


def test_a_meter_counts_each_name_by_itself() -> None:
    """A checkpoint of an older version, which had one count, lacks the names that are new."""
    meter = Meter()
    meter.load_state_dict({"sums": {"loss": torch.tensor(6.0)}, "count": 2})
    meter.add({"loss": torch.tensor(3.0), "q_max": torch.tensor(5.0)})
    assert meter.drain() == {"loss": 3.0, "q_max": 5.0}


def an_episode(total: float, length: int) -> Episode:
    return Episode(0, 0, total, length, [])


def test_episodes_reach_tensorboard_and_not_the_table(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.episodes(7, [an_episode(1.5, 7)])
    log.episodes(9, [an_episode(2.5, 2), an_episode(-1.0, 9)])
    log.write(10, {"a": 1.0})
    log.episodes(12, [an_episode(4.0, 3)])
    sizes = log.state_dict()  # a checkpoint has those since the last log line too
    log.episodes(13, [an_episode(99.0, 1)])
    log.close()
    log = MetricsLog(tmp_path, sizes, step=12)
    log.episodes(14, [an_episode(5.0, 2)])
    log.close()
    assert table(tmp_path) == [(10, "a", 1.0)]
    rows = [(7, 1.5, 7), (9, 2.5, 2), (9, -1.0, 9), (12, 4.0, 3), (14, 5.0, 2)]
    shown = curves(tmp_path)
    assert [(s, v) for s, name, v in shown if name == "episode/return"] == [(s, total) for s, total, _ in rows]
    assert [(s, v) for s, name, v in shown if name == "episode/length"] == [(s, length) for s, _, length in rows]


def test_a_checkpoint_between_two_log_lines_changes_no_curve(tmp_path: Path) -> None:
    """Every third of 250 episodes is shown, whether the run went on, or was resumed in between."""
    for run in (tmp_path / "whole", tmp_path / "resumed"):
        log = MetricsLog(run)
        log.write(1, {"a": 0.0})
        log.episodes(2, [an_episode(float(i), 1) for i in range(130)])
        saved = log.state_dict()
        if run.name == "resumed":
            log.episodes(3, [an_episode(-1.0, 1) for _ in range(99)])
            log.write(4, {"a": 1.0})
            log.close()
            save(tmp_path / "checkpoint", {"trainer": saved}, {})
            log = MetricsLog(run, load(tmp_path / "checkpoint")["trainer"], step=2)
        log.episodes(3, [an_episode(float(i), 1) for i in range(130, 250)])
        log.write(5, {"a": 2.0})
        log.close()
    assert curves(tmp_path / "resumed") == curves(tmp_path / "whole")
    assert [v for _, name, v in curves(tmp_path / "whole") if name == "episode/return"] == [*range(0, 250, 3)]


def test_of_very_many_episodes_every_nth_is_written(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.episodes(1, [an_episode(float(i), 1) for i in range(250)])
    log.close()
    assert [v for _, name, v in curves(tmp_path) if name == "episode/return"] == list(range(0, 250, 3))


def test_a_text_reaches_tensorboard(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.text("config", "seed: 0\nenv: pong")
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (shown,) = events.Tensors("config/text_summary")
    assert shown.tensor_proto.string_val[0] == b"    seed: 0\n    env: pong"


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
