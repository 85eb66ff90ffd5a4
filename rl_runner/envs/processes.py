"""Environments in processes of their own, in Gymnasium's `AsyncVectorEnv`, and how their errors reach the run.

Observations travel through shared memory, actions and rewards through pipes. If the run is killed, the processes end.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import _async_worker

from rl_runner import signals
from rl_runner.envs.vector import Died
from rl_runner.types import UserError, one_line

Env = gym.Env[Any, Any]
Processes = AsyncVectorEnv[Any, Any]

# Forked on Linux, also in a job of a launcher, where the default is another; elsewhere the platform's default.
CONTEXT = "fork" if sys.platform == "linux" else None


class Raised(Exception):
    """An exception of an environment's process, as text: not every exception can be sent to another process.

    Args:
        report: its type, its message and its traceback; or a `Raised`: Gymnasium copies an exception so.
    """

    def __init__(self, report: tuple[str, str, str] | Raised) -> None:
        self.report: tuple[str, str, str] = report.report if isinstance(report, Raised) else report
        super().__init__(self.report)


class Failed(UserError):
    """An exception of the environment's own code, with the traceback from its process."""

    def __init__(self, line: str, trace: str, exit_code: int) -> None:
        super().__init__(line)
        self.trace, self.exit_code = trace, exit_code


def in_processes(makers: Sequence[Callable[[], Env]], id: str) -> Processes:
    """Return environments, each in a process of its own.

    Raises:
        UserError: a process could not make its environment.
    """
    if multiprocessing.current_process().daemon:
        raise UserError(
            "env.processes: a daemonic process, such as a worker of multiprocessing.Pool, cannot start processes; use "
            "concurrent.futures.ProcessPoolExecutor, or env.processes=false"
        )
    try:
        with _quiet():
            return AsyncVectorEnv(
                makers, copy=False, autoreset_mode=AutoresetMode.DISABLED, worker=_work, context=CONTEXT
            )
    except Raised as e:
        kind, message, trace = e.report
        raise Failed(f"env.id: {id} cannot be made: {message or kind}", trace, UserError.exit_code) from None
    except (EOFError, ConnectionError) as e:  # from the pipe to a process
        raise UserError(f"env.id: {id} cannot be made: its process died") from e


@contextlib.contextmanager
def answering(envs: Processes, name: str) -> Iterator[None]:
    """Translate what goes wrong in the environments' processes.

    Raises:
        Died: a process died; the others were killed.
        Failed: the environment's own code raised an exception.
    """
    try:
        with _quiet():
            yield
    except Raised as e:
        kind, message, trace = e.report
        raise Failed(f"env: {name} raised {kind}{f': {message}' if message else ''}", trace, 1) from None
    except (EOFError, ConnectionError) as e:  # from the pipe to a process
        raise _died(envs) from e


def kill(processes: Sequence[multiprocessing.Process]) -> None:
    """Kill processes, which ignore other signals, and wait for their end."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warnings in which Gymnasium shows an exception before it raises it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*ERROR: ", module=r"gymnasium\.")
        yield


def _died(envs: Processes) -> Died:
    processes = envs.processes
    gone = multiprocessing.connection.wait([p.sentinel for p in processes], timeout=10)
    dead = next((i for i, p in enumerate(processes) if p.sentinel in gone), 0)
    processes[dead].join(timeout=10)
    code = processes[dead].exitcode
    kill(processes)
    envs.closed = True
    return Died(dead, code)


def _work(index: int, make: Callable[[], Env], pipe: Any, parent: Any, memory: Any, errors: Any, *rest: Any) -> None:
    """Run one environment. The process ends with this call."""
    for number in signals.STOPPING:  # the run handles signals to the process group: it saves, then ends this process
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(EOFError, ConnectionError):  # the run was killed
        try:
            env = _Reporting(make())
        except Exception as e:  # someone else's constructor may raise anything
            error = _portable(e)
            errors.put((index, type(error), error, ""))
            pipe.recv()
            pipe.send((None, False))
            return
        _async_worker(index, lambda: env, pipe, parent, memory, errors, *rest)


class _Reporting(gym.Wrapper[Any, Any, Any, Any]):
    """Turns an environment's exceptions into ones that can be sent to the run."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        try:
            return self.env.reset(seed=seed, options=options)
        except Exception as e:
            raise _portable(e) from None

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        try:
            return self.env.step(action)
        except Exception as e:
            raise _portable(e) from None


def _portable(e: Exception) -> Exception:
    """Return an exception that can be sent to the run, with the traceback from the environment's own code on."""
    if type(e) is UserError:
        return e
    first = tb = e.__traceback__
    while tb is not None and tb.tb_frame.f_globals["__name__"].partition(".")[0] in ("rl_runner", "gymnasium"):
        tb = tb.tb_next
    trace = "".join(traceback.format_exception(type(e), e, tb or first))
    return Raised((type(e).__name__, one_line(e), trace))
