"""torch.compile for the losses of agents, which consist of many small operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from rl_runner.types import UserError

T = TypeVar("T")


def compiled_function(function: Callable[..., T], device: torch.device) -> Callable[..., T]:
    """Return a function of tensors, compiled; on a GPU as CUDA graphs, of which each run writes over what it returned.

    Args:
        function: draws random numbers from torch's own streams, which are saved and restored with a run.
        device: on which the tensors are.

    Raises:
        UserError: nothing can be compiled here.
    """
    from torch._inductor import config  # takes a second

    config.fallback_random = True  # noise from torch's own streams
    torch.compiler.reset()  # of an earlier run in this process, which may have had other shapes and parts
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(8, device=device))
    except Exception as e:  # whatever a missing compiler, header or Triton makes it raise
        why = str(e).strip().splitlines()[0]
        raise UserError(f"agent.compiled: torch.compile does not work here ({why}); false needs no compiler") from e
    quick: Any = torch.compile(function, dynamic=False, mode="reduce-overhead" if device.type == "cuda" else None)
    return quick  # type: ignore[no-any-return]
