"""Periods and straight lines, against loops that count."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_runner.schedules import Every, LinearSchedule
from rl_runner.types import Clock, UserError

UNITS = ("steps", "updates", "episodes")


@settings(derandomize=True, deadline=None)
@given(
    period=st.integers(1, 60),
    before=st.integers(0, 300),
    advance=st.integers(0, 130),
    unit=st.sampled_from(UNITS),
    others=st.integers(0, 1000),
)
def test_crossings_counts_multiples(period: int, before: int, advance: int, unit: str, others: int) -> None:
    a = Clock(**{unit: before})
    b = a.plus(**{u: advance if u == unit else others for u in UNITS})
    counted = 0
    for n in range(before + 1, before + advance + 1):
        counted += n % period == 0
    assert Every(period, unit).crossings(a, b) == counted


@settings(derandomize=True, deadline=None)
@given(period=st.integers(1, 20), advances=st.lists(st.integers(0, 30), max_size=40))
def test_crossings_add_up_however_time_is_cut(period: int, advances: list[int]) -> None:
    every, clock, counted = Every(period), Clock(), 0
    for n in advances:
        before, clock = clock, clock.plus(steps=n)
        counted += every.crossings(before, clock)
    assert counted == sum(advances) // period


def test_zero_means_never() -> None:
    assert Every(0).crossings(Clock(), Clock(steps=100)) == 0


def test_linear_by_hand() -> None:
    line = LinearSchedule(1.0, 0.1, 10)
    assert [line(s) for s in (0, 1, 5, 10, 11, 10**9)] == pytest.approx([1.0, 0.91, 0.55, 0.1, 0.1, 0.1])
    assert line(10) == 0.1  # exactly
    assert LinearSchedule(0.0, 4.0, 8)(6) == 3.0


def test_linear_over_no_steps_is_its_end() -> None:
    assert LinearSchedule(1.0, 0.25, 0)(0) == 0.25


def test_linear_refuses_negative_steps() -> None:
    with pytest.raises(UserError, match="0 or more, got -1"):
        LinearSchedule(1.0, 0.0, -1)


def test_clock_plus_leaves_the_old_one() -> None:
    clock = Clock(1, 2, 3)
    assert clock.plus(steps=10, updates=20, episodes=30) == Clock(11, 22, 33)
    assert clock.plus() == clock == Clock(1, 2, 3)
