"""Check the code that a run's configuration names before it is used: it may be a stranger's, and would be run.

A run that this user started on this machine is trusted again without being asked: that is remembered in a file of the
user's own, outside the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium

from rl_runner.run.files import read_json
from rl_runner.types import State, UserError

OURS = "rl_runner"
HARMLESS = (gymnasium.ObservationWrapper, gymnasium.ActionWrapper, gymnasium.RewardWrapper)
PARTS = {  # where the classes are that any configuration may name, group by group
    "env": ("rl_runner.envs",),
    "agent": ("rl_runner.agents",),
    "recipe": ("rl_runner.build.recipes",),
    "network": ("rl_runner.networks",),
    "value": ("rl_runner.values",),
    "exploration": ("rl_runner.exploration",),
    "sync": ("rl_runner.sync",),
    "replay": ("rl_runner.replay",),
    "optimizer": ("torch.optim", "rl_runner.optim"),
    "logger": ("rl_runner.run.loggers",),
}
FACTORIES = ("rl_runner.networks.torsos.auto",)  # functions, beside recipes; others may do more than build a part


def check(cfg: State, trust: list[str]) -> None:
    """Check that a configuration names no code outside rlrun, torch.optim and what is in `trust`.

    Args:
        cfg: the configuration, its interpolations not resolved.
        trust: names of packages and modules. Each covers itself and everything below it.

    Raises:
        UserError: it names something else, or hides what it names.
    """
    for node in _nodes(cfg):
        if isinstance(node, str) and "${" in node:
            raise UserError(f"trust: this run's config.yaml must not contain interpolations, got {node}")
        if isinstance(node, dict) and "_args_" in node:
            raise UserError(f"trust: this run's config.yaml must pass arguments by name, got _args_={node['_args_']}")
    names = _foreign(cfg)
    refused = _not_covered(names, trust)
    if not refused:  # only now may what it names be imported, to see where that is defined
        names += _elsewhere(cfg)
        refused = _not_covered(names, trust)
    if refused:
        kept = [trusted for trusted in trust if any(_covers(trusted, name) for name in names)]
        wanted = ",".join(dict.fromkeys([*kept, *map(_package, refused)]))
        raise UserError(
            "trust: this run's config.yaml names code outside rlrun: "
            f"{', '.join(dict.fromkeys(refused))}; if you trust it: trust=[{wanted}]"
        )


def needed(cfg: State) -> list[str]:
    """Return the packages that have to be trusted before this configuration is used."""
    return sorted(set(map(_package, [*_foreign(cfg), *_elsewhere(cfg)])))


def remember(config: Path, packages: list[str]) -> bool:
    """Remember that this user trusts packages for a run; return whether they need not be named again.

    Args:
        config: the run's config.yaml, as it was just written.
        packages: what `needed` returned for it.
    """
    if not packages:
        return True
    origins = {package: _origin(package) for package in packages}
    note = {"config": str(config.resolve()), "sha256": _hash(config), "packages": origins}
    try:
        file = _note(config)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        temporary.replace(file)
    except (OSError, RuntimeError):  # no such home: then the user is asked, as for a stranger's run
        return False
    return None not in origins.values()  # no file: such a package has to be named again


def remembered(config: Path) -> list[str]:
    """Return the packages that this user trusts for a run.

    None of them if the run was moved or its config.yaml was changed: it may be a stranger's. A package counts only if
    its name still means the same file, so that one in a stranger's directory does not take its place.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        note = read_json(_note(config))
        if (note["config"], note["sha256"]) == (str(config.resolve()), _hash(config)):
            return [package for package, origin in note["packages"].items() if origin and origin == _origin(package)]
    return []


def _note(config: Path) -> Path:
    """Return the file that remembers a run: $XDG_STATE_HOME/rlrun/trusted/<hash of the path>.json."""
    given = os.environ.get("XDG_STATE_HOME", "")
    state = Path(given) if given.startswith("/") else Path.home() / ".local/state"  # relative ones are to be ignored
    name = hashlib.sha256(os.fsencode(config.resolve())).hexdigest()[:32]
    return state / "rlrun" / "trusted" / f"{name}.json"


def _hash(config: Path) -> str:
    return hashlib.sha256(config.read_bytes()).hexdigest()


