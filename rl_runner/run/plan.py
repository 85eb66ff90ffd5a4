"""When a run logs, evaluates, saves and stops."""

from __future__ import annotations

from dataclasses import dataclass

from rl_runner.schedules import Every


@dataclass(frozen=True)
class Plan:
    """When things happen.

    Attributes:
        total_steps: the run's length.
        log: write scalars this often.
        evaluate: play evaluation episodes this often.
        checkpoint: write a whole checkpoint this often.
        snapshot: write the agent's weights this often.
        keep_replay: whole checkpoints hold the replay memory; without it a resumed run is not exact.
        stop_return: stop when the mean return of the last `stop_window` training episodes reaches this; None: do not.
        stop_window: episodes.
        stop_eval_return: stop when the mean return of an evaluation reaches this; None: do not.
    """

    total_steps: int
    log: Every
    evaluate: Every
    checkpoint: Every
    snapshot: Every
    keep_replay: bool = True
    stop_return: float | None = None
    stop_window: int = 100
    stop_eval_return: float | None = None
