"""What a call of the Python API leaves as the program has it, since much of it belongs to the whole process."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch

from rl_runner.types import UserError

_calls = threading.RLock()  # held during a call; a thread that holds it may call again, as an environment can


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Refuse a call while another thread's runs: both would draw from the one random stream of torch.

    Raises:
        UserError: another thread's call runs.
    """
    if not _calls.acquire(blocking=False):
        raise UserError("another thread of this program trains, evaluates or loads; use a process for each")
    try:
        yield
    finally:
        _calls.release()


@contextlib.contextmanager
def keeping_torch() -> Iterator[None]:
    """Put back torch's threads, random streams and modes. Within, they are torch's defaults, gradients included."""
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    on_cpu = contextlib.nullcontext() if device.type == "cpu" else torch.device("cpu")  # it slows each operation
    with torch.random.fork_rng(gpus), torch.inference_mode(False), torch.enable_grad(), on_cpu:
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)
            torch.backends.cudnn.deterministic = deterministic


@contextlib.contextmanager
def finding_modules() -> Iterator[None]:
    """Find modules in the current directory too, as the command does; what is not found is told by the exception."""
    here, logger = os.getcwd(), logging.getLogger("hydra.utils")
    disabled, logger.disabled = logger.disabled, True
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        logger.disabled = disabled
        if added:
            with contextlib.suppress(ValueError):  # the program took it out
                sys.path.remove(here)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Print nothing from this thread; what other threads print is shown."""
    with contextlib.redirect_stdout(_OfOthers(sys.stdout)):
        yield


class _OfOthers:
    """Standard output without what one thread writes."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._silent = stream, threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._silent else int(self._stream.write(text))

    def isatty(self) -> bool:
        return False  # so that no progress is drawn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
