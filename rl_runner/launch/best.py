"""The best configuration of a search, as a file that `experiment=` loads."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from omegaconf import DictConfig, OmegaConf

NAME = "best"  # of the experiment
AT_ROOT = "# @package _global_"  # the first line of a file whose keys are those of the whole configuration


def write(
    directory: Path,
    words: Sequence[str],
    about: str,
    loader: ConfigLoader,
    sources: Sequence[Path],
    own: Path | None,
) -> str:
    """Write a configuration into a search's directory; return the command that trains with it.

    Args:
        directory: the search's.
        words: the configuration's, without a seed.
        about: what it is, in one line.
        loader: knows the groups of configurations.
        sources: directories of configurations.
        own: the one of them that is the user's, given as --config-dir.
    """
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(words))
    text, left = experiment(parsed, loader, sources)
    folder = directory / NAME
    places = ["--config-dir", str(folder)]
    if own:  # whose options the file may choose, and which there can be only one of
        places = ["--config-dir", str(own), f"hydra.searchpath=[file://{folder.absolute()}]"]
    command = shlex.join(["rlrun", "train", *places, f"experiment={NAME}", *left])
    file = folder / "experiment" / f"{NAME}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{AT_ROOT}\n# {about}\n# {command}\n{text}", encoding="utf-8")
    return command


def experiment(overrides: Sequence[Override], loader: ConfigLoader, sources: Sequence[Path]) -> tuple[str, list[str]]:
    """Return overrides as the text of an experiment, and those that have no place in a file: removed keys.

    Args:
        overrides: of the configuration.
        loader: knows the groups of configurations.
        sources: directories of configurations.
    """
    entries: list[Any] = []
    values, left = OmegaConf.create(), list[str]()
    for override in sorted(overrides, key=lambda override: override.key_or_group != "experiment"):  # that one first
        key, value = override.key_or_group, _plain(override.value())
        if override.is_delete() or override.package is not None:
            left.append(override.input_line or "")
        elif key == "experiment":
            entries, values = _built_on(str(value), sources)
        elif loader.get_group_options(key):
            entries = [*(entry for entry in entries if _group(entry) != f"/{key}"), {f"override /{key}": value}]
        else:
            OmegaConf.update(values, key, value, force_add=True)
    defaults = OmegaConf.to_yaml(OmegaConf.create({"defaults": entries})) if entries else ""
    return defaults + (OmegaConf.to_yaml(values) if values else ""), left


def _built_on(name: str, sources: Sequence[Path]) -> tuple[list[Any], DictConfig]:
    """Return the defaults and the values of an experiment's file, without those that make it a search."""
    for file in (source / "experiment" / f"{name}.yaml" for source in sources):
        if file.is_file() and AT_ROOT in file.read_text(encoding="utf-8"):
            values = OmegaConf.load(file)
            assert isinstance(values, DictConfig)
            entries = OmegaConf.to_container(values.pop("defaults", OmegaConf.create([])))
            assert isinstance(entries, list)
            values.pop("hydra", None)
            return [entry for entry in entries if not _group(entry).startswith("/hydra/")], values
    return [name], OmegaConf.create()


def _group(entry: object) -> str:
    """Return the group of an entry in a list of defaults that overrides one."""
    return next(iter(entry)).removeprefix("override ") if isinstance(entry, dict) else ""


def _plain(value: Any) -> Any:
    """Return a value without the quotes that it was typed with."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value
