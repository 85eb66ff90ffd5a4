"""Saving while a run trains. A full disk ends nothing: what cannot be saved is reported, and training continues."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from rl_runner.run.checkpoint import Checkpoints
from rl_runner.run.encoding import encode
from rl_runner.run.weights import weights_of
from rl_runner.types import Agent, Clock, State


class Screen(Protocol):
    """What the person in front of the run sees of it."""

    def pause(self, doing: str) -> AbstractContextManager[None]: ...
    def say(self, line: str) -> None: ...


class Saver:
    """Writes checkpoints, best agents and snapshots.

    Args:
        checkpoints: where they go.
        screen: told what could not be saved.
        seconds: returns the wall-clock of the run so far.

    Attributes:
        saved: the clock at the last checkpoint that was written or loaded.
        error: why the last one that failed did.
    """

    def __init__(self, checkpoints: Checkpoints, screen: Screen, seconds: Callable[[], float]) -> None:
        self.checkpoints, self._screen, self._seconds = checkpoints, screen, seconds
        self.saved: Clock | None = None
        self.error = ""

    def require_saveable(self, state: State) -> None:
        """Check that a state can be saved, before the run has something to lose.

        Raises:
            UserError: a part of the user's own put something into it that a state cannot hold.
        """
        for name, part in state.items():
            encode(part, name, {})

    def checkpoint(self, clock: Clock, state: State) -> None:
        """Write everything that the run needs to go on."""
        if self._save("checkpoint", self.checkpoints.save, clock, state, {}):
            self.saved = clock

    def snapshot(self, clock: Clock, agent: Agent) -> None:
        """Write an agent's weights alone, to be evaluated later."""
        self._save("snapshot", self.checkpoints.save_snapshot, clock, *weights_of(agent))

    def best(self, clock: Clock, agent: Agent, evaluation: State) -> bool:
        """Write the best agent, with its evaluation; return whether it was saved."""
        return self._save("best agent", self.checkpoints.save_best, clock, {"agent": agent.state_dict()}, evaluation)

    def _save(
        self, what: str, save: Callable[[int, State, State], object], clock: Clock, state: State, about: State
    ) -> bool:
        """Save; on OSError (a full disk) report it and keep training. Return whether it was saved."""
        try:
            with self._screen.pause("saving"):
                save(clock.steps, state, {**vars(clock), "seconds": self._seconds(), **about})
        except OSError as e:
            self.error = f"{e.strerror or e}"
            self._screen.say(f"step {clock.steps:,}: the {what} cannot be saved ({self.error}); the run goes on")
            return False
        return True
