"""Translate the words of a command line into Hydra's grammar."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

from rl_runner.cli import hints
from rl_runner.cli.table import Verb

CFG = ("job", "hydra", "all")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
OPTIONS: dict[str, tuple[str, ...] | None] = {  # of Hydra's, that every verb takes: None or what may follow
    "--multirun": None,
    "-m": None,
    "--cfg": CFG,
    "-c": CFG,
    "--resolve": None,
    "--package": ("PACKAGE",),
    "-p": ("PACKAGE",),
    "--info": INFO,
    "-i": INFO,
    "--config-dir": ("DIRECTORY",),
    "-cd": ("DIRECTORY",),
}
CONFIG_DIR = ("--config-dir", "-cd")
DIRECTORIES = ("hydra.run.dir", "hydra.sweep.dir")
MULTIRUN = {"--multirun", "-m"}
SHOWING = {"--cfg", "-c", "--info", "-i"}  # nothing is run


def options_of(verb: Verb) -> dict[str, tuple[str, ...] | None]:
    """Return the options that a verb takes: None or what may follow."""
    if not verb.options:
        return OPTIONS
    own = dict(option.partition(" ")[::2] for option, _ in verb.options)
    shared = {name: OPTIONS[name] for name in CONFIG_DIR}
    return {**{name: (value,) if value else None for name, value in own.items()}, **shared}


class WrongLine(Exception):
    """Invalid command line; raised before anything heavy is imported."""


def prepare(verb: Verb, args: list[str]) -> list[str]:
    """Return the arguments in Hydra's grammar, its options first.

    Raises:
        WrongLine: an unknown option, or a word that sets nothing.
    """
    options, words = split(verb, args)
    following = dict(itertools.pairwise(options))
    shown = following.get("--cfg", following.get("-c"))
    if shown in ("job", "all") and "--resolve" not in options:  # "hydra" refers to keys that are not shown with it
        options.append("--resolve")  # so that every default is seen, not where it comes from
    several = bool(MULTIRUN & set(options))
    if several and SHOWING & set(options):
        raise WrongLine(
            f"{min(SHOWING & set(options))}: shows one configuration; leave out --multirun and further values"
        )
    if several and any(word.startswith("resume=") for word in words):
        raise WrongLine("resume: one run at a time; leave out --multirun")
    return options + _bare(verb, [_override(verb, word, several) for word in words])


def split(verb: Verb, args: list[str]) -> tuple[list[str], list[str]]:
    """Return the options, each followed by its value, and all other words."""
    options: list[str] = []
    words: list[str] = []
    rest, known = list(args), options_of(verb)
    while rest:
        arg = rest.pop(0)
        if not arg.startswith("-"):
            words.append(arg)
            continue
        name, equals, value = arg.partition("=")
        if name not in known:
            raise WrongLine(hints.unknown_option(verb, arg, rest, [*known, "--help", "--version"]))
        options.append(name)
        if choices := known[name]:
            value = value if equals else rest.pop(0) if rest else ""
            if value not in choices if len(choices) > 1 else not value:
                raise WrongLine(f"{name}: must be {' or '.join(choices)}, got {value!r}")
            options.append(value)
    return options, words


def config_dir(options: list[str]) -> str | None:
    """Return the directory of the user's own configuration, if one is given."""
    named = [value for name, value in itertools.pairwise(options) if name in CONFIG_DIR]
    return named[-1] if named else None


def _bare(verb: Verb, words: list[str]) -> list[str]:
    """Join the runs that are named one after the other into one list."""
    key = verb.argument
    named = [word for word in words if key and word.startswith(f"{key}=")]
    if len(named) < 2:
        return words
    values = [word.partition("=")[2] for word in named]
    if not verb.several:
        raise WrongLine(f"{key}: {verb.name} takes one run at a time, got {' and '.join(values)}")
    return [f"{key}=[{','.join(values)}]", *(word for word in words if word not in named)]


def _override(verb: Verb, word: str, several: bool) -> str:
    """Return one word in Hydra's grammar.

    Args:
        verb: the verb.
        word: the word as typed.
        several: values between commas are several (--multirun).
    """
    key, equals, value = word.partition("=")
    if verb.argument and (not (equals or word.startswith(("+", "~"))) or _runs(word, several)):
        if not os.path.exists(word) and (wrong := hints.no_run(verb, word)):
            raise WrongLine(wrong)
        return f"{verb.argument}={_paths(word, several)}"
    if not re.fullmatch(r"~.+|(\+\+?)?[^=+~\s]+=.*", word, re.DOTALL):
        raise WrongLine(hints.no_override(verb, word))
    if key in DIRECTORIES and value in ("", "''", '""'):
        raise WrongLine(f"{key}: must be a directory, got ''; the current directory is {key}=.")
    if key in verb.paths:
        return f"{key}={_paths(value, several)}"
    if re.fullmatch(r"[\w.]+", key):
        listed = several and not re.search(r"[\[({'\"]", value)
        word = f"{key}={','.join(map(_whole, value.split(',') if listed else [value]))}"
    if re.match(r"env\.kwargs\.|env\.kwargs=\s*\{", word):  # an environment's own arguments: new keys, without a "+"
        return f"++{word}"
    if "/" in key and "." in key:  # network/torso._target_=...: the slash of a group, the dot of a value
        return f"{key.replace('/', '.')}={value}"
    return word


def _whole(value: str) -> str:
    """Return 1e6 as 1000000, because it is a float in YAML; other values as they are."""
    if re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d+", value) and float(value).is_integer():
        return str(int(float(value)))
    return value


def _runs(word: str, several: bool) -> bool:
    """Return whether a word names runs by their directories: those of a sweep's jobs have "=" in their names."""
    parts = word.split(",") if several and not os.path.isdir(word) else [word]
    return all(part == "latest" or os.path.isdir(part) for part in parts)


def _paths(value: str, several: bool) -> str:
    """Quote a path, or with `several` each of those between commas, unless a path has commas in its name."""
    if several and "," in value and value[0] not in "'\"[" and not os.path.exists(value):
        return ",".join(map(quote, value.split(",")))
    return quote(value)


def search_path(own: str) -> str:
    """Return the override that adds a configuration directory of the user's own."""
    return f"hydra.searchpath=[{quote(f'file://{Path(own).absolute()}')}]"


def quote(path: str) -> str:
    """Quote a path for Hydra's grammar, unless it is quoted already, null or empty."""
    if path in ("", "null") or path[0] in "'\"":
        return path
    escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + m[2].replace("'", "\\'"), path)
    return "'" + escaped.replace("${", "\\${") + "'"
