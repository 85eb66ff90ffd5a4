"""A configuration composed by Hydra for a program, beside whatever Hydra does for the program itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase
from omegaconf import OmegaConf, open_dict

from rl_runner import catalogue
from rl_runner.launch import tuned


@contextlib.contextmanager
def beside_the_program() -> Iterator[None]:
    """Restore Hydra's state afterwards, such as that of a program that `hydra.main` runs; within there is none."""
    state, base = GlobalHydra.instance(), VersionBase.instance()
    before, version = state.hydra, base.version_base
    state.clear()
    try:
        yield
    finally:
        state.hydra, base.version_base = before, version
        GlobalHydra.set_instance(state)  # Hydra leaves a copy in its place


def compose(words: list[str]) -> tuple[Any, Path]:
    """Return the configuration of `rlrun train` with these words, and the directory that a new run gets.

    The program's configuration is the same before and after. An error is Hydra's own exception.
    """
    program = HydraConfig.instance()
    before = program.cfg
    with tuned.found(), hydra.initialize_config_dir(str(catalogue.conf_dir()), version_base="1.3"):
        cfg = hydra.compose("train", words, return_hydra_config=True)
        try:
            program.set_config(cfg)  # the directory's name asks it for the chosen options
            directory = Path(cfg.hydra.run.dir)
        finally:
            program.cfg = before
    with open_dict(cfg):
        del cfg["hydra"]
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # raises if a value cannot be resolved
    return cfg, directory
