"""An agent's weights alone: what acting needs, without what only learning needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rl_runner.types import Agent, HasWeights, State

SHOWN = 4  # names in one line


def weights_of(agent: Agent) -> tuple[State, State]:
    """Return what a snapshot holds of an agent, and what its manifest says of that.

    An agent that cannot tell its weights from the rest is kept whole.
    """
    if isinstance(agent, HasWeights):
        return {"agent": agent.weights()}, {"weights_only": True}
    return {"agent": agent.state_dict()}, {"weights_only": False}


def load_agent_state(agent: Agent, state: State, about: State) -> None:
    """Restore an agent from a checkpoint's `agent` component, whole or its weights alone.

    Raises:
        TypeError: the checkpoint holds weights alone, which this agent does not take.
    """
    if not about.get("weights_only"):
        agent.load_state_dict(state)
    elif isinstance(agent, HasWeights):
        agent.load_weights(state)
    else:
        raise TypeError(f"{type(agent).__name__} takes no weights alone")


@dataclass(frozen=True)
class Taken:
    """Which of an agent's weights came from another agent.

    Attributes:
        names: paths of those that did.
        missing: those that did not, each with the reason; and those of the other agent that have no place here.
    """

    names: list[str]
    missing: list[str]

    def __str__(self) -> str:
        line = f"{len(self.names)} of {len(self.names) + len(self.missing)} arrays"
        return f"{line}; not taken: {self.reasons()}" if self.missing else line

    def reasons(self) -> str:
        """Return in words which were not taken."""
        more = len(self.missing) - SHOWN
        return ", ".join(self.missing[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def take_weights(agent: HasWeights, source: State) -> Taken:
    """Load into an agent those weights of another one that have the same name and shape; the others stay as they are.

    A single number, such as the count of a running mean, is taken only with all arrays of its module.

    Args:
        agent: newly built.
        source: the `agent` component of the other one's checkpoint.
    """
    weights = agent.weights()
    here, there = dict(_tensors(weights)), dict(_tensors(source))
    fits = {path: path in there and there[path].shape == tensor.shape for path, tensor in here.items()}
    for path, tensor in here.items():
        module = path.rpartition(".")[0]
        if tensor.dim() == 0 and module:
            fits[path] = all(fit for other, fit in fits.items() if other.rpartition(".")[0] == module)
    names = [path for path, fit in fits.items() if fit]
    if names:
        agent.load_weights(_replaced(weights, {path: there[path] for path in names}))
    parts = {path.partition("/")[0] for path in here}
    extra = [path for path in there if path.partition("/")[0] in parts and path not in here]
    missing = [_reason(path, here[path], there.get(path)) for path, fit in fits.items() if not fit]
    return Taken(names, [*missing, *(f"{path} ({_shape(there[path])}, not here)" for path in extra)])


def _replaced(node: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """Return a tree with other tensors at some paths."""
    if isinstance(node, dict):
        return {key: _replaced(value, tensors, _join(path, key)) for key, value in node.items()}
    return tensors.get(path, node)


def _reason(path: str, here: Tensor, there: Tensor | None) -> str:
    """Return in words why an array is not taken."""
    return f"{path} ({_shape(here)}, {'not there' if there is None else f'there {_shape(there)}'})"


def _join(path: str, key: object) -> str:
    return f"{path}/{key}" if path else str(key)


def _tensors(node: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a tree by their paths."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _tensors(value, _join(path, key))
    elif isinstance(node, Tensor):
        yield path, node


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
