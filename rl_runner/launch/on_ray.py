"""`hydra/launcher=ray`: run each job in a process of Ray's, on this machine or on any machine of a cluster.

A job whose process or machine dies is run again by Ray, and goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

from hydra.core.utils import JobReturn

from rl_runner.launch import launchers
from rl_runner.types import UserError

LOGS = "/tmp/ray/session_latest/logs, on its machine"


@contextlib.contextmanager
def adapted(dead: JobReturn) -> Iterator[launchers.Stop]:
    """Change the launcher; yield the function that stops its jobs.

    Args:
        dead: stands for the result of a job that could not be run.
    """
    import ray
    from hydra_plugins.hydra_ray_launcher import _core

    start_ray = _core.start_ray
    begun: list[Any] = []

    def start(config: Any) -> None:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        start_ray(config)  # which handles SIGTERM by ending this process
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def launch(context: Any, remote: Any, *arguments: Any) -> Any:
        job = ray.cloudpickle.dumps((context, *arguments))
        begun.append(ray.remote(**remote)(run).remote(os.getcwd(), job))
        return begun[-1]

    class Ray:
        """What the launcher uses of it."""

        @staticmethod
        def get(job: Any) -> Any:
            try:
                return ray.get(job)
            except ray.exceptions.RayTaskError as e:  # before the job's own code, which notes how it failed
                line = str(e.cause).rstrip().rpartition("\n")[2]  # Ray puts whole tracebacks into its messages
                print(f"rlrun: job {begun.index(job)}: could not begin: {line}", file=sys.stderr)
            except ray.exceptions.RayError:
                launchers.say_died(begun.index(job), LOGS)
            return dead

    def stop(number: int) -> bool:
        for job in begun:
            ray.cancel(job)
        return bool(begun)

    with (
        launchers.replaced(_core, "start_ray", start),
        launchers.replaced(_core, "launch_job_on_ray", launch),
        launchers.replaced(_core, "ray", Ray),
    ):
        yield stop


def run(directory: str, job: bytes) -> JobReturn:
    """Run a job; Ray calls this in a process of its own, which began in some other directory.

    Args:
        directory: where the sweep was started; relative paths begin there.
        job: the arguments of the launcher's own function, pickled: they need what `launchers.PLUGINS` holds.
    """
    try:
        os.chdir(directory)
    except OSError as e:
        raise UserError(
            f"hydra/launcher=ray: {directory} on {socket.gethostname()}: {e.strerror}; "
            "all machines of the cluster must have the same files there"
        ) from e
    sys.path.extend(path for path in (launchers.PLUGINS, directory) if path not in sys.path)
    import ray
    from hydra_plugins.hydra_ray_launcher import _launcher_util

    result: JobReturn = _launcher_util._run_job(*ray.cloudpickle.loads(job))
    return result
