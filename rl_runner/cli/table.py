"""The verbs: all that the command line knows of each, in one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rl_runner import catalogue


@dataclass(frozen=True)
class Verb:
    """One verb of the command line.

    Attributes:
        name: the verb as typed.
        summary: what it does, in one line.
        usage: its arguments, in one line.
        work: runs one job, given its configuration; returns what a sweeper may optimise. None: see `alone`.
        groups: the config groups that it takes; None: all of them.
        argument: the key that a word without "=" sets; None: such a word is an error.
        several: several such words are allowed.
        runs: keys whose value is a run.
        paths: keys whose value is a path, a run included.
        noted: its jobs leave a note of how they ended in their directory.
        alone: runs the verb without Hydra's jobs, given the verb, its arguments in Hydra's grammar, and as typed;
            returns the exit status.
        configuration: the file in conf/ that holds its keys, without .yaml; None: the one of its name.
        options: options of its own, each with what it means; it takes them and --config-dir, but none of Hydra's.
    """

    name: str
    summary: str
    usage: str
    work: Callable[[Any], float | None] | None
    groups: tuple[str, ...] | None
    argument: str | None
    several: bool
    runs: tuple[str, ...]
    paths: tuple[str, ...]
    noted: bool
    alone: Callable[[Verb, list[str], list[str]], int] | None = None
    configuration: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    @property
    def config(self) -> str:
        """The name of its configuration."""
        return self.configuration or self.name

    def all_groups(self) -> list[str]:
        """Return the names of the config groups that it takes."""
        return catalogue.groups() if self.groups is None else list(self.groups)


# rl_runner.cli.verbs imports torch; help and completion do without.


def _train(cfg: Any) -> float:
    from rl_runner.cli import verbs

    return verbs.train(cfg)


def _eval(cfg: Any) -> None:
    from rl_runner.cli import verbs

    verbs.eval(cfg)


def _play(cfg: Any) -> None:
    from rl_runner.cli import verbs

    verbs.play(cfg)


def _export(cfg: Any) -> None:
    from rl_runner.cli import verbs

    verbs.export(cfg)


def _doctor(verb: Verb, args: list[str], typed: list[str]) -> int:
    from rl_runner.cli import doctor

    return doctor.run(verb, args, typed)


VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            name="train",
            summary="train an agent, or resume a run (resume=RUN)",
            usage="[group=option ...] [key=value ...]   several values and -m: one run for each",
            work=_train,
            groups=None,
            argument=None,
            several=False,
            runs=("resume", "init_from"),
            paths=("resume", "init_from"),
            noted=True,
        ),
        Verb(
            name="eval",
            summary="play episodes with a saved agent and report its score",
            usage="RUN [RUN ...] [key=value ...]   RUN: a run's directory, a checkpoint's, or latest",
            work=_eval,
            groups=(),
            argument="checkpoint",
            several=True,
            runs=("checkpoint",),
            paths=("checkpoint",),
            noted=False,
        ),
        Verb(
            name="play",
            summary="watch an agent, in a window or as a video",
            usage="RUN [key=value ...]   RUN: a run's directory, a checkpoint's, or latest; env=NAME: a random agent",
            work=_play,
            groups=("env",),
            argument="checkpoint",
            several=False,
            runs=("checkpoint",),
            paths=("checkpoint", "video"),
            noted=False,
        ),
        Verb(
            name="export",
            summary="write a saved agent for other programs: ONNX, weights, results and a model card",
            usage="RUN [key=value ...]   RUN: a run's directory, a checkpoint's, or latest",
            work=_export,
            groups=(),
            argument="checkpoint",
            several=False,
            runs=("checkpoint",),
            paths=("checkpoint", "out"),
            noted=False,
        ),
        Verb(
            name="doctor",
            summary="check a configuration before training, or look into a run",
            usage="[as for train]   or: RUN, a run's directory or latest",
            work=None,
            groups=None,
            argument="run",
            several=False,
            runs=("resume", "init_from"),
            paths=("resume", "init_from"),
            noted=False,
            alone=_doctor,
            configuration="train",
            options=(
                ("--seconds N", "measure the speed of training for N seconds (default 10); 0: no measurement"),
                ("--json", "print what was found for programs"),
            ),
        ),
    )
}
