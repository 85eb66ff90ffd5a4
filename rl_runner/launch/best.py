"""The best configuration of a search, as a file that `experiment=` loads."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from omegaconf import OmegaConf

from rl_runner.launch.settings import Settings
from rl_runner.report.search import Trial

NAME = "best"  # of the experiment


def write(directory: Path, words: Sequence[str], trial: Trial, settings: Settings, loader: ConfigLoader) -> str:
    """Write a configuration into a search's directory; return the command that trains with it.

    Args:
        directory: the search's.
        words: the configuration's, without a seed.
        trial: where it comes from.
        settings: of the search.
        loader: knows the groups of configurations.
    """
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(words))
    text, left = experiment(parsed, loader)
    folder = directory / NAME
    command = shlex.join(["rlrun", "train", "--config-dir", str(folder), f"experiment={NAME}", *left])
    seeds = "one seed" if settings.seeds == 1 else f"the mean of {settings.seeds} seeds"
    about = f"# Trial {trial.number} of {directory}: {settings.measure} {trial.value:.6g}, {seeds}.\n# {command}\n"
    file = folder / "experiment" / f"{NAME}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"# @package _global_\n{about}{text}", encoding="utf-8")
    return command


def experiment(overrides: Sequence[Override], loader: ConfigLoader) -> tuple[str, list[str]]:
    """Return overrides as the text of an experiment, and those that have no place in a file: removed keys."""
    built_on: list[Any] = []
    chosen: list[Any] = []
    values = OmegaConf.create()
    left: list[str] = []
    for override in overrides:
        if override.is_delete() or override.package is not None:
            left.append(override.input_line or "")
        elif override.key_or_group == "experiment":
            built_on += [override.value()]
        elif loader.get_group_options(override.key_or_group):
            chosen.append({f"override /{override.key_or_group}": override.value()})
        else:
            OmegaConf.update(values, override.key_or_group, _plain(override.value()), force_add=True)
    defaults = OmegaConf.to_yaml(OmegaConf.create({"defaults": [*built_on, *chosen]})) if built_on or chosen else ""
    return defaults + (OmegaConf.to_yaml(values) if values else ""), left


def _plain(value: Any) -> Any:
    """Return a value without the quotes that it was typed with."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value
