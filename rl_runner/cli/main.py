"""`rlrun VERB ...`: the only reader of sys.argv. It takes the verb away and leaves the rest to Hydra."""

from __future__ import annotations

import functools
import importlib
import os
import sys

from rl_runner import catalogue, streams
from rl_runner.cli import evaluations, help, hints
from rl_runner.cli.completion import complete
from rl_runner.cli.failures import failure
from rl_runner.cli.plain import PLAIN, PlainVerb
from rl_runner.cli.table import VERBS, Verb
from rl_runner.cli.words import MULTIRUN, WrongLine, prepare
from rl_runner.types import UserError
from rl_runner.version import __version__

# Heavy imports (hydra, torch) are inside the functions that need them, so that help answers at once.


def main() -> None:
    """Run the command line. Exit with 0, 2 for bad input, 1 for a bug or a full disk, 128 + a signal's number."""
    # Threads that wait for each other should spin for a moment, then sleep. Sleeping at once makes steps on images a
    # quarter slower on two idle cores; spinning for long, which is GNU OpenMP's default, made an update take 550 ms
    # instead of 30 beside other work. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    streams.protect()
    try:
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        print("rlrun: stopped", file=sys.stderr)
        sys.exit(130)


def run(args: list[str]) -> int:
    """Run one command line, without the program's name; return the exit status."""
    if "--shell-completion" in args or "-sc" in args:
        return complete(args)
    if args[:1] == ["help"]:  # rlrun help train optimizer = rlrun train --help optimizer
        args = [*args[1:2], "--help", *args[2:]]
    if not args or args[0] in ("-h", "--help"):
        print(help.overview())
        return 0
    if {"-V", "--version"} & set(args) or args == ["version"]:
        print(f"rlrun {__version__}")
        return 0
    name, *rest = args
    if name in PLAIN:
        return _run_plain(PLAIN[name], rest)
    if name not in VERBS:
        return _complain(hints.unknown_verb(name, rest, list(PLAIN)))
    verb = VERBS[name]
    try:
        if asked := [i for i, word in enumerate(rest) if word in ("-h", "--help")]:
            print(help.verb_help(verb, rest[asked[0] + 1 :]))
            return 0
        prepared = prepare(verb, rest)
    except WrongLine as e:
        return _complain(str(e))
    # Like `python -m`, so that a module in the current directory can be named as a network or an environment.
    sys.path.append(os.getcwd())
    if verb.alone:
        return verb.alone(verb, prepared, rest)
    return _run_verb(verb, prepared, typed=rest)


def _run_verb(verb: Verb, args: list[str], typed: list[str]) -> int:
    import hydra
    from hydra.core.plugins import Plugins

    from rl_runner.cli import composing
    from rl_runner.launch import launchers, sweep, tuned
    from rl_runner.launch.task import Task

    if launchers.PLUGINS not in sys.path:
        sys.path.append(launchers.PLUGINS)
        # The processes of a launcher, wherever it starts them, unpickle what Hydra knows of it.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), launchers.PLUGINS]))
        # Hydra looks there once a process; it may have done so before, for a program that composed.
        ours = importlib.import_module("hydra_plugins.rlrun")
        for plugin in (ours.RlrunProcesses, ours.RlrunOptuna):
            Plugins.instance().register(plugin)
    assert verb.work is not None
    task = Task(verb.work, functools.partial(failure, verb, args), noted=verb.noted)

    def start() -> None:
        settled = composing.settle(verb, args, typed)
        names = composing.short_names(verb, settled) if MULTIRUN & set(args) else []
        sys.argv = ["rlrun", *settled, *names]
        with evaluations.shown_at_the_end(), tuned.found():
            hydra.main(version_base="1.3", config_path=str(catalogue.conf_dir()), config_name=verb.config)(task)()

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands exceptions on instead of printing them and exiting
    return sweep.run(start, task, multirun=bool(MULTIRUN & set(args)))


def _run_plain(verb: PlainVerb, words: list[str]) -> int:
    if {"-h", "--help"} & set(words):
        print(verb.help())
        return 0
    try:
        verb.run(words)
    except UserError as e:
        return _complain(str(e))
    return 0


def _complain(line: str) -> int:
    print(f"rlrun: {line}", file=sys.stderr)
    return 2
