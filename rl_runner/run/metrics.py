"""Scalars of a run, written as TensorBoard curves and as a plain table."""

from __future__ import annotations

import io
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams, scalar, text

from rl_runner.run.files import CURVES, TABLE
from rl_runner.run.loggers import Sender
from rl_runner.run.rows import cut_rows
from rl_runner.streams import AppendedFile
from rl_runner.types import Episode, State, UserError

MAX_EPISODES = 100  # that TensorBoard gets between two log lines
HEADER = "step,name,value\n"
WAITING = "waiting"  # episodes (step, return, length) that TensorBoard gets with the next scalars
ROW = rb"\d+,.*,[^,\n]+\n"  # a regular expression


class MetricsLog:
    """Writes scalars to `metrics.csv` (step,name,value) and to TensorBoard, the same to both.

    TensorBoard alone gets single episodes (run/records.py has them all), hyperparameters and texts.

    A resumed run goes on exactly where its checkpoint stood: what was written after it is cut off first. Where a file
    is shorter than it was then, or missing, the log says which steps are lost. A file that cannot be written, as on a
    full disk, ends nothing: it is said once, and what is missing is written later if that is possible.

    Args:
        run: the run's directory.
        sizes: what `state_dict` returned, of the checkpoint that the run resumes from; None: a new run.
        step: the step that it resumes from.
        say: told what a user must know.
        sender: sends the scalars to a service too.

    Raises:
        UserError: a file cannot be cut.
    """

    def __init__(
        self,
        run: Path,
        sizes: Mapping[str, Any] | None = None,
        step: int = 0,
        say: Callable[[str], object] = print,
        sender: Sender | None = None,
    ) -> None:
        self._run, self._sender = run, sender
        if sizes is not None:
            try:
                _cut_back(run, sizes, step, say)
            except OSError as e:
                raise UserError(f"resume: {e.filename or run} cannot be cut: {e.strerror}") from e
        self._table = AppendedFile(run / TABLE, say)
        if self._table.size == 0:
            self._table.append(HEADER.encode())
        self._curves = _EventFile(run / CURVES, say)
        waiting = () if sizes is None else sizes.get(WAITING, ())  # an older checkpoint has none
        self._episodes = [(int(at), float(total), int(length)) for at, total, length in waiting]  # not written yet
        if sizes is not None:
            self._curves.purge(step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars at an environment step."""
        self._table.append("".join(f"{step},{name},{value}\n" for name, value in scalars.items()).encode())
        self._curves.add(*(Event(step=step, summary=scalar(name, value)) for name, value in scalars.items()))
        self._write_episodes()
        if self._sender:
            self._sender.write(step, scalars)

    def episodes(self, step: int, episodes: Iterable[Episode]) -> None:
        """Note training episodes that ended at a step. TensorBoard gets them with the next scalars."""
        self._episodes += [(step, e.total_reward, e.length) for e in episodes]

    def _write_episodes(self) -> None:
        """Write return and length of each noted episode; of very many every n-th, because writing takes its time."""
        noted, self._episodes = self._episodes, []
        for step, total, length in noted[:: -(-len(noted) // MAX_EPISODES) or 1]:
            self._curves.add(
                Event(step=step, summary=scalar("episode/return", total)),
                Event(step=step, summary=scalar("episode/length", length)),
            )

    def text(self, name: str, words: str) -> None:
        """Write a text for TensorBoard's TEXT page, set as it is."""
        lines = "\n".join(f"    {line}" for line in words.splitlines())  # Markdown for a block of code
        self._curves.add(Event(summary=text(name, lines)))

    def hyperparameters(self, values: Mapping[str, Any], metric: str) -> None:
        """Tell TensorBoard's HPARAMS page what this run was made with and which curve to rank it by."""
        simple = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items()}
        self._curves.add(*(Event(summary=summary) for summary in hparams(simple, {metric: None})))

    def state_dict(self) -> State:
        """Return each file's size, with what could not be written yet, and the episodes since the last scalars."""
        sizes = {_name(self._run, file): file.stat().st_size for file in _files(self._run)}
        written = {_name(self._run, file.path): file.size for file in (self._table, self._curves.file)}
        waiting = {WAITING: np.array(self._episodes, dtype=np.float64)} if self._episodes else {}
        return sizes | written | waiting

    def close(self) -> None:
        """Write what was noted, and close the files."""
        self._write_episodes()
        self._table.close()
        self._curves.file.close()


class _EventFile:
    """A file of TensorBoard's. Unlike with SummaryWriter no thread writes it, so an error cannot come later."""

    def __init__(self, directory: Path, say: Callable[[str], object]) -> None:
        # TensorBoard reads the files of a directory in the order of their names.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self.file = AppendedFile(directory / name, say)
        self.add(Event(file_version="brain.Event:2"))

    def purge(self, step: int) -> None:
        """Write a marker that makes TensorBoard ignore the events of earlier files from a step on."""
        self.add(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, *events: Event) -> None:
        """Write events, all or none."""
        records = io.BytesIO()
        for event in events:
            event.wall_time = time.time()
            RecordWriter(records).write(event.SerializeToString())
        self.file.append(records.getvalue())


def _files(run: Path) -> list[Path]:
    return [file for file in (run / TABLE, *sorted((run / CURVES).glob("events.*"))) if file.is_file()]


def _name(run: Path, file: Path) -> str:
    return str(file.relative_to(run))


# Going back to a checkpoint.


def _cut_back(run: Path, sizes: Mapping[str, Any], step: int, say: Callable[[str], object]) -> None:
    """Bring the files back to the sizes that a checkpoint knows; say what is missing."""
    for file in _files(run):
        if _name(run, file) not in sizes:
            file.unlink()
    for name, size in sizes.items():
        if name == TABLE:
            cut_rows(run / TABLE, HEADER.encode(), ROW, size, step, say)
        elif not re.fullmatch(rf"{CURVES}/events\.[^/]+", name):  # a stranger's checkpoint may name any file
            continue
        elif not (run / name).is_file():
            say(f"{run / name} is missing: TensorBoard lacks its curves")
        elif (run / name).stat().st_size < size:
            say(f"{run / name} is shorter than at the checkpoint: TensorBoard lacks a part of the curves")
        else:
            os.truncate(run / name, size)
