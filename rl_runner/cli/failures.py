"""Turn errors into one line that names the key and the fix."""

from __future__ import annotations

import errno
import re
import shlex
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rl_runner import catalogue
from rl_runner.cli import hints, keys
from rl_runner.cli.table import Verb
from rl_runner.cli.words import DIRECTORIES

if TYPE_CHECKING:
    from rl_runner.run.notes import Failure

EXAMPLES = {"env.id": ", such as env.id=Acrobot-v1", "env.game": ", such as env.game=breakout"}
PLUGINS = {  # that Hydra's launchers and sweepers come with
    "hydra/launcher=joblib": "'rlrun[joblib]'",
    "hydra/launcher=submitit_local": "'rlrun[slurm]'",
    "hydra/launcher=submitit_slurm": "'rlrun[slurm]'",
    "hydra/launcher=ray": "'rlrun[ray]'",
    "hydra/launcher=ray_aws": "'rlrun[ray]'",
    "hydra/sweeper=nevergrad": "hydra-nevergrad-sweeper",
    "hydra/sweeper=ax": "hydra-ax-sweeper",
}


def failure(verb: Verb, args: list[str], e: Exception) -> Failure:
    """Return an exception as one line and, for a bug, its traceback.

    Its frames are cleared, so that the memory of the job is released.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from rl_runner.run.notes import Failure
    from rl_runner.types import UserError

    line, trace = explain(verb, args, e), "".join(traceback.format_exception(e))
    line += _set_by(args, line) if isinstance(e, UserError) else ""
    traceback.clear_frames(e.__traceback__)
    if "torch" in sys.modules and isinstance(e, sys.modules["torch"].OutOfMemoryError):
        needed = ". ".join(line.split(". ")[1:3])  # "Tried to allocate ...", "GPU 0 has ...", then advice on allocators
        remedy = "use a smaller batch_size or network, or replay.frames=host"
        return Failure(f"device: the GPU's memory is full: {needed}; {remedy}", exit_code=2)
    if isinstance(e, (UserError, HydraException, OmegaConfBaseException)):
        return Failure(line, getattr(e, "trace", None), exit_code=getattr(e, "exit_code", 2))
    return Failure(f"{type(e).__name__}: {line}", trace, exit_code=1)


def _set_by(args: list[str], line: str) -> str:
    """Return what the user chose that set the key that a line is about, if the user did not type the key itself."""
    key, words = line.partition(":")[0], dict(word.lstrip("+").partition("=")[::2] for word in args)
    if key in words:
        return ""
    for group in ("experiment", "tuned"):
        had = [value.name for value in keys.of_option(group, words[group])] if group in words else []
        if key in had:
            not_an_argument = "takes no such argument" in line and not key.startswith("agent.")
            had = [name for name in had if f"~{name}" not in args]
            without = f"; add {' '.join(_not_taken(had, key, line))}" if not_an_argument else ""
            return f"; {group}={words[group]} sets it{without}"
    return ""


def _not_taken(had: list[str], key: str, line: str) -> Iterator[str]:
    """Yield a word ~NAME for each of these keys that is in the same group as `key` and that the group's class lacks.

    The class takes what the line says after "it takes".
    """
    part, taken = key.rpartition(".")[0], line.rpartition("it takes ")[2].split(", ")
    for name in had:
        if name.rpartition(".")[0] == part and name.rpartition(".")[2] not in taken:
            yield f"'~{name}'"


def explain(verb: Verb, args: list[str], e: Exception) -> str:
    """Turn a Hydra error into one line that names the key and the fix."""
    from hydra.errors import MissingConfigException, OverrideParseException

    from rl_runner.types import one_line

    text = re.sub(r" See https://hydra\.cc.*", "", one_line(e))
    if isinstance(e, OSError) and e.filename:
        return _no_file(args, str(e.filename), e)
    if isinstance(e, OSError) and e.errno == errno.ENOSPC:  # met while writing, which does not name the file
        return f"{e.strerror}: free some, or choose another hydra.run.dir or hydra.sweep.dir"
    if isinstance(e, MissingConfigException) and e.missing_cfg_file:
        group, _, option = e.missing_cfg_file.rpartition("/")
        if package := PLUGINS.get(f"{group}={option}"):
            option = option.replace("submitit_slurm", "slurm")  # which includes it
            return f"{group}={option} is not installed: pip install {package}"
        plugins = {name.removeprefix(f"{group}="): pip for name, pip in PLUGINS.items() if name.startswith(f"{group}=")}
        return hints.unknown_choice(group, option, list(e.options or catalogue.options(group)), plugins)
    if isinstance(e, OverrideParseException):
        return _unreadable(e.override, text)
    if several := re.search(r"Ambiguous value for argument '([^=]+)=(.*?)' 1\.", text):
        if re.fullmatch(r"\d{1,3}(,\d{3})+", several[2]):
            return (
                f"{several[1]}: {several[2]} is a list of values; the number is written {several[2].replace(',', '_')}"
            )
        return f"{several[1]}: one run for each of {several[2]} needs -m; a list is written [{several[2]}]"
    if swept := re.search(r"Sweep parameters '(.*?)' requires --multirun", text):
        return f"{swept[1]}: several runs need -m"
    if other := re.search(r"Error merging override ([^=]+)=(.*)", text):
        return f"{other[1].lstrip('+')}: cannot be {other[2]}; rlrun {verb.name} --cfg job shows its value"
    if nowhere := re.search(r"Interpolation key '([^']+)' not found", text):
        without = f"~{nowhere[1]}" in (word.partition("=")[0] for word in args)
        why = f"a value is needed; leave ~{nowhere[1]} out" if without else "there is no such key to refer to"
        return f"{nowhere[1]}: {why}"
    if missing := re.search(r"Missing mandatory value: (\S+)(?: full_key: (\S+))?", text):
        whole = missing[2] or ""  # that of the key, or of another one that refers to it
        name = whole if whole.endswith(f".{missing[1]}") else missing[1]
        return f"{name}: a value is needed{EXAMPLES.get(name, '')}"
    if absent := re.search(r"Could not override '([^']+)'\. No match in the defaults list", text):
        return _no_group(verb, args, absent[1])
    if key := re.search(r"Could not override '([^']+)'", text):
        return _no_key(verb, args, key[1])
    return text


def _no_file(args: list[str], file: str, e: OSError) -> str:
    """Return why a file cannot be read or written, or a directory made: that of a run, or one above it, has a key."""
    for key, _, directory in (word.partition("=") for word in args):
        if key in DIRECTORIES and Path(directory.strip("'\"")).absolute().is_relative_to(Path(file).absolute()):
            return f"{key}: no directory can be made at {file}: {e.strerror}"
    return f"{file}: {e.strerror}"


def _unreadable(word: str, parser_says: str) -> str:
    """Return why a word of the command line is no override, and how to write it."""
    key, _, value = word.partition("=")
    if not re.search(r"LexerNoViableAlt|no viable alternative|mismatched input|extraneous input", parser_says):
        return f"{word!r} cannot be read: {parser_says}"
    if any(value.count(left) != value.count(right) for left, right in ("()", "[]", "{}")) or value.count('"') % 2:
        return f"{key}: {value!r} cannot be read: a bracket or a quote is open; a list is written [a,b]"
    quoted = value.replace('"', '\\"')
    return f"{key}: {value!r} cannot be read as it is; in quotes it is text: " + shlex.quote(f'{key}="{quoted}"')


def _no_group(verb: Verb, args: list[str], group: str) -> str:
    if verb.groups is None:
        return f"{group}: the chosen agent has none; leave it out"
    return _no_key(verb, args, group)


def _no_key(verb: Verb, args: list[str], key: str) -> str:
    from rl_runner.cli import composing

    value = next((word.partition("=")[2] for word in args if word.startswith(f"{key}=")), "")
    return hints.unknown_key(verb, key, value, composing.known_keys(verb, args))