def _origin(package: str) -> str | None:
    """Return the file that a package would be imported from; nothing is imported."""
    if package == "__main__":  # the running script
        script = getattr(sys.modules[package], "__file__", None)
        return str(Path(script).resolve()) if script else None
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    return spec.origin if spec.has_location else next(iter(spec.submodule_search_locations or []), None)


def _not_covered(names: list[str], trust: list[str]) -> list[str]:
    return [name for name in names if not any(_covers(trusted, name) for trusted in trust)]


def _covers(trusted: str, name: str) -> bool:
    """Return whether a trusted dotted name is this one or stands above it: pkg.sub covers pkg.sub.x, not pkg.subx.

    rlrun as a whole cannot be trusted, because some of it runs any command line.
    """
    return name == trusted or (trusted != OURS and name.startswith(f"{trusted}."))


def _package(name: str) -> str:
    """Return the package to trust for a dotted name; of rlrun's own the whole name."""
    package = name.split(".")[0]
    return name if package == OURS else package


def _foreign(cfg: State) -> list[str]:
    """Return the dotted names of all code that is not ours: targets, and modules that an environment would import."""
    return [*(target for _, target in _targets(cfg)), *imported(cfg)]


def imported(cfg: State) -> list[str]:
    """Return the modules that the environment of a configuration would import."""
    return [module for node in _nodes(cfg) if isinstance(node, dict) for module in _modules(node)]


def _targets(cfg: State) -> Iterator[tuple[str, str]]:
    """Yield the targets that are not ours, each after its group."""
    for group, part in cfg.items():
        for node in _nodes(part):
            target = str(node.get("_target_") or "") if isinstance(node, dict) else ""  # null: no code
            if target and not _ours(group, target):
                yield group, target


def _elsewhere(cfg: State) -> list[str]:
    """Return the names of foreign code that targets reach under another name: os, posix.system of my_pkg.os.system.

    Targets are imported for it.
    """
    return [name for group, target in _targets(cfg) for name in _reached(target) if not _ours(group, name)]


def _reached(target: str) -> list[str]:
    """Return the true names of the modules on the way to a target, and of a class or function that it ends at."""
    path, *parts = target.split(".")
    names = []
    try:
        found = importlib.import_module(path)
        for part in parts:  # as Hydra finds it
            path = f"{path}.{part}"
            found = getattr(found, part) if hasattr(found, part) else importlib.import_module(path)
            if inspect.ismodule(found):
                names.append(found.__name__)
    except Exception:  # of whatever kind, in somebody else's module: building the part will raise it again
        return []
    home = getattr(found, "__module__", None)  # some that are written in C have none
    home = "__main__" if home == "__mp_main__" else home  # as a process that multiprocessing spawned names the script
    return [*names, f"{home}.{found.__qualname__}"] if home and _is_code(found) else names


def _is_code(found: Any) -> bool:
    return inspect.isclass(found) or inspect.isroutine(found)


def _nodes(node: Any) -> Iterator[Any]:
    """Yield a node and everything in it."""
    yield node
    for child in [*node, *node.values()] if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield from _nodes(child)


def _modules(node: State) -> Iterator[str]:
    """Yield what an environment would import: its `imports`, and the module of an id such as "my_pkg:Mine-v0"."""
    yield from (str(m).partition(":")[0] for m in node.get("imports") or [])
    for key in ("id", "env_id"):  # Gymnasium's gateways to its older versions take an `env_id`
        module, colon, _ = str(node.get(key, "")).partition(":")
        if colon:
            yield module


def _ours(group: str, target: str) -> bool:
    """Return whether a dotted path names a public class, recipe or factory of the part that its group configures.

    The place of the definition counts: rl_runner.networks.torsos.np.load begins as ours and ends in NumPy. Other parts
    are not allowed: `rl_runner.cli.main.run` runs any command line.
    """
    module, _, name = target.rpartition(".")
    if group == "env" and module == "gymnasium.wrappers":
        # Only those that transform values. Others write files, such as RecordVideo.
        found = getattr(gymnasium.wrappers, name, None)
        return inspect.isclass(found) and issubclass(found, HARMLESS)
    parts = tuple(f"{part}." for part in PARTS.get(group, ()))
    if not f"{module}.".startswith(parts) or name.startswith("_"):
        return False
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return False
    if not (inspect.isclass(found) or group == "recipe" or target in FACTORIES):
        return False
    return f"{getattr(found, '__module__', '')}.".startswith(parts)
