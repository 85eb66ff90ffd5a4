"""The signals at which a run saves and stops."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path

STATUS = Path("/proc/self/status")  # of Linux
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
STOPPING = tuple(signal.Signals[name] for name in NAMES if hasattr(signal, name))  # not every platform has them all
ALWAYS = (signal.SIGINT, signal.SIGTERM)
of_command: set[signal.Signals] = set()  # those that the command handles in this process, while no run in it does


def unhandled() -> list[signal.Signals]:
    """Return the signals for a run to handle: those of `ALWAYS`, and the others where they would end the process.

    Outside the main thread Python allows no signal handlers, so the list is empty there. A signal outside of `ALWAYS`
    that has a handler in C, as `faulthandler.register` sets it, is left out; Python does not know of such handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    handlers = {s: signal.getsignal(s) for s in STOPPING}
    known = [s for s in STOPPING if handlers[s] is not None]  # None: not set by Python, which could not restore it
    caught = _caught()
    ending = [s for s in known if handlers[s] is signal.SIG_DFL and not caught >> (s - 1) & 1]
    return [s for s in known if s in ALWAYS or s in of_command or s in ending]


def _caught() -> int:
    """Return the signals that this process handles, also in C: bit s - 1 is set for the signal s; 0 where unknown."""
    try:
        found = re.search(r"^SigCgt:\s*([0-9a-f]+)$", STATUS.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1], 16) if found else 0
