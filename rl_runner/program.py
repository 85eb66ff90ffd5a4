"""What a call of the Python API leaves as the program has it, since much of it belongs to the whole process."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from rl_runner.types import UserError

_calls = threading.RLock()  # held during a call; a thread that holds it may call again, as an environment can


def _renew() -> None:
    global _calls
    _calls = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)  # the thread that held it is not in the new process


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Refuse a call while another thread's runs: both would draw from the one random stream of torch.

    Raises:
        UserError: another thread's call runs.
    """
    held = _calls
    if not held.acquire(blocking=False):
        raise UserError("another thread of this program trains, evaluates or loads; use a process for each")
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def keeping_torch() -> Iterator[None]:
    """Restore torch's threads, random streams and modes. Within, they are torch's defaults, gradients included."""
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    dtype = torch.get_default_dtype()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(gpus), torch.inference_mode(False), torch.enable_grad(), on_cpu(), _without_autocast():
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)
            torch.backends.cudnn.deterministic = deterministic


@contextlib.contextmanager
def _without_autocast() -> Iterator[None]:
    """Compute in single precision within a program's autocast.

    Weights that were cast are kept until the outermost autocast ends, so that the optimizer's steps would not be seen:
    within one of the program's nothing is kept.
    """
    nested = torch.autocast_increment_nesting() > 1
    torch.autocast_decrement_nesting()
    if not nested:
        yield
        return
    kept, enabled = torch.is_autocast_cache_enabled(), [d for d in ("cpu", "cuda") if torch.is_autocast_enabled(d)]
    for device in enabled:
        torch.set_autocast_enabled(device, False)
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)
        for device in enabled:
            torch.set_autocast_enabled(device, True)


def on_cpu() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which the CPU is the default device, an empty one if it is: another slows each operation."""
    return contextlib.nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


@contextlib.contextmanager
def finding_modules() -> Iterator[None]:
    """Find modules in the current directory too, as the command does; what is not found is told by the exception."""
    logger = logging.getLogger("hydra.utils")
    disabled, logger.disabled = logger.disabled, True
    here = ""
    with contextlib.suppress(OSError):  # it was deleted
        here = os.getcwd()
    added = bool(here) and here not in sys.path
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
    with contextlib.redirect_stdout(sys.stdout and _OfOthers(sys.stdout)):
        yield


class _OfOthers:
    """Standard output without what one thread writes."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._silent = stream, threading.get_ident()

    def write(self, text: str) -> Any:
        return len(text) if threading.get_ident() == self._silent else self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        return False  # so that no progress is drawn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
