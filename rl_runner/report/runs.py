"""Runs on the disk: where they are, what they were configured with, and how they stand. Needs no torch."""

from __future__ import annotations

import csv
import glob
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

from rl_runner.report import evaluations, protocol
from rl_runner.report.curves import Series, Table, Unreadable, last_step, read_table, series
from rl_runner.run import notes
from rl_runner.run.files import (
    CHANGES,
    CHECKPOINTS,
    CONFIG,
    LOG,
    TABLE,
    best_saved,
    latest_run,
    modified,
    runs_under,
    saved_step,
)
from rl_runner.run.lock import in_use
from rl_runner.types import State, UserError, one_line

RUNNING, FINISHED, INTERRUPTED, FAILED, KILLED = "running", "finished", "interrupted", "failed", "killed"
PRUNED = "pruned"
STATES = (RUNNING, FINISHED, PRUNED, INTERRUPTED, FAILED, KILLED)
NOTED = {
    notes.FINISHED: FINISHED,
    notes.PRUNED: PRUNED,
    notes.INTERRUPTED: INTERRUPTED,
    notes.FAILED: FAILED,
    notes.UNFINISHED: KILLED,
}
SAID = {  # in the last lines of a log
    "evaluate it:": FINISHED,
    "nothing to do:": FINISHED,
    "stopped and saved": INTERRUPTED,
    "failed:": FAILED,
}
LAST = 2_000  # bytes of a log in which these lines stand


LATER = {  # keys that older runs do not have: the key of their part, and what they were
    "replay.hindsight": ("replay.capacity", 0),
    "network.torso.layer_norm": ("network.torso._target_", False),
    "agent.dropped_quantiles": ("agent.target_entropy", 0),
    "agent.policy_delay": ("agent.target_entropy", 1),
    "network.batch_norm": ("network.critics", False),
    "network.critic_hidden": ("network.critics", None),
    "agent.sequence_steps": ("agent.clip_end", 16),
    "network.memory": ("network.log_std", None),
    "network.memory_units": ("network.log_std", 64),
}


class Run(NamedTuple):
    """What is known of a run without loading its agent."""

    path: Path
    config: dict[str, Any]  # by dotted keys
    state: str
    table: Table  # what it logged; empty: nothing that can be read

    @property
    def seed(self) -> str:
        """Its seed as text."""
        return str(self.config.get("seed", ""))

    @property
    def evaluations(self) -> Series:
        """The mean returns of the evaluations while it was trained, those that are finite."""
        logged = series(self.table, "eval/return_mean")
        finite = [math.isfinite(value) for value in logged.values]
        return Series(logged.steps[finite], logged.values[finite])

    @property
    def last(self) -> float:
        """The mean return of its last evaluation; NaN: none, or it is not finite."""
        values = series(self.table, "eval/return_mean").values
        return float(values[-1]) if len(values) and math.isfinite(values[-1]) else math.nan

    @property
    def best(self) -> float:
        """The mean return of its best evaluation, of an agent before a resume too; NaN: none."""
        best = max([best_saved(self.path), *self.evaluations.values])
        return float(best) if math.isfinite(best) else math.nan

    @property
    def step(self) -> int:
        """The last step that it saved or logged; 0 if there is none."""
        return max(saved_step(self.path), last_step(self.table))


# Finding.


def find(names: Sequence[str]) -> list[Path]:
    """Return the directories of the runs that are named: by themselves, by what they are in, by a pattern, or "latest".

    Raises:
        UserError: one of the names leads to no run.
    """
    found: dict[Path, Path] = {}  # by the real path: one directory may be named in two ways
    for name in names:
        places = [Path(name)] if os.path.exists(name) else [Path(place) for place in sorted(glob.glob(name))]
        if name == "latest" and not places:
            places = [latest_run()]
        if not places:
            raise UserError(f"{name}: no such directory")
        inside = [run for place in places for run in runs_under(place)]
        if not inside:
            raise UserError(f"{name}: holds no run; a run is a directory with {CONFIG} and {TABLE} or {CHECKPOINTS}")
        for run in inside:
            found.setdefault(run.resolve(), run)
    return list(found.values())


