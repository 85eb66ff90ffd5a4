"""scripts/benchmark: the parts that take no time, so that a long measurement is not lost at its end."""

import argparse
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return runpy.run_path(str(SCRIPT))


def test_scaling_is_drawn(script: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {"variant": key, "value": str(value), "steps/s": "100"}
        for key, values in script["SCALING"].items()
        for value in values
    ]
    script["draw_scaling"](rows, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 1_000


def test_each_part_of_a_step_is_timed(script: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "backward", torch.Tensor.backward)  # undone at the end: profile replaces it
    profile, loop_of = script["profile"], script["pong"]
    words = ["env=cartpole", "learn_every_steps=1", "updates_per_learn=1"]
    monkeypatch.setitem(profile.__globals__, "pong", lambda _, steps, device: loop_of(words, steps, device))
    threads = torch.get_num_threads()
    rows = profile(argparse.Namespace(threads=threads, words=[], device="cpu", rounds=1))
    assert all(float(row["ms/step"]) > 0 for row in rows if row["variant"] != "loop and clock")
