"""Means of what updates report, collected as tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from rl_runner.types import State, UserError


class Meter:
    """Means of what updates report. Sums stay tensors, so that nothing waits for the device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._first = True  # no update of the run was added yet

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add the metrics of one update.

        Raises:
            UserError: the loss of the first update is not finite. No weight had changed before it.
        """
        if self._first and not math.isfinite(loss := float(metrics.get("loss", 0.0))):
            raise UserError(
                f"agent: the loss of the first update is {loss}, before any weight has changed; a part has returned a "
                "number that is not finite: the network, value, sync or replay.sampler"
            )
        self._first = False
        for name, value in metrics.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def drain(self) -> dict[str, float]:
        """Return the means since the last call, and start again."""
        means = {name: total.item() / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> State:
        """Return sums and counts."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: State) -> None:
        """Restore sums and counts. Older checkpoints hold one count for all names."""
        self._first = False
        self._sums = dict(state["sums"])
        self._counts = {name: state["counts"][name] if "counts" in state else state["count"] for name in self._sums}


def learning(meter: Meter, agent: object, updates: int) -> dict[str, float]:
    """Return the means of the meter, which begins anew, the number of updates, and the agent's learning rate.

    Raises:
        UserError: a loss that is not finite; nothing that is learned after it is worth having.
    """
    scalars = {**meter.drain(), "updates": updates}
    if optimizer := getattr(agent, "optimizer", None):  # an agent of the user's own may have none
        scalars["lr"] = float(optimizer.param_groups[0]["lr"])
    if not math.isfinite(scalars.get("loss", 0.0)):
        raise UserError("optimizer.lr: the network has diverged (the loss is not finite); use a smaller one")
    return scalars


def grouped(**groups: Mapping[str, float]) -> dict[str, float]:
    """Return scalars under their groups' names, as TensorBoard shows them: loss of `learn` becomes learn/loss."""
    return {f"{group}/{name}": value for group, scalars in groups.items() for name, value in scalars.items()}
