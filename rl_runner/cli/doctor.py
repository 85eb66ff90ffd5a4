"""`rlrun doctor`: check a configuration before training, or look into a run. Hydra composes, but starts nothing."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING

from rl_runner.cli import composing, words
from rl_runner.cli.failures import failure
from rl_runner.cli.table import Verb
from rl_runner.types import UserError

if TYPE_CHECKING:
    from rl_runner.commands.doctor import Report

SECONDS = 10.0


def run(verb: Verb, args: list[str], typed: list[str]) -> int:
    """Run the verb; return the exit status: 2 where `rlrun train` would refuse.

    Args:
        verb: this one.
        args: the arguments in Hydra's grammar, its options first.
        typed: the same as they were typed.
    """
    from rl_runner.commands.doctor import show

    options, overrides = words.split(verb, args)
    try:
        return show(_report(verb, options, overrides, typed), as_json="--json" in options)
    except Exception as e:
        line, trace, code = failure(verb, args, e)
        if "--json" in options:
            print(json.dumps({"refused": code == 2, "error": line}, indent=1))
        print(f"rlrun: {line}\n{trace or ''}".rstrip(), file=sys.stderr)
        return code


def _report(verb: Verb, options: list[str], overrides: list[str], typed: list[str]) -> Report:
    from rl_runner.build import doctor
    from rl_runner.launch.composed import compose

    seconds = _seconds(options)
    named = [word for word in overrides if word.startswith(f"{verb.argument}=")]
    if named:
        return doctor.of_run(_run(named[0]), _trusted([word for word in overrides if word not in named]))
    overrides = words.split(verb, composing.settle(verb, [*options, *overrides], typed))[1]
    if own := words.config_dir(options):
        overrides = [words.search_path(own), *overrides]
    cfg, directory = compose(overrides)
    return doctor.of_configuration(cfg, directory, overrides, seconds)


def _seconds(options: list[str]) -> float:
    """Return how long to measure."""
    text = options[options.index("--seconds") + 1] if "--seconds" in options else str(SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"--seconds: must be a number, 0 or more, got {text!r}")
    return seconds


def _run(word: str) -> str:
    """Return the run's directory, without what Hydra's grammar adds."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return str(OverridesParser.create().parse_override(word).value())


def _trusted(overrides: list[str]) -> list[str]:
    """Return the packages of trust=[...], the only word that goes with a run."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    found: list[str] = []
    for word in overrides:
        if not word.startswith("trust="):
            raise UserError(f"{word}: a run has its own configuration; only trust=[...] goes with it")
        value = OverridesParser.create().parse_override(word).value()
        found += map(str, value if isinstance(value, list) else [value])
    return found
