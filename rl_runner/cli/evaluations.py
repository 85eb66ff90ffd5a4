"""Collect the evaluations of one command line and show them as one table at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rl_runner.commands.eval import Score

_done: list[tuple[list[str], Score]] = []  # each evaluation's run and keys, and its score


def add(words: list[str], score: Score) -> None:
    """Add an evaluation to the table.

    Args:
        words: the run, and the keys that it was evaluated with.
        score: its result.
    """
    _done.append((words, score))


@contextlib.contextmanager
def shown_at_the_end() -> Iterator[None]:
    """Show the returns of several evaluations as one table at the end, also if one of them fails."""
    _done.clear()
    try:
        yield
    finally:
        if len(_done) > 1:
            from rl_runner.commands import eval as command

            common = set.intersection(*(set(words) for words, _ in _done))
            labels = [" ".join(word for word in words if word not in common) or words[0] for words, _ in _done]
            command.show_all(labels, [score for _, score in _done])
