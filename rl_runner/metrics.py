"""Numbers of a run: collected as tensors, written as TensorBoard curves and as a plain table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from rl_runner.curves import TABLE
from rl_runner.types import State

CURVES = "tensorboard"


class Meter:
    """Means of what updates report. Sums stay tensors, so that nothing waits for the device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Take one update's numbers in."""
        for name, value in metrics.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def drain(self) -> dict[str, float]:
        """Give the means since the last call, and begin anew."""
        means = {name: total.item() / self._count for name, total in self._sums.items()}
        self.__init__()  # type: ignore[misc]
        return means

    def state_dict(self) -> State:
        """Give sums and count."""
        return {"sums": dict(self._sums), "count": self._count}

    def load_state_dict(self, state: State) -> None:
        """Put sums and count back."""
        self._sums, self._count = dict(state["sums"]), state["count"]


def grouped(**groups: Mapping[str, float]) -> dict[str, float]:
    """Give scalars under their groups' names, as TensorBoard shows them: loss of `learn` becomes learn/loss."""
    return {f"{group}/{name}": value for group, scalars in groups.items() for name, value in scalars.items()}


class MetricsLog:
    """Writes scalars to `metrics.csv` (step,name,value) and to TensorBoard, the same to both.

    A resumed run goes on exactly where its checkpoint stood: what was written after it is cut off first.

    Args:
        run: the run's directory.
        sizes: file sizes as `state_dict` gave them, of the checkpoint that the run resumes from; None: a new run.
        step: the step that it resumes from.
    """

    def __init__(self, run: Path, sizes: Mapping[str, int] | None = None, step: int = 0) -> None:
        self._run = run
        if sizes is not None:
            _cut_back(run, sizes)
        table = run / TABLE
        self._table = open(table, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the run
        if self._table.tell() == 0:
            self._table.write("step,name,value\n")
        self._curves = SummaryWriter(str(run / CURVES), purge_step=step + 1 if sizes is not None else None)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars at an environment step."""
        for name, value in scalars.items():
            self._table.write(f"{step},{name},{value}\n")
            self._curves.add_scalar(name, value, step)
        self._table.flush()

    def hyperparameters(self, values: Mapping[str, Any], metric: str) -> None:
        """Tell TensorBoard's HPARAMS page what this run was made with and which curve to rank it by."""
        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items()}
        writer = self._curves.file_writer
        assert writer is not None
        for summary in hparams(plain, {metric: None}):
            writer.add_summary(summary)

    def state_dict(self) -> State:
        """Write everything out and give each file's size."""
        self._table.flush()
        self._curves.flush()
        return {str(f.relative_to(self._run)): f.stat().st_size for f in _files(self._run)}

    def close(self) -> None:
        """Write everything out and close the files."""
        self._table.close()
        self._curves.close()


def _files(run: Path) -> list[Path]:
    curves = sorted((run / CURVES).glob("events.*"))
    return [run / TABLE, *curves]


def _cut_back(run: Path, sizes: Mapping[str, int]) -> None:
    for file in _files(run):
        size = sizes.get(str(file.relative_to(run)))
        if size is None:
            file.unlink(missing_ok=True)
        elif file.exists() and file.stat().st_size > size:
            with open(file, "r+b") as f:
                f.truncate(size)
