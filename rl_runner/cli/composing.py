"""Compose the configuration of a command line before anything is run, to check and complete the line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rl_runner import catalogue
from rl_runner.cli import hints, keys, words
from rl_runner.cli.table import Verb
from rl_runner.launch import tuned
from rl_runner.launch.own_classes import parameters
from rl_runner.types import UserError

JOB = "task"  # Hydra's name of the job that main.py starts: its module, rl_runner.launch.task
OWN = ("recipe", "agent._target_=", "hydra.searchpath=")  # with these, code and files may read keys of their own
CLOSED = ("eval", "log", "stop", "checkpoint")  # keys that rlrun reads itself, and hands to no class
UNKNOWN = re.compile(r"Could not override '([^']+)'")  # how Hydra says that there is no such key


def settle(verb: Verb, args: list[str], typed: list[str]) -> list[str]:
    """Return the arguments to give to Hydra.

    A key that the class named beside it takes as an argument gets the "+" that Hydra wants before a new key. Hydra
    reports whatever else is wrong.

    Args:
        verb: the verb.
        args: the arguments in Hydra's grammar, its options first.
        typed: the same as they were typed.

    Raises:
        UserError: the configuration asks for a sweep, and -m does not; there is no such --config-dir, or a file in it
            that Hydra would not find; a key is added that nothing reads.
    """
    options, overrides = words.split(verb, args)
    if own := words.config_dir(options):
        _check_directory(own)
    else:
        _refuse_unread(verb, overrides)
    if "hydra.mode=MULTIRUN" in overrides and not words.MULTIRUN & set(options):
        raise UserError(_needs_m(verb, typed))
    for _ in range(len(overrides) + 1):  # each time one more word gets its "+"
        try:
            cfg = _composed(verb, options, overrides)
        except (HydraException, OmegaConfBaseException) as e:
            new = UNKNOWN.search(str(e))
            taken = new and [word for word in overrides if word.startswith(f"{new[1]}=")]
            if not new or not taken:
                return args
            if not _of_saved(verb, overrides, new[1]) and not _takes(verb, options, overrides, new[1]):
                return args
            overrides = [f"+{word}" if word in taken else word for word in overrides]
            continue
        if (
            cfg.hydra.mode == RunMode.MULTIRUN
            and not verb.alone
            and not {*words.MULTIRUN, *words.SHOWING} & set(options)
        ):
            raise UserError(_needs_m(verb, typed))
        break
    return [*options, *overrides]


def _needs_m(verb: Verb, typed: list[str]) -> str:
    command = shlex.join(["rlrun", verb.name, "-m", *(word for word in typed if word != "hydra.mode=MULTIRUN")])
    return f"this configuration is a sweep (hydra.mode=MULTIRUN), which needs -m: {command}"


def _check_directory(own: str) -> None:
    """Check that the user's configuration directory exists, and has no file of a name of rlrun's, which comes first."""
    if not Path(own).is_dir():
        raise UserError(f"--config-dir: {own}: no such directory")
    for file in sorted(Path(own).rglob("*.yaml")):
        if (catalogue.conf_dir() / file.relative_to(own)).is_file():
            group, _, rest = str(file.relative_to(own).with_name("NAME")).partition("/")
            chosen = f", and choose it by {group}={rest}" if rest else ""
            raise UserError(
                f"--config-dir: {file}: rlrun has a file of that name, which would be taken; rename yours{chosen}"
            )


def _refuse_unread(verb: Verb, overrides: list[str]) -> None:
    """Refuse a key that is added with a "+" where no class takes it: only code of the user's own could read it."""
    added = [word for word in overrides if word.startswith("+")]
    if not added or any(word.lstrip("+").startswith(OWN) for word in overrides):
        return
    names = keys.names(verb)
    known = {re.split(r"[./]", name)[0] for name in names} | {"hydra"}
    for word in added:
        key, _, value = word.lstrip("+").partition("=")
        first, *below = re.split(r"[./@]", key)
        read_here = first in CLOSED or (first == "replay" and len(below) == 1)
        if first not in known or (below and read_here and key not in names):
            raise UserError(hints.unknown_key(verb, key, value, names))


