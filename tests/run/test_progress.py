"""What a run counts: episodes, steps, and seconds without those that are not training."""

import pytest

from rl_runner.run import progress
from rl_runner.run.progress import Progress, means
from rl_runner.types import Clock, Episode


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    moved = Time()
    monkeypatch.setattr(progress, "time", moved)
    return moved


def episode(total: float, length: int, **info: float) -> Episode:
    return Episode(env=0, seed=0, total_reward=total, length=length, actions=[], info=info)


def test_episodes_are_those_since_the_last_line_and_the_mean_is_over_the_window(time: Time) -> None:
    run = Progress(3, Clock())
    run.add([episode(1.0, 10), episode(2.0, 20)])
    assert run.episodes(Clock(episodes=2)) == {
        "train/return": 1.5,
        "train/length": 15.0,
        "train/return_last_3": 1.5,
        "train/episodes": 2,
    }
    run.begin_interval(Clock(steps=30, episodes=2))
    assert run.logged == Clock(steps=30, episodes=2)
    assert run.episodes(Clock(episodes=2)) == {"train/episodes": 2}
    run.add([episode(6.0, 30, lap=0.5), episode(7.0, 40, lap=1.0, off=2.0)])
    assert run.episodes(Clock(episodes=4)) == {
        "train/return": 6.5,
        "train/length": 35.0,
        "train/return_last_3": 5.0,  # of 2, 6 and 7
        "train/info/lap": 0.75,
        "train/info/off": 2.0,
        "train/episodes": 4,
    }


def test_a_goal_is_reached_once_the_window_is_full(time: Time) -> None:
    run = Progress(2, Clock())
    run.add([episode(9.0, 1)])
    assert not run.reached(1.0)
    run.add([episode(3.0, 1)])
    assert [run.reached(goal) for goal in (6.0, 6.1, None)] == [True, False, False]


def test_steps_per_second_leave_out_what_was_no_training_and_seconds_do_not(time: Time) -> None:
    run = Progress(2, Clock(steps=100, updates=10))
    time.now += 4.0
    run.leave_out(2.0)  # an evaluation
    assert run.speed(Clock(steps=150, updates=20)) == {
        "time/steps_per_s": 25.0,
        "time/updates_per_s": 5.0,
        "time/seconds": 4.0,
    }
    run.begin_interval(Clock(steps=150, updates=20))
    time.now += 1.0
    assert run.speed(Clock(steps=160, updates=20))["time/steps_per_s"] == 10.0


def test_a_resumed_run_goes_on_counting_and_is_not_credited_with_earlier_steps(time: Time) -> None:
    run = Progress(2, Clock())
    run.add([episode(5.0, 7, lap=1.0)])
    run.evaluated = Clock(steps=50)
    time.now += 9.0
    state = run.state_dict()
    time.now += 500.0  # it stands still
    resumed = Progress(2, Clock())
    resumed.load_state_dict(state, Clock(steps=60))
    time.now += 1.0
    assert resumed.seconds == 10.0
    assert resumed.speed(Clock(steps=62))["time/steps_per_s"] == 2.0
    assert resumed.evaluated == Clock(steps=50)
    assert resumed.episodes(Clock()) == run.episodes(Clock())
    del state["info"]  # as older runs have it
    resumed.load_state_dict(state, Clock())
    assert resumed.info == []


def test_a_mean_is_over_the_episodes_that_reported_the_number() -> None:
    assert means([{"a": 1.0}, {"a": 3.0, "b": 5.0}, {}]) == {"a": 2.0, "b": 5.0}
    assert means([]) == {}
