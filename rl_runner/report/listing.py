"""Runs as a list: filtered, sorted, as a table or as records. Needs no torch."""

from __future__ import annotations

import datetime
import fnmatch
import json
import math
import operator
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from rl_runner.report import groups, runs
from rl_runner.report.curves import Unreadable
from rl_runner.report.runs import Run
from rl_runner.report.tables import Column, print_fitted
from rl_runner.run.files import CHECKPOINTS, best_checkpoint
from rl_runner.run.terminal import counted, size_in_words
from rl_runner.types import State, UserError

EXPENDABLE = ("disk", "age", "best", "differs")  # columns that a narrow terminal does without, the first one first


class Entry(NamedTuple):
    """One run of a list."""

    run: Run
    differs: dict[str, str]  # where its configuration is not that of the other runs, what tells most of them first
    changed: float  # when it last wrote, in seconds since 1970
    disk: int  # bytes


NUMBERS: dict[str, Callable[[Run], float]] = {
    "steps": lambda run: run.step,
    "last": lambda run: run.last,
    "best": lambda run: run.best,
}
CONDITION = re.compile(r"([^<>=]+)(<=|>=|<|>|=)(.*)", re.DOTALL)
COMPARED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
SORTED: dict[str, Callable[[Entry], Any]] = {
    "age": lambda entry: -entry.changed,
    "run": lambda entry: str(entry.run.path),
    "state": lambda entry: entry.run.state,
    "steps": lambda entry: entry.run.step,
    "last": lambda entry: entry.run.last,
    "best": lambda entry: entry.run.best,
    "disk": lambda entry: entry.disk,
}


def listed(names: Sequence[str], where: Sequence[str], states: Sequence[str], sort: str) -> list[Entry]:
    """Return the runs in some places.

    Args:
        names: the places.
        where: conditions that must all hold: a key of the configuration or one of NUMBERS, then =, <, <=, > or >=, then
            a value. After =, it may be a pattern.
        states: of which a run has one; none: any.
        sort: one of SORTED or a key; with a "-" before it, descending.

    Raises:
        UserError: there are no runs, or a key or state does not exist.
    """
    found = _readable(runs.find(names))
    if wrong := [state for state in states if state not in {*runs.STATES, *(run.state for run in found)}]:
        raise UserError(f"--state: must be one of {', '.join(runs.STATES)}, got {wrong[0]!r}")
    known = list(dict.fromkeys(key for run in found for key in run.config))
    for condition in where:
        found = [run for run in found if _holds(run, condition, known)]
    found = [run for run in found if not states or run.state in states]
    plain = groups.without_origins(found)
    keys = groups.differing(plain)
    keys = list(dict.fromkeys([*groups.telling(plain, keys), *keys]))
    entries = [
        Entry(run, {key: groups.value(short, key) for key in keys}, runs.changed(run.path), runs.disk(run.path))
        for run, short in zip(found, plain, strict=True)
    ]
    name = sort.removeprefix("-")
    if name not in SORTED and name not in known:
        hint = groups.unknown_key(name, [*SORTED, *known])
        raise UserError(f"--sort: must be a key or one of {', '.join(SORTED)}; {hint}")
    value = SORTED.get(name) or (lambda entry: entry.run.config.get(name))
    return sorted(entries, key=lambda entry: _order(value(entry), sort.startswith("-")))


def _readable(paths: Sequence[Path]) -> list[Run]:
    """Return the runs whose configurations can be read; the others are named on stderr."""
    found = []
    for path in paths:
        try:
            found.append(runs.read(path))
        except Unreadable as e:
            print(f"rlrun: left out: {e}", file=sys.stderr)
    return found


def _holds(run: Run, condition: str, known: Sequence[str]) -> bool:
    if not (found := CONDITION.fullmatch(condition)):
        raise UserError(f"--where: must be KEY=VALUE, or <, <=, > or >= in place of =, got {condition!r}")
    key, sign, value = found.groups()
    if key not in known and f"{key}.name" in known:  # as on the command line: env=cartpole, agent=dqn
        key = f"{key}.name"
    if key not in NUMBERS and key not in known:
        raise UserError(f"--where: {groups.unknown_key(key, [*NUMBERS, *known])}")
    own = NUMBERS[key](run) if key in NUMBERS else run.config.get(key)
    if sign == "=":
        values = [value, f"*.{value}"] if key.endswith("_target_") else [value]  # the list leaves out modules
        return any(_same(one, value) for one in (own if isinstance(own, list) else [own]) for value in values)
    try:
        bound = float(value.replace("_", ""))
    except ValueError:
        raise UserError(f"--where: {condition}: {value!r} is no number") from None
    return isinstance(own, (int, float)) and bool(COMPARED[sign](own, bound))


