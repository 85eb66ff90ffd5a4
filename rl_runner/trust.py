"""May a run's configuration be used? It may be a stranger's, and what it names would be run."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from rl_runner.types import State, UserError

PARTS = {  # where the classes are that any configuration may name, group by group
    "env": "rl_runner.envs",
    "agent": "rl_runner.agents",
    "loop": "rl_runner.loops",
    "network": "rl_runner.networks",
    "value": "rl_runner.values",
    "exploration": "rl_runner.exploration",
    "sync": "rl_runner.sync",
    "replay": "rl_runner.replay",
    "optimizer": "torch.optim",
}


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
            raise UserError(f"trust: this run's config.yaml hides something behind an interpolation: {node}")
        if isinstance(node, dict) and "_args_" in node:
            raise UserError(f"trust: this run's config.yaml passes arguments without their names: {node['_args_']}")
    names = list(_foreign(cfg))
    refused = [name for name in names if not any(_covers(trusted, name) for trusted in trust)]
    if refused:
        kept = [trusted for trusted in trust if any(_covers(trusted, name) for name in names)]
        wanted = ",".join(dict.fromkeys([*kept, *map(_package, refused)]))
        raise UserError(
            "trust: this run's config.yaml names code outside rlrun: "
            f"{', '.join(dict.fromkeys(refused))}; if you trust it: trust=[{wanted}]"
        )


def needed(cfg: State) -> list[str]:
    """Return the packages that have to be trusted before this configuration is used."""
    return sorted(set(map(_package, _foreign(cfg))))


def _covers(trusted: str, name: str) -> bool:
    """Return whether a trusted dotted name is this one or stands above it: pkg.sub covers pkg.sub.x, not pkg.subx."""
    return name == trusted or name.startswith(f"{trusted}.")


def _package(name: str) -> str:
    return name.split(".")[0]


def _foreign(cfg: State) -> Iterator[str]:
    """Give the dotted names of all code that is not ours: targets, and modules that an environment would import."""
    for group, part in cfg.items():
        for node in _nodes(part):
            if isinstance(node, dict):
                target = str(node.get("_target_", ""))
                if target and not _ours(group, target):
                    yield target
                yield from _modules(node)


def _nodes(node: Any) -> Iterator[Any]:
    """Give a node and all that is in it."""
    yield node
    for child in [*node, *node.values()] if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield from _nodes(child)


def _modules(node: State) -> Iterator[str]:
    """Give what an environment would import: its `imports`, and the module of an id such as "my_pkg:Mine-v0"."""
    yield from (str(m) for m in node.get("imports") or [])
    for key in ("id", "env_id"):  # Gymnasium's gateways to its older versions take an `env_id`
        module, colon, _ = str(node.get(key, "")).partition(":")
        if colon:
            yield module


def _ours(group: str, target: str) -> bool:
    """Say whether a dotted path names a public class or function of the part of rlrun that its group configures.

    Where it is defined is what counts: a path such as rl_runner.networks.torsos.np.load begins well and ends elsewhere.
    Other parts would be too much: `rl_runner.cli.run` runs whatever it is told.
    """
    module, _, name = target.rpartition(".")
    part = PARTS.get(group, "-")
    if not f"{module}.".startswith(f"{part}.") or name.startswith("_"):
        return False
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return False
    return f"{getattr(found, '__module__', '')}.".startswith(f"{part}.")
