"""The keys in conf/, with their values and comments, read from the YAML files themselves: quick, and without Hydra."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

from rl_runner import catalogue
from rl_runner.cli.table import Verb


class Key(NamedTuple):
    """One key of a configuration file.

    Attributes:
        name: its dotted name, such as optimizer.lr.
        value: its value as written; empty for a node of further keys.
        comment: the comment behind it.
    """

    name: str
    value: str
    comment: str


def of_verb(verb: Verb) -> list[Key]:
    """Return the keys of the verb's file in conf/, without Hydra's own."""
    return _parse(catalogue.conf_dir() / f"{verb.config}.yaml", "")[1]


def of_option(group: str, option: str) -> list[Key]:
    """Return all keys that an option of a group sets, those of the options that it extends included."""
    return list(_merged(catalogue.conf_dir() / group, option, group.replace("/", ".")).values())


def of_group(group: str) -> dict[str, dict[str, Key]]:
    """Return the keys of a group, each with the options that have it: {name: {option: key}}.

    To the agents belong also keys outside all groups that are not every agent's, such as batch_size.
    """
    package = group.replace("/", ".")
    nested = tuple(f"{other.replace('/', '.')}." for other in catalogue.groups() if other.startswith(f"{group}/"))
    found: dict[str, dict[str, Key]] = {}
    for option in catalogue.options(group):
        for key in of_option(group, option):
            outside = group == "agent" and key.name.partition(".")[0] not in _places()
            if (key.name.startswith(f"{package}.") or outside) and not key.name.startswith(nested):
                found.setdefault(key.name, {})[option] = key
    return found


@functools.cache
def _places() -> set[str]:
    """Return the first parts of keys that belong to a group or to every run."""
    every_run = {key.name.partition(".")[0] for key in _parse(catalogue.conf_dir() / "train.yaml", "")[1]}
    return every_run | {group.partition("/")[0] for group in catalogue.groups()}


def described(group: str, option: str) -> str:
    """Return what the first lines of an option's file say of it."""
    lines = (catalogue.conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8").splitlines()
    texts = [line[1:].strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    return " ".join(text for text in texts if not text.startswith("@package"))


def names(verb: Verb) -> list[str]:
    """Return every name that can be set: keys, the nodes above them, and groups."""
    leaves = [key.name for key in of_verb(verb)]
    for group in verb.all_groups():
        leaves += of_group(group)
    above = {name.rpartition(".")[0] for name in leaves} - {""}
    return sorted({*(name for name in leaves if "._" not in name), *above, *verb.all_groups()})


def _merged(directory: Path, option: str, package: str) -> dict[str, Key]:
    """Return an option's keys by name, laid over those of the options of its group that it extends."""
    file = directory / f"{option}.yaml"
    if not file.is_file():
        return {}
    bases, own = _parse(file, package)
    keys: dict[str, Key] = {}
    for layer in [*(_merged(directory, base, package).values() for base in bases), own]:
        for key in layer:
            comment = key.comment or (keys[key.name].comment if key.name in keys else "")
            keys[key.name] = key._replace(comment=comment)
    return keys


@functools.cache
def _parse(file: Path, package: str) -> tuple[list[str], list[Key]]:
    """Return the options of its own group that a file extends, and its keys without Hydra's own."""
    text = file.read_text(encoding="utf-8")
    declared = re.match(r"#\s*@package\s+(\S+)", text)
    package = {"_global_": "", "_group_": package}.get(declared[1], declared[1]) if declared else package
    root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # the C one where PyYAML has it
    if not isinstance(root, yaml.MappingNode):
        return [], []
    nodes = {key.value: value for key, value in root.value}
    defaults = [item.value for item in nodes["defaults"].value] if "defaults" in nodes else []
    bases = [item for item in defaults if isinstance(item, str) and item != "_self_"]
    root.value = [(key, value) for key, value in root.value if key.value not in ("defaults", "hydra")]
    return bases, list(_walk(root, f"{package}." if package else "", text.splitlines()))


def _walk(node: Any, prefix: str, lines: list[str]) -> Iterator[Key]:
    """Yield the keys of a YAML mapping and of those in it."""
    for key, value in node.value:
        nested = isinstance(value, yaml.MappingNode) and value.value and not value.flow_style
        end = key.end_mark if nested else value.end_mark
        rest = lines[end.line][end.column :] if end.line < len(lines) else ""
        comment = re.match(r":?\s+#\s*(.*)", rest)
        name, says = f"{prefix}{key.value}", comment[1] if comment else ""
        if not nested:
            yield Key(name, _written(value, lines), says)
            continue
        if says:
            yield Key(name, "", says)
        yield from _walk(value, f"{name}.", lines)


def _written(value: yaml.Node, lines: list[str]) -> str:
    """Return a value as it stands in the file, in one line."""
    start, end = value.start_mark, value.end_mark
    between = lines[start.line : end.line + 1] if end.line < len(lines) else lines[start.line :]
    if end.line < len(lines):
        between[-1] = between[-1][: end.column]
    between[0] = between[0][start.column :]
    return " ".join(" ".join(between).split())
