"""`rlrun VERB ...`: the only reader of sys.argv. Hydra does the rest, after the verb was taken away."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rl_runner import catalogue, launch, streams
from rl_runner.cli import evaluations, help
from rl_runner.cli.completion import complete
from rl_runner.cli.failures import failure
from rl_runner.cli.words import WrongLine, prepare, short_names
from rl_runner.version import __version__

# Heavy imports (hydra, torch) are inside the functions that need them, so that help answers at once.


def main() -> None:
    """Run the command line. Exit with 0, 2 for bad input, 1 for a bug or a full disk, 128 + a signal's number."""
    # Threads that wait for each other should spin for a moment, then sleep. Sleeping at once makes steps on images a
    # quarter slower on two idle cores; spinning for long, which is GNU OpenMP's default, made an update take 550 ms
    # instead of 30 beside other work. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    streams.protect()
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command line, without the program's name; give the exit status."""
    if "--shell-completion" in args or "-sc" in args:
        return complete(args)
    if not args or args[0] in ("-h", "--help"):
        print(help.overview())
        return 0
    if args[0] in ("-V", "--version"):
        print(f"rlrun {__version__}")
        return 0
    verb, *rest = args
    if verb not in help.VERBS:
        return _complain(f"unknown verb {verb!r}; {catalogue.did_you_mean(verb, list(help.VERBS))}")
    if "-h" in rest or "--help" in rest:
        print(help.verb_help(verb))
        return 0
    try:
        prepared = prepare(verb, rest)
    except WrongLine as e:
        return _complain(str(e))
    # Like `python -m`, so that a module in the current directory can be named as a network or an environment.
    sys.path.append(os.getcwd())
    return _run_verb(verb, prepared)


def _run_verb(verb: str, args: list[str]) -> int:
    import hydra

    from rl_runner.launch import sweep
    from rl_runner.launch.task import Task

    plugins = str(Path(launch.__file__).parent / "plugins")  # Hydra finds hydra/launcher=processes there
    if plugins not in sys.path:
        sys.path.append(plugins)
        # The processes of a launcher, wherever it starts them, unpickle what Hydra knows of it.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), plugins]))
    task = Task(functools.partial(_work, verb), functools.partial(failure, verb, args), noted=verb == "train")

    def start() -> None:
        sys.argv = ["rlrun", *args, *short_names(args)]
        with evaluations.shown_at_the_end():
            hydra.main(version_base="1.3", config_path=str(catalogue.conf_dir()), config_name=verb)(task)()

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands exceptions on instead of printing them and exiting
    return sweep.run(start, task, multirun=bool({"-m", "--multirun"} & set(args)))


def _work(verb: str, cfg: Any) -> float | None:
    """Run a job of a verb. A function of this module, because launchers send it to other processes."""
    from rl_runner.cli import verbs

    work: Callable[[Any], float | None] = {"train": verbs.train, "eval": verbs.eval, "play": verbs.play}[verb]
    return work(cfg)


def _complain(line: str) -> int:
    print(f"rlrun: {line}", file=sys.stderr)
    return 2