def short_names(verb: Verb, args: list[str]) -> list[str]:
    """Return the override that names the directories of a sweep after what differs between its jobs."""
    _, overrides = words.split(verb, args)
    same = [o.key_or_group for o in OverridesParser.create().parse_overrides(overrides) if not o.is_sweep_override()]
    return [f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(words.quote, same))}]"]


def known_keys(verb: Verb, args: list[str]) -> list[str]:
    """Return what can be set: groups, and the keys of the configuration that the chosen groups make."""
    options, overrides = words.split(verb, args)
    groups = verb.all_groups()
    chosen = [word for word in overrides if word.partition("=")[0] in groups]
    try:
        cfg = _composed(verb, options, chosen)
    except (HydraException, OmegaConfBaseException):  # such as an option that there is not
        cfg = _composed(verb, [], [])
    node = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False))
    leaves = list(_names({key: value for key, value in node.items() if key != "hydra"}))
    leaves += [f"{key}.{name}" for key, target in _typed_targets(overrides) for name in parameters(target) or ()]
    return sorted({*leaves, *groups, *(leaf.rpartition(".")[0] for leaf in leaves)} - {""})


def _composed(verb: Verb, options: list[str], overrides: list[str]) -> Any:
    """Return the configuration; of several values of a sweep, the first."""
    several = words.MULTIRUN & set(options)
    parsed = OverridesParser.create().parse_overrides(overrides)
    single = [word for override in parsed for word in _first(override)] if several else overrides
    if own := words.config_dir(options):
        single = [words.search_path(own), *single]
    with tuned.found(), initialize_config_dir(str(catalogue.conf_dir()), job_name=JOB, version_base="1.3"):
        return compose(verb.config, single, return_hydra_config=True)


def _first(override: Override) -> list[str]:
    """Return an override with the first of its values."""
    key, _, value = (override.input_line or "").partition("=")
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:  # of a group's options, which its default is one of
        return []
    if override.is_discrete_sweep():
        value = next(iter(override.sweep_string_iterator()))
    elif override.is_sweep_override():
        value = "null"
    return [f"{key}={value}" if value else key]


def _of_saved(verb: Verb, overrides: list[str], key: str) -> bool:
    """Return whether a key can be one of a run that is resumed, whose agent may have other parts than the default one.

    Whether it may change is for the resume to say.
    """
    named = [word.partition("=")[2].strip("'") for word in overrides if word.startswith("resume=")]
    return named not in ([], ["auto"]) and key in keys.names(verb)


def _takes(verb: Verb, options: list[str], overrides: list[str], key: str) -> bool:
    """Return whether the class that the configuration names beside a key takes that key as an argument."""
    parent, _, name = key.rpartition(".")
    beside = [
        word for word in overrides if word.startswith(f"{parent}.") and not word.startswith(f"{parent}._target_=")
    ]
    try:
        cfg = _composed(verb, options, [word for word in overrides if word not in beside])
        target = OmegaConf.select(cfg, f"{parent}._target_") if parent else None
    except (HydraException, OmegaConfBaseException):  # Hydra will say it
        return False
    taken = parameters(target) or {}
    return name in taken or any(p.kind is p.VAR_KEYWORD for p in taken.values())


def _typed_targets(overrides: list[str]) -> list[tuple[str, str]]:
    """Return the groups for which the command line names a class or function, each with that."""
    named = [word.lstrip("+").partition("=")[::2] for word in overrides]
    return [(key.removesuffix("._target_"), value) for key, value in named if key.endswith("._target_")]


def _names(node: Any, prefix: str = "") -> Any:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _names(value, f"{prefix}{key}.")
        elif not str(key).startswith("_"):
            yield f"{prefix}{key}"
