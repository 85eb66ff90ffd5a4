"""What a run has done since its start and since its last log line, as scalars."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from rl_runner.types import Clock, Episode, State


class Progress:
    """Counts episodes, steps and time, over all resumes.

    Args:
        window: how many of the last episodes the mean return is taken over.
        clock: where training stands. Steps/s count from here: a resumed run is not credited with earlier steps.
    """

    def __init__(self, window: int, clock: Clock) -> None:
        self.recent: deque[float] = deque(maxlen=window)  # returns of the last episodes
        self.interval: list[tuple[float, int]] = []  # (return, length) of the episodes since the last log line
        self.info: list[Mapping[str, float]] = []  # numbers that the environments reported at these episodes' ends
        self.logged = Clock()  # the clock at the last log line
        self.evaluated = Clock()  # the clock at the last evaluation
        self._seconds_before = 0.0  # wall-clock until the last resume
        self._started = self._counting_since = time.perf_counter()
        self._counted = clock  # the clock when counting began

    @property
    def seconds(self) -> float:
        """Wall-clock of the run so far, over all resumes."""
        return self._seconds_before + time.perf_counter() - self._started

    def reached(self, goal: float | None) -> bool:
        """Return whether the window is full and its mean return is as high as the goal; None is never reached."""
        full = len(self.recent) == self.recent.maxlen
        return goal is not None and full and sum(self.recent) / len(self.recent) >= goal

    def add(self, episodes: Iterable[Episode]) -> None:
        """Count training episodes that ended."""
        for episode in episodes:
            self.recent.append(episode.total_reward)
            self.interval.append((episode.total_reward, episode.length))
            if episode.info:
                self.info.append(episode.info)

    def episodes(self, clock: Clock) -> dict[str, float]:
        """Return the scalars of the episodes that ended since the last log line, and the number of all."""
        scalars: dict[str, float] = {}
        if count := len(self.interval):
            scalars["train/return"] = sum(total for total, _ in self.interval) / count
            scalars["train/length"] = sum(length for _, length in self.interval) / count
            scalars[f"train/return_last_{self.recent.maxlen}"] = sum(self.recent) / len(self.recent)
        reported = {f"train/info/{name}": mean for name, mean in means(self.info).items()}
        return {**scalars, "train/episodes": clock.episodes, **reported}

    def speed(self, clock: Clock) -> dict[str, float]:
        """Return steps and updates per second of training, and the run's wall-clock."""
        elapsed = max(time.perf_counter() - self._counting_since, 1e-9)
        return {
            "time/steps_per_s": (clock.steps - self._counted.steps) / elapsed,
            "time/updates_per_s": (clock.updates - self._counted.updates) / elapsed,
            "time/seconds": self.seconds,
        }

    def begin_interval(self, clock: Clock) -> None:
        """Begin to count anew, after a log line."""
        self.interval, self.info, self.logged, self._counted = [], [], clock, clock
        self._counting_since = time.perf_counter()

    def leave_out(self, seconds: float) -> None:
        """Do not count time that was not spent on training, such as an evaluation, in steps per second."""
        self._counting_since += seconds

    def state_dict(self) -> State:
        """Return what a resumed run goes on with."""
        return {
            "recent": list(self.recent),
            "interval": list(self.interval),
            "info": [dict(info) for info in self.info],
            "logged": vars(self.logged),
            "evaluated": vars(self.evaluated),
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: State, clock: Clock) -> None:
        """Restore it; steps/s count from `clock`."""
        self.recent.extend(state["recent"])
        self.interval, self.info = list(state["interval"]), list(state.get("info", []))  # older runs have no info
        self.logged, self.evaluated = Clock(**state["logged"]), Clock(**state["evaluated"])
        self._seconds_before, self._counted = state["seconds"], clock
        self._started = self._counting_since = time.perf_counter()


def means(reported: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each number over the episodes that reported it."""
    values: dict[str, list[float]] = {}
    for info in reported:
        for name, value in info.items():
            values.setdefault(name, []).append(value)
    return {name: sum(of) / len(of) for name, of in values.items()}