def _same(own: Any, value: str) -> bool:
    """Return whether a value of a configuration is the one typed: as text, as a pattern, or as a number."""
    text = own if isinstance(own, str) else json.dumps(own, default=str)
    if fnmatch.fnmatchcase(text, value):
        return True
    try:
        return isinstance(own, (int, float)) and float(value.replace("_", "")) == own
    except ValueError:
        return False


def _order(value: Any, descending: bool) -> tuple[bool, Any]:
    """Return what to sort by; what is missing comes last either way."""
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    if missing:
        return True, _Ordered(0.0, False)
    return False, _Ordered(value, descending)


class _Ordered:
    """Compares numbers with numbers, everything else as text, the other way round if that is asked for."""

    def __init__(self, value: Any, descending: bool) -> None:
        self.value, self.descending = value, descending

    def __lt__(self, other: _Ordered) -> bool:
        a, b = self.value, other.value
        if not (isinstance(a, (int, float)) and isinstance(b, (int, float))):
            a, b = str(a), str(b)
        return bool(b < a if self.descending else a < b)


# Output.


def _best_saved(run: Run) -> str | None:
    """Return the step of the best agent, which is from before a resume if no evaluation of the curve is as good."""
    best = best_checkpoint(run.path / CHECKPOINTS)
    return best.name.rpartition("_")[2] if best else None


def record(entry: Entry) -> State:
    """Return an entry as plain data."""
    run, evaluations = entry.run, entry.run.evaluations
    highest = evaluations.steps[evaluations.values == run.best]
    step = highest[-1] if len(highest) else _best_saved(run)  # of equal ones the last, as the run keeps it
    numbers = {"last_return": entry.run.last, "best_return": entry.run.best}
    return {
        "run": str(run.path),
        "state": run.state,
        "environment": groups.environment(run.config),
        "agent": run.config.get("agent.name"),
        "seed": run.config.get("seed"),
        "tags": run.config.get("tags") or [],
        "steps": run.step,
        "total_steps": run.config.get("total_steps"),
        **{name: None if math.isnan(value) else value for name, value in numbers.items()},
        "best_step": None if step is None else int(step),
        "differences": entry.differs,
        "disk_bytes": entry.disk,
        "changed": datetime.datetime.fromtimestamp(entry.changed).astimezone().isoformat(timespec="seconds"),
    }


def show(console: Console, entries: Sequence[Entry]) -> None:
    """Print a table and, below it, how many runs there are and what they take."""
    if entries:
        keys = [Column("run", [str(entry.run.path) for entry in entries])]
        print_fitted(console, keys, _columns(entries), EXPENDABLE, "--json")
    total = size_in_words(sum(entry.disk for entry in entries))
    console.print(Text(f"{counted(len(entries), 'run')}, {total}", style="dim"))


def _columns(entries: Sequence[Entry]) -> list[Column]:
    now = time.time()
    columns = {
        "state": [entry.run.state for entry in entries],
        "steps": [f"{entry.run.step:,}" for entry in entries],
        "last": [_number(entry.run.last) for entry in entries],
        "best": [_number(entry.run.best) for entry in entries],
        "differs": [_few(entry.differs) for entry in entries],
        "disk": [size_in_words(entry.disk) for entry in entries],
        "age": [age(now - entry.changed) for entry in entries],
    }
    return [Column(*column) for column in columns.items()]


def _few(differs: dict[str, str]) -> str:
    """Return the first differences, as many as fit into some 40 characters."""
    shown: list[str] = []
    for key, value in differs.items():
        word = f"{key}={value.rpartition('.')[2] if key.endswith('_target_') else value}"
        if sum(map(len, shown)) + len(word) > 40:
            return " ".join([*shown, "..."])
        shown.append(word)
    return " ".join(shown)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.2f}"


def age(seconds: float) -> str:
    """Return an age in words, in the largest unit of which there is at least one."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
