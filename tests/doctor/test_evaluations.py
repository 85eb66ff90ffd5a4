"""Evaluations, measured with a clock that the test moves, and what is said of them."""

from collections.abc import Callable

import pytest

from rl_runner.doctor import evaluations
from rl_runner.doctor.evaluations import Evaluations, measure

MEASURED = Evaluations(10, 20, 3, 50.0, 30.0, 500)
HOURS = 10 * 3 * 30 / 50 / 3600


class Player:
    """Takes a quarter of a second for a step; the episodes of two environments take these steps."""

    def __init__(self, *lengths: int) -> None:
        self.lengths, self.now = lengths, 7.0

    def __call__(self, stopped: Callable[[], bool]) -> list[int]:
        step = 0
        while step < max(self.lengths) and not stopped():
            self.now, step = self.now + 0.25, step + 1
        return [length for length in self.lengths if length <= step]


@pytest.mark.parametrize(
    ("lengths", "seconds", "wanted"),
    [
        ((3, 5), 1.0, (4.0, 4.0)),
        ((3, 5), 10.0, (4.0, 4.0)),  # several times
        ((3, 11), 1.0, (4.0, 7.0)),  # longer than was asked for
        ((3, 99), 1.0, (4.0, 3.0)),  # three times as long, then stopped
        ((98, 99), 1.0, (4.0, None)),
    ],
)
def test_what_is_measured(
    lengths: tuple[int, int], seconds: float, wanted: tuple[float, float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    player = Player(*lengths)
    monkeypatch.setattr(evaluations, "now", lambda: player.now)
    assert measure(player, seconds) == wanted
    assert seconds <= player.now - 7 <= max(3 * seconds, seconds + 5 * 0.25)


def test_a_step_that_takes_longer_than_the_time_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    player = Player(98, 99)
    monkeypatch.setattr(evaluations, "now", lambda: player.now)
    assert measure(player, 0.01) == (4.0, None)


def test_the_time_counts_evaluations_and_says_with_which_episodes() -> None:
    (name, time), (_, basis) = MEASURED.facts(50_000, 1.0)
    assert name == "time"
    assert time == (
        "about 1.0 hours: 50,000 steps 1.0 hours + 10 evaluations of 20 episodes 18 seconds, without checkpoints"
    )
    assert basis == (
        "evaluations with 30 steps an episode, as the agent plays now; with 500, the time limit, they take 5 minutes"
    )
    assert MEASURED.facts(50_000, 10 / 3600)[0][1].startswith("about 28 seconds: 50,000 steps 10 seconds + 10 eval")
    for limit in (None, 30):
        _, (_, basis) = MEASURED._replace(limit=limit).facts(50_000, 1.0)
        assert basis == "evaluations with 30 steps an episode, as the agent plays now"
    numbers = MEASURED.numbers()
    assert (numbers["hours"], numbers["hours_at_limit"]) == (pytest.approx(HOURS), pytest.approx(HOURS * 500 / 30))


def test_where_no_episode_ended_the_time_limit_is_taken_or_evaluations_are_left_out() -> None:
    endless = MEASURED._replace(length=None)
    (_, time), (_, basis) = endless.facts(50_000, 1.0)
    assert time.startswith("about 1.1 hours: 50,000 steps 1.0 hours + 10 evaluations of 20 episodes 5 minutes")
    assert basis == "evaluations with 500 steps an episode, the time limit; none ended while measuring"
    ((_, time),) = endless._replace(limit=None).facts(50_000, 1.0)
    assert time == (
        "50,000 steps take about 1.0 hours, without evaluations, because no episode ended while measuring, and without "
        "checkpoints"
    )
    assert endless.numbers()["hours"] is None