# Reading.


def read(path: Path) -> Run:
    """Read what is known of a run.

    Raises:
        Unreadable: its configuration cannot be read.
    """
    try:
        config = _yaml((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as e:
        raise Unreadable(f"{path}/{CONFIG} cannot be read: {one_line(e)[:200]}") from e
    if not isinstance(config, dict):
        raise Unreadable(f"{path}/{CONFIG} is no configuration: it has no keys")
    try:
        flat = _with_later_keys(dict(flatten(config)))
    except RecursionError as e:  # a part that contains itself
        raise Unreadable(f"{path}/{CONFIG} is no configuration: it has no end") from e
    if not isinstance(config.get("env"), dict) or not isinstance(config.get("total_steps"), int):
        raise Unreadable(
            f"{path}/{CONFIG} is damaged, or no configuration of a run: env must be a group, total_steps a number"
        )
    try:
        table = read_table(path)
    except Unreadable:
        table = {}
    return Run(path, flat, _state(path, flat, table), table)


def _yaml(text: str) -> Any:
    """Return what a text of YAML holds, read by the fast loader unless it may be nested too deeply for that.

    That loader would end the process; the slow one raises RecursionError.
    """
    deep = sum(map(text.count, "[{-?")) > 5_000  # block mappings are nested by spaces, which would take many megabytes
    return yaml.load(text, yaml.SafeLoader if deep else getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def flatten(node: State, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return the leaves of a configuration by their dotted keys."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _with_later_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Return a flat configuration with the keys that came later, so that old and new runs can be one group."""
    return {**{key: default for key, (part, default) in LATER.items() if part in config}, **config}


def _state(path: Path, config: dict[str, Any], table: Table) -> str:
    """Return how a run stands: by its lock, by the note of a sweep, by its log, or by its steps."""
    if in_use(path):
        return RUNNING
    if note := notes.read(path):
        return NOTED.get(note.state, note.state)
    for line in reversed(_last_lines(path / LOG)):
        for words, state in SAID.items():
            if line.startswith(words):
                return state
    evaluated = [step for step, _ in table.get("eval/return_mean", [])]
    total = config.get("total_steps")
    return FINISHED if evaluated and isinstance(total, int) and evaluated[-1] >= total else KILLED


def _last_lines(log: Path) -> list[str]:
    """Return the closing lines of a log: the last ones, without those of progress, which come before them."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - LAST))
            return file.read().decode(errors="replace").splitlines()[-4:]
    except OSError:
        return []


def scores(path: Path) -> list[State]:
    """Return what `rlrun eval` wrote of a run; files that cannot be read are left out."""
    return [
        {**score, "own": evaluations.of_own_protocol(score["file"]), "mean": score["return"]["mean"]}
        for score in evaluations.fresh(path / "eval")
    ]


class Change(NamedTuple):
    """A value that changed when a run was resumed."""

    step: str
    key: str
    before: str
    after: str


def changes(path: Path) -> list[Change]:
    """Return what changed when a run was resumed; nothing if that cannot be read."""
    try:
        with open(path / CHANGES, newline="", encoding="utf-8") as file:
            return [Change(*(row[name] for name in Change._fields)) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, csv.Error):
        return []


def changed_keys(path: Path) -> list[str]:
    """Return the keys, of those that tell runs apart, whose values are no longer those that a run began with."""
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    for change in changes(path):
        first.setdefault(change.key, change.before)
        last[change.key] = change.after
    return [key for key in first if first[key] != last[key] and protocol.tells_apart(key)]


def disk(path: Path) -> int:
    """Return the bytes that a run takes on the disk."""
    total = 0
    for directory, _, files in os.walk(path):
        for name in files:
            try:
                facts = os.lstat(os.path.join(directory, name))
            except OSError:  # removed meanwhile
                continue
            total += getattr(facts, "st_blocks", -(-facts.st_size // 512)) * 512
    return total


def changed(path: Path) -> float:
    """Return when a run last wrote, in seconds since 1970."""
    return max(modified(path / name) for name in (TABLE, LOG, CONFIG))
