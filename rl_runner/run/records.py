"""Every episode of a run, one row each: those of training as CSV, those of evaluations as lines of JSON.

pandas.read_csv("episodes.csv") has the columns step, seed, return and length, pandas.read_json("evaluations.jsonl",
lines=True) the same. The step of a training episode is the one that ended it, that of an evaluation when it was made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rl_runner.run.files import EPISODES, EVALUATIONS
from rl_runner.run.rows import cut_rows
from rl_runner.streams import AppendedFile
from rl_runner.types import Episode, State, UserError

HEADER = b"step,seed,return,length\n"
ROW = rb"\d+,\d+,[^,\n]+,\d+\n"  # regular expressions
JSON_ROW = rb'\{"step": \d+, [^\n]*\}\n'


class EpisodeRecords:
    """Writes the episodes of a run to its directory.

    Args:
        run: the run's directory.
        sizes: file sizes as `state_dict` returned them, of the checkpoint that the run resumes from; None: a new run.
        step: the step that it resumes from.
        say: told what a user must know.

    Raises:
        UserError: a file cannot be cut back to the checkpoint.
    """

    def __init__(
        self,
        run: Path,
        sizes: Mapping[str, int] | None = None,
        step: int = 0,
        say: Callable[[str], object] = print,
    ) -> None:
        if sizes is not None:
            _cut(run / EPISODES, HEADER, ROW, sizes.get(EPISODES), step, say)
            _cut(run / EVALUATIONS, b"", JSON_ROW, sizes.get(EVALUATIONS), step, say)
        self._training = AppendedFile(run / EPISODES, say)
        self._evaluations = AppendedFile(run / EVALUATIONS, say)
        if self._training.size == 0:
            self._training.append(HEADER)

    def training(self, step: int, episodes: Iterable[Episode]) -> None:
        """Write the training episodes that ended at a step."""
        rows = [f"{step},{e.seed},{e.total_reward},{e.length}\n" for e in episodes]
        self._training.append("".join(rows).encode())

    def evaluation(self, step: int, episodes: Iterable[State]) -> None:
        """Write the episodes of an evaluation.

        Args:
            step: of training.
            episodes: seed, return and length of each.
        """
        rows = [json.dumps({"step": step, **episode}) + "\n" for episode in episodes]
        self._evaluations.append("".join(rows).encode())

    def state_dict(self) -> State:
        """Return each file's size, with what could not be written yet."""
        return {EPISODES: self._training.size, EVALUATIONS: self._evaluations.size}

    def close(self) -> None:
        """Close the files."""
        self._training.close()
        self._evaluations.close()


def _cut(file: Path, header: bytes, row: bytes, size: int | None, step: int, say: Callable[[str], object]) -> None:
    """Cut a file back to a checkpoint; remove it if the checkpoint, an older one, knows of none."""
    try:
        if size is None:
            file.unlink(missing_ok=True)
        elif size > 0 or file.is_file():
            cut_rows(file, header, row, size, step, say)
    except OSError as e:
        raise UserError(f"resume: {file} cannot be cut: {e.strerror}") from e
