"""What a check has found: one line."""

from __future__ import annotations

from dataclasses import dataclass

from rl_runner.types import State


@dataclass(frozen=True)
class Finding:
    """A value that is probably wrong.

    Attributes:
        key: the key of the configuration, or the metric of a run.
        value: what it is.
        why: what follows from that; it continues a sentence that begins with the value.
        right: what would be right.
        step: of training, at which the metric had the value.
        refused: training cannot work, so that it is refused.
    """

    key: str
    value: object
    why: str
    right: str
    step: int | None = None
    refused: bool = False

    def __str__(self) -> str:
        at = "" if self.step is None else f" at step {self.step:,}"
        why = f" {self.why}" if self.why else ""
        return f"{self.key}: {shown(self.value)}{at}{why}; {self.right}"

    def plain(self) -> State:
        """Return it for JSON."""
        value = self.value if isinstance(self.value, (bool, int, float, str)) else str(self.value)
        where = {} if self.step is None else {"step": self.step}
        kind = "refused" if self.refused else "warning"
        return {"kind": kind, "key": self.key, "value": value, **where, "why": self.why, "right": self.right}


def shown(value: object) -> str:
    """Return a value as a message has it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
