"""The words of a command line, as Hydra wants them."""

from __future__ import annotations

import re
from pathlib import Path

from rl_runner import catalogue

BARE_ARGUMENT = {"train": None, "eval": "checkpoint", "play": "checkpoint"}
PATHS = {"train": ("resume", "init_from"), "eval": ("checkpoint",), "play": ("checkpoint", "video")}
OPTIONS: dict[str, tuple[str, ...] | None] = {  # of Hydra's, that every verb takes: None or what may follow
    "--multirun": None,
    "-m": None,
    "--cfg": ("job", "hydra", "all"),
    "-c": ("job", "hydra", "all"),
    "--resolve": None,
    "--package": ("PACKAGE",),
    "-p": ("PACKAGE",),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "-i": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--config-dir": ("DIRECTORY",),
    "-cd": ("DIRECTORY",),
}


class WrongLine(Exception):
    """A command line that cannot be meant; said before anything heavy is imported."""


def prepare(verb: str, args: list[str]) -> list[str]:
    """Return the arguments as Hydra wants them, its options first."""
    options, words = split(args)
    if {"--cfg", "-c"} & set(options) and "--resolve" not in options:
        options.append("--resolve")  # so that every default is seen, not where it comes from
    if {"--multirun", "-m"} & set(options) and any(word.startswith("resume=") for word in words):
        raise WrongLine("resume: one run at a time; leave out --multirun")
    several = bool({"--multirun", "-m"} & set(options))
    return options + _bare(verb, [_override(verb, word, several) for word in words])


def _bare(verb: str, words: list[str]) -> list[str]:
    """Join the runs that are named one after the other into one list; only `rlrun eval` takes several."""
    key = BARE_ARGUMENT[verb]
    named = [word for word in words if key and word.startswith(f"{key}=")]
    if len(named) < 2:
        return words
    values = [word.partition("=")[2] for word in named]
    if verb != "eval":
        raise WrongLine(f"{key}: {verb} takes one run at a time, got {' and '.join(values)}")
    return [f"{key}=[{','.join(values)}]", *(word for word in words if word not in named)]


def split(args: list[str]) -> tuple[list[str], list[str]]:
    """Return the options, each followed by its value, and all other words."""
    options: list[str] = []
    words: list[str] = []
    rest = iter(args)
    for arg in rest:
        if not arg.startswith("-"):
            words.append(arg)
            continue
        name, equals, value = arg.partition("=")
        if name not in OPTIONS:
            raise WrongLine(f"there is no option {name!r}; {catalogue.did_you_mean(name, list(OPTIONS))}")
        options.append(name)
        if choices := OPTIONS[name]:
            value = value if equals else next(rest, "")
            if value not in choices if len(choices) > 1 else not value:
                raise WrongLine(f"{name}: {' or '.join(choices)} is wanted, got {value!r}")
            options.append(value)
    return options, words


def _override(verb: str, word: str, several: bool = False) -> str:
    """Return one word in Hydra's grammar.

    Args:
        verb: the verb.
        word: as typed.
        several: values between commas are several (--multirun).
    """
    key, equals, value = word.partition("=")
    bare = BARE_ARGUMENT[verb]
    if bare and (not (equals or word.startswith(("+", "~"))) or Path(word).is_dir()):
        return f"{bare}={_paths(word, several)}"
    if not re.fullmatch(r"~.+|(\+\+?)?[^=+~\s]+=.*", word, re.DOTALL):
        group = next((g for g in catalogue.groups() if word in catalogue.options(g).split()), None)
        raise WrongLine(f"{word!r}: key=value is wanted" + (f"; did you mean {group}={word}?" if group else ""))
    if key in PATHS[verb]:
        return f"{key}={_paths(value, several)}"
    if key.startswith("env.kwargs."):  # an environment's own arguments: new keys, which need no + here
        return f"++{word}"
    if "/" in key and "." in key:  # network/torso._target_=...: the slash of a group, the dot of a value
        return f"{key.replace('/', '.')}={value}"
    return word


def _paths(value: str, several: bool) -> str:
    """Quote a path, or with `several` each of those between commas, unless a path has commas in its name."""
    if several and "," in value and value[0] not in "'\"[" and not Path(value).exists():
        return ",".join(map(quote, value.split(",")))
    return quote(value)


def quote(path: str) -> str:
    """Quote a path for Hydra's grammar, unless it is quoted already, null or empty."""
    if path in ("", "null") or path[0] in "'\"":
        return path
    escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + m[2].replace("'", "\\'"), path)
    return "'" + escaped.replace("${", "\\${") + "'"


def short_names(args: list[str]) -> list[str]:
    """Return the override that names the directories of a sweep after what differs between its jobs."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    _, words = split(args)
    same = [o.key_or_group for o in OverridesParser.create().parse_overrides(words) if not o.is_sweep_override()]
    return [f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(quote, same))}]"]
