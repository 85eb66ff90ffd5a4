"""Run sweeps with any of Hydra's launchers.

A failing job does not end the sweep, signals are forwarded to the processes that run jobs, and the table of results is
shown however the sweep ends.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]
from hydra import initialize_config_dir
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rl_runner import catalogue, signals
from rl_runner.launch import launchers
from rl_runner.launch.settings import JOURNAL
from rl_runner.launch.task import Task, shortest
from rl_runner.run import files, notes
from rl_runner.run.notes import Failure

MULTIRUN = "multirun.yaml"  # Hydra's


class Sweep(NamedTuple):
    """A sweep that Hydra has started."""

    directory: Path
    planned: list[list[str]]  # the overrides of its jobs; none where the sweeper finds them as it goes


_sweeps: list[Sweep] = []  # of this command line: one, or none
_open = contextlib.ExitStack()  # what lasts as long as the sweep
_table = contextlib.ExitStack()  # the table that is shown while jobs run


class SweepCallback(Callback):
    """Hydra calls this at the start of a sweep (conf/train.yaml). At its end it calls nothing if a job has failed."""

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        """Record the sweep, and prepare for signals and for jobs that die."""
        sweep = Sweep(shortest(Path(config.hydra.sweep.dir).absolute()), _planned(config.hydra))
        _sweeps.append(sweep)
        done = [note for _, note in notes.of_sweep(sweep.directory) if note and note.state == notes.FINISHED]
        again = {tuple(sorted(words)) for words in sweep.planned} & {tuple(sorted(note.overrides)) for note in done}
        if again:
            print(f"{sweep.directory}: {len(again)} of {len(sweep.planned)} jobs have finished already", flush=True)
        choices = config.hydra.runtime.choices
        stop = _open.enter_context(launchers.adapted(choices["hydra/launcher"]))
        _open.enter_context(_passing_on_signals(stop))
        if choices["hydra/launcher"] in launchers.QUIET and config.hydra.job.config_name == "train":
            from rl_runner.report import live

            _table.enter_context(live.shown(sweep.directory, len(sweep.planned)))


def hide_table() -> None:
    """End the table that is shown while jobs run, before results are."""
    _table.close()


def plan(jobs: Sequence[list[str]]) -> None:
    """Add the overrides of jobs that a sweeper, which finds them as it goes, is about to launch."""
    for sweep in _sweeps:
        sweep.planned.extend(jobs)


def planned(directory: Path) -> list[list[str]]:
    """Return the overrides of each job that the last command planned in a sweep's directory; none if it is unknown."""
    try:
        config = OmegaConf.load(directory / MULTIRUN)
        with initialize_config_dir(str(catalogue.conf_dir()), version_base="1.3"):
            return _planned(config.hydra)
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError):  # missing, or damaged
        return []


def _planned(config: Any) -> list[list[str]]:
    """Return the overrides of each job as Hydra's basic sweeper makes them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.utils import filter_overrides

    if config.runtime.choices["hydra/sweeper"] != "basic":
        return []
    words = [*(f"{key}={value}" for key, value in (config.sweeper.params or {}).items()), *config.overrides.task]
    try:
        parsed = OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(words)
        (planned,) = BasicSweeper.split_arguments(parsed, None)
    except HydraException:  # the sweeper is about to say the same
        return []
    return [list(filter_overrides(job)) for job in planned]


@contextlib.contextmanager
def _passing_on_signals(stop: Callable[[int], bool]) -> Iterator[None]:
    """Forward a signal to the processes of jobs, which save and end; the launcher waits for them.

    Without such processes the command ends at once, unless a run in this process handles the signal itself.

    Args:
        stop: sends a signal to the processes of jobs; returns whether there are any.
    """

    def pass_on(number: int, _: object) -> None:
        launchers.received.append(number)
        # As to a single run: the first one stops it, a further SIGINT does not even wait for it to save.
        if not stop(signal.SIGTERM if len(launchers.received) == 1 else number):
            raise SystemExit(128 + number)

    numbers = [n for n in signals.unhandled() if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in numbers}
    signals.of_command.update(numbers)
    try:
        yield
    finally:
        signals.of_command.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def run(start: Callable[[], object], task: Task, multirun: bool) -> int:
    """Run one job or a sweep; show a sweep's results, however it ends, and report what failed.

    Args:
        start: starts Hydra, which calls the task.
        task: runs a job.
        multirun: whether a sweep was asked for.

    Returns:
        the exit status.
    """
    global _open
    _sweeps.clear()
    launchers.received.clear()
    with contextlib.ExitStack() as _open:
        if task.noted and not multirun:
            _open.enter_context(_passing_on_signals(lambda number: False))
        status, refused = _started(start, task)
        if _sweeps and not (_sweeps[0].directory / JOURNAL).is_file():  # a search has shown its own
            from rl_runner.report import sweep

            sweep.report(*_sweeps[0])
            if refused:
                _remove_unused(_sweeps[0].directory)
    if launchers.received:
        status = 128 + launchers.received[0]
        begun = _sweeps and any(notes.of_sweep(_sweeps[0].directory))
        if not begun:
            print("rlrun: stopped outside of training; there was nothing to save", file=sys.stderr)
        if _sweeps and not begun:
            _remove_unused(_sweeps[0].directory)
    stopped = refused is not None or status != 0
    failures = _failures(task, _sweeps[0] if _sweeps else None, stopped)
    if failures and refused:
        refused = refused._replace(trace=None)  # what a sweeper makes of jobs that failed
    said = _say(failures, refused, multirun or bool(_sweeps))
    return status or said


def _remove_unused(sweep: Path) -> None:
    """Remove the directory of a sweep that was refused before a job began, if only Hydra's file is in it."""
    with contextlib.suppress(OSError):
        (sweep / launchers.LOGS).rmdir()  # of jobs in processes of their own
    with contextlib.suppress(OSError):
        if [path.name for path in sweep.iterdir()] == [MULTIRUN]:
            (sweep / MULTIRUN).unlink()
            files.remove_unused(sweep)


