"""Recurrent layers: what a network remembers of the earlier observations of an episode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rl_runner import memory as main_memory
from rl_runner.types import UserError

KINDS: dict[str, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """One recurrent layer over steps. It forgets everything where an episode begins.

    Args:
        inputs: F, numbers of its input at each step.
        kind: "lstm" (Hochreiter & Schmidhuber 1997) or "gru" (Cho et al. 2014).
        units: H, numbers of its output at each step.

    Attributes:
        size: S, numbers that are remembered of each sequence: the H outputs, and the H cells of an LSTM.

    Raises:
        UserError: a value out of range, or a layer that does not fit into memory.
    """

    def __init__(self, inputs: int, kind: str, units: int) -> None:
        super().__init__()
        if kind not in KINDS:
            raise UserError(f"network.memory: must be one of {', '.join(KINDS)}, or null, got {kind!r}")
        if units < 1:
            raise UserError(f"network.memory_units: must be at least 1, got {units}")
        main_memory.require_for_layer(inputs + units, 4 * units)
        self.layer = KINDS[kind](inputs, units)
        self._cells = kind == "lstm"
        self.size = 2 * units if self._cells else units

    def initialize(self, init: str) -> None:
        """Set weights to those of "orthogonal" (gain 1) or "xavier" (uniform), and biases to 0; else leave torch's."""
        if init == "default":
            return
        for name, parameter in self.layer.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
            elif init == "orthogonal":
                nn.init.orthogonal_(parameter)
            else:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, memory: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs (B, H), and what is remembered after the last step (C, S).

        Args:
            x: (B, F) of L steps of C sequences, B = L C, in the order of steps, and of sequences within a step.
            memory: (C, S) before the first step.
            begins: (B,) an episode begins with this step.
        """
        steps, begins = x.reshape(-1, len(memory), x.shape[1]), begins.reshape(-1, len(memory), 1)
        # One call for all steps up to the next one with which an episode begins: several times as fast as one per step.
        first = [0, *(t for t in begins.any(dim=1).flatten().nonzero().flatten().tolist() if t > 0)]
        outputs = []
        for t, part in zip(first, steps.tensor_split(first[1:]), strict=True):
            output, memory = self._run(part, memory.masked_fill(begins[t], 0.0))
            outputs.append(output)
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).flatten(0, 1), memory

    def _run(self, steps: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(L, C, F), (C, S) -> outputs (L, C, H), and what is remembered after them (C, S)."""
        if not self._cells:
            output, after = self.layer(steps, memory[None])
            return output, after[0]
        hidden, cells = (part.contiguous()[None] for part in memory.chunk(2, dim=1))
        output, (hidden, cells) = self.layer(steps, (hidden, cells))
        return output, torch.cat([hidden[0], cells[0]], dim=1)
