"""The signals at which a run saves and stops."""

from __future__ import annotations

import signal
import threading

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
STOPPING = tuple(signal.Signals[name] for name in NAMES if hasattr(signal, name))  # not every platform has them all
ALWAYS = (signal.SIGINT, signal.SIGTERM)
of_command: set[signal.Signals] = set()  # those that the command handles in this process, while no run in it does


def unhandled() -> list[signal.Signals]:
    """Return the signals for a run to handle: those of `ALWAYS`, and the others where they would end the process.

    Outside the main thread Python allows no signal handlers, so that there are none.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    return [s for s in STOPPING if s in ALWAYS or s in of_command or signal.getsignal(s) is signal.SIG_DFL]