def _started(start: Callable[[], object], task: Task) -> tuple[int, Failure | None]:
    """Start Hydra; return the exit status of what stopped it, and why it ran no job or stopped, if it failed itself."""
    try:
        start()
    except KeyboardInterrupt:
        print("rlrun: stopped", file=sys.stderr)
        return 130, None
    except SystemExit as e:
        if not _sweeps and not launchers.received:
            raise
        return e.code if isinstance(e.code, int) else 1, None
    except Exception as e:
        return 0, _refused(task, e)  # Hydra's, the sweeper's or the launcher's own
    finally:
        hide_table()
    return 0, None


def _refused(task: Task, e: Exception) -> Failure:
    """Return why Hydra or a launcher ran no job, or stopped."""
    if launchers.is_broken(e):
        return Failure(launchers.BROKEN.format(_sweeps[0].directory), exit_code=1)
    if launchers.is_no_cluster(e):
        return Failure(launchers.NO_CLUSTER)
    failure = task.explain(e)
    if isinstance(e, OSError):  # such as a directory that cannot be written
        return Failure(failure.line.removeprefix(f"{type(e).__name__}: "))
    return failure


def _failures(task: Task, sweep: Sweep | None, stopped: bool) -> list[tuple[str, Failure, Path | None]]:
    """Return each job that failed or whose process died: its name, why, and its log.

    Args:
        task: ran them.
        sweep: their sweep, if they are part of one.
        stopped: the sweep was stopped, so that some jobs never started.
    """
    here = {tuple(sorted(words)): failure for words, failure in task.failed}
    planned = {tuple(sorted(words)): words for words in sweep.planned} if sweep else {}
    begun = notes.of_sweep(sweep.directory) if sweep else ()
    noted = {tuple(sorted(note.overrides)): (run, note) for run, note in begun if note}
    told = {**{key: note.overrides for key, (_, note) in noted.items() if not planned}, **planned}
    told.update({tuple(sorted(words)): words for words, _ in task.failed})
    common = set.intersection(*map(set, told)) if len(told) > 1 else set()
    found: list[tuple[str, Failure, Path | None]] = []
    for key, words in told.items():
        run, note = noted.get(key, (None, None))
        failure = here.get(key)
        if not failure and note:
            failure = {
                notes.FAILED: Failure(note.error),
                notes.UNFINISHED: Failure("its process ended before the run did"),
            }.get(note.state)
        if not note and not failure and not stopped:
            failure = Failure("it never began")
        if failure:
            name = ", ".join(word for word in words if word not in common)
            found.append((name, failure, run / files.LOG if run else None))
    return found


def _say(failures: list[tuple[str, Failure, Path | None]], refused: Failure | None, multirun: bool) -> int:
    """Show what failed, if anything did; return the exit status."""
    shown = [failure for _, failure, _ in failures] + ([refused] if refused else [])
    for failure in shown:
        if failure.trace:
            print(f"rlrun: {failure.line}\n{failure.trace}", file=sys.stderr)
    if failures and multirun:
        print(f"\nrlrun: {len(failures)} job(s) failed:", file=sys.stderr)
        for name, failure, log in failures:
            print(f"  {name}: {failure.line}{f'; its log: {log}' if log else ''}", file=sys.stderr)
    elif failures and not failures[0][1].trace:
        print(f"rlrun: {failures[0][1].line}", file=sys.stderr)
    if refused and (multirun or not refused.trace):
        print(f"rlrun: {refused.line}", file=sys.stderr)
    if not shown:
        return 0
    return 1 if failures and multirun else shown[0].exit_code
