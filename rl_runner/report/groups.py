"""Groups of runs: what differs between their configurations, in which environment, and under which protocol."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from rl_runner.report import results
from rl_runner.report.protocol import is_protocol, tells_apart
from rl_runner.report.runs import Run
from rl_runner.run.files import NOTE
from rl_runner.types import UserError

FIRST: tuple[str, ...] = (
    "agent.name",
    "network.head._target_",
    "value._target_",
    "network.torso._target_",
)  # to name a group by
ABSENT = "-"


class Group(NamedTuple):
    """The runs of one configuration in one environment."""

    label: str
    environment: str
    runs: list[Run]


class Grouping(NamedTuple):
    """The groups, and what a reader must know of how they were made."""

    groups: list[Group]
    keys: list[str]  # that name the groups
    along: list[str]  # further keys that differ between groups: they go along with those
    within: list[str]  # keys that differ inside a group, so that it mixes them


def environment(config: dict[str, Any]) -> str:
    """Return the environment of a run: a game, or an id with its version."""
    return str(config.get("env.game") or config.get("env.id") or config.get("env.name") or "unknown")


def value(run: Run, key: str) -> str:
    """Return a value as text."""
    found = run.config.get(key, ABSENT)
    return found if isinstance(found, str) else json.dumps(found, default=str)


def without_origins(runs: Sequence[Run]) -> list[Run]:
    """Return runs whose `init_from` only says whether there is one."""
    return [run._replace(config={**run.config, "init_from": run.config.get("init_from") is not None}) for run in runs]


def differing(runs: Sequence[Run], by: Sequence[str] = ()) -> list[str]:
    """Return the keys whose values differ between runs of the same environment, without what is ignored.

    Args:
        runs: of one environment or several.
        by: keys, or groups of keys, that are not ignored.
    """
    keys = dict.fromkeys(key for run in runs for key in run.config)
    found = []
    for key in keys:
        if not tells_apart(key) and not any(_covers(name, key) for name in by):
            continue
        in_one: dict[str, str] = {}
        if any(in_one.setdefault(environment(run.config), value(run, key)) != value(run, key) for run in runs):
            found.append(key)
    return found


def group(runs: Sequence[Run], by: Sequence[str] = ()) -> Grouping:
    """Group runs by what differs between their configurations.

    Keys that differ together are named once: only those are kept that tell more runs apart, best-known ones first. Runs
    of one sweep are named by what was swept, if that makes the same groups.

    Args:
        runs: of one environment or several.
        by: keys, or groups of keys such as `network`; none: all that differ.

    Raises:
        UserError: there is no such key, or a group would mix protocols.
    """
    if not any(_covers(name, "init_from") for name in by):  # otherwise it only counts whether there is one
        runs = without_origins(runs)
    differ = differing(runs, by)
    chosen = [key for key in differ if not by or any(_covers(name, key) for name in by)]
    _check_by(runs, by)
    keys = telling(runs, chosen)
    parts = _partition(runs, keys)
    within = [key for key in differ if any(len({value(run, key) for run in part}) > 1 for part in parts)]
    if mixed := [key for key in within if is_protocol(key)]:
        raise UserError(f"--by {','.join(by)}: groups would mix {_values(runs, mixed[0])}; add {mixed[0]} to --by")
    labels = [label(part[0], keys) for part in parts]
    if not by and (typed := _as_typed(parts)):
        labels, keys = typed
    groups = [Group(name, environment(part[0].config), part) for name, part in zip(labels, parts, strict=True)]
    along = [key for key in differ if key not in keys and key not in within]
    return Grouping(sorted(groups, key=lambda g: g.environment), keys, along, within)


def telling(runs: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """Return those of some keys that tell the runs apart as far as all of them do, the best-known ones first."""
    ordered = sorted(keys, key=lambda key: (FIRST.index(key) if key in FIRST else len(FIRST), _plainness(key)))
    found: list[str] = []
    for key in ordered:
        if len(_partition(runs, [*found, key])) > len(_partition(runs, found)):
            found.append(key)
    return found


def _as_typed(parts: Sequence[Sequence[Run]]) -> tuple[list[str], list[str]] | None:
    """Return the names of groups in one environment by what their sweep was told, and the keys that were swept.

    None if there is more than one sweep or environment, or what was told makes other groups.
    """
    runs = [run for part in parts for run in part]
    if len({run.path.parent for run in runs}) != 1 or len({environment(run.config) for run in runs}) != 1:
        return None
    if not all((run.path / NOTE).exists() for run in runs):  # no sweep; what lies around them may be anything
        return None
    told, swept = results.told(runs[0].path.parent)
    names = [{told.get(run.path, "") for run in part} for part in parts]
    labels = ["".join(sorted(name)) for name in names if len(name) == 1]
    if len(set(labels)) != len(parts) or "" in labels:
        return None
    return labels, swept


def label(run: Run, keys: Sequence[str]) -> str:
    """Return the name of a run's group: values alone where one key tells, else key=value."""
    texts = [(_short(key), _short_value(key, value(run, key))) for key in keys]
    if len(texts) == 1 and keys[0] in FIRST:
        return texts[0][1]
    return (
        " ".join(
            text if key == "agent.name" else f"{name}={text}" for key, (name, text) in zip(keys, texts, strict=True)
        )
        or "all runs"
    )


def protocol_differences(groups: Sequence[Group]) -> dict[str, dict[str, str]]:
    """Return the keys of the protocol that differ between groups of one environment: {key: {label: value}}."""
    keys = dict.fromkeys(key for g in groups for key in g.runs[0].config if is_protocol(key))
    values = {key: {g.label: value(g.runs[0], key) for g in groups} for key in keys}
    return {key: by for key, by in values.items() if len(set(by.values())) > 1}


def _partition(runs: Sequence[Run], keys: Sequence[str]) -> list[list[Run]]:
    """Return the runs that agree in their environment and in these keys, in the order in which they were named."""
    parts: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        parts.setdefault((environment(run.config), *(value(run, key) for key in keys)), []).append(run)
    return list(parts.values())


def _check_by(runs: Sequence[Run], by: Sequence[str]) -> None:
    known = dict.fromkeys(key for run in runs for key in run.config)
    for name in by:
        if not any(_covers(name, key) for key in known):
            raise UserError(f"--by: {unknown_key(name, list(known))}")


def unknown_key(name: str, known: Sequence[str]) -> str:
    """Return what is wrong with a key that no run has."""
    same = [key for key in known if key.rpartition(".")[2] == name]
    if inside := [key for key in known if _covers(name, key)]:
        return f"no run has a key {name!r}; the keys in it are {', '.join(inside)}"
    near = same or difflib.get_close_matches(name, known, n=1)
    return f"no run has a key {name!r}" + (f"; did you mean {near[0]}?" if near else "")


def _covers(name: str, key: str) -> bool:
    return key == name or key.startswith(f"{name}.")


def _plainness(key: str) -> tuple[bool, int, int, str]:
    return key.endswith("_target_"), key.count("."), len(key), key


def _short(key: str) -> str:
    return key.removesuffix("._target_")


def _short_value(key: str, text: str) -> str:
    return text.rpartition(".")[2] if key.endswith("_target_") else text


def _values(runs: Sequence[Run], key: str) -> str:
    return f"{key} {' and '.join(dict.fromkeys(value(run, key) for run in runs))}"
