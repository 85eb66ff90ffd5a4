"""Speed, measured with a clock that the test moves."""

from types import SimpleNamespace
from typing import Any

import pytest

from rl_runner.doctor import speed
from rl_runner.doctor.speed import Speed
from rl_runner.types import Clock


class Bursts:
    """A loop that acts for 1 second a step, and at every 10th step learns twice for 5 seconds."""

    done = False

    def __init__(self) -> None:
        self.clock, self.now = Clock(), 0.0

    def step(self) -> None:
        self.clock, self.now = self.clock.plus(steps=4), self.now + 1
        if self.clock.steps % 40 == 0:
            self.clock, self.now = self.clock.plus(updates=2), self.now + 10

    def scalars(self) -> dict[str, float]:
        return {}


@pytest.mark.parametrize("seconds", [1.0, 19.0, 50.0, 200.0])
def test_whole_cycles_are_measured(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    loop: Any = Bursts()
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: loop.now))
    monkeypatch.setattr(speed, "PATIENCE", 100)
    measured = speed.measure(loop, seconds)
    assert measured.steps_per_s == pytest.approx(40 / 20)
    assert measured.updates_per_s == pytest.approx(2 / 20)
    assert seconds <= measured.seconds < seconds + 20


def test_without_an_update_in_time_there_is_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    loop: Any = Bursts()
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: loop.now))
    assert speed.measure(loop, 0.5) == Speed(None, 0.0, None, 0.0)


def test_hours() -> None:
    measured = Speed(steps_per_s=10.0, updates_per_s=1.0, before_per_s=100.0, seconds=1.0)
    assert measured.hours(total=37_000, before=1_000) == pytest.approx((10 + 3_600) / 3_600)
    assert measured.hours(total=500, before=1_000) == pytest.approx(5 / 3_600)
    assert measured._replace(steps_per_s=None).hours(100, 0) is None
    words = [speed.duration(hours) for hours in (12.34, 1.0, 0.5, 0.02, 0.001)]
    assert words == ["12.3 hours", "1.0 hours", "30 minutes", "72 seconds", "4 seconds"]
