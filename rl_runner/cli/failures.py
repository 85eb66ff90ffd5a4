"""Errors as one line that names the key and the fix."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rl_runner import catalogue

if TYPE_CHECKING:
    from rl_runner.run.notes import Failure

PLUGINS = {  # that Hydra's launchers and sweepers come with
    "hydra/launcher=joblib": "'rlrun[sweep]'",
    "hydra/launcher=submitit_local": "hydra-submitit-launcher",
    "hydra/launcher=submitit_slurm": "hydra-submitit-launcher",
    "hydra/launcher=ray": "hydra-ray-launcher",
    "hydra/launcher=ray_aws": "hydra-ray-launcher",
    "hydra/sweeper=optuna": "hydra-optuna-sweeper",
    "hydra/sweeper=nevergrad": "hydra-nevergrad-sweeper",
    "hydra/sweeper=ax": "hydra-ax-sweeper",
}


def failure(verb: str, args: list[str], e: Exception) -> Failure:
    """Return an exception as one line and, for a bug, its traceback."""
    from rl_runner.launch.task import failure_of

    return failure_of(e, explain(verb, args, e))


def explain(verb: str, args: list[str], e: Exception) -> str:
    """Return a Hydra error as one line that names the key and the fix."""
    from hydra.errors import MissingConfigException, OverrideParseException

    text = re.sub(r" See https://hydra\.cc.*", "", " ".join(str(e).split()))
    if isinstance(e, OSError) and e.filename:
        return f"{e.filename}: {e.strerror}"
    if isinstance(e, MissingConfigException) and e.missing_cfg_file:
        group, _, option = e.missing_cfg_file.rpartition("/")
        if package := PLUGINS.get(f"{group}={option}"):
            return f"{group}={option} is not installed: pip install {package}"
        return f"{group}: there is no {option!r}; {catalogue.did_you_mean(option, list(e.options or []))}"
    if isinstance(e, OverrideParseException):
        return f"{e.override!r} cannot be read: {text}"
    if several := re.search(r"Ambiguous value for argument '([^=]+)=(.*?)' 1\.", text):
        return f"{several[1]}: one run for each of {several[2]} needs -m; a list is written [{several[2]}]"
    if missing := re.search(r"Missing mandatory value: (\S+)", text):
        return f"{missing[1]}: a value is needed"
    group_of_others = re.search(r"Could not override '([^']+)'\. No match in the defaults list", text)
    if group_of_others and verb == "train":
        return f"{group_of_others[1]}: the chosen agent has none; leave it out"
    if key := re.search(r"Could not override '([^']+)'", text):
        if key[1].startswith("network.torso."):
            return f"there is no key {key[1]!r} in this torso; choose one that has it, such as network/torso=mlp"
        return f"there is no key {key[1]!r}; {catalogue.did_you_mean(key[1], _known_keys(verb, args))}"
    return text


def _known_keys(verb: str, args: list[str]) -> list[str]:
    """Return what a user may have meant: groups, and keys of the configuration that the chosen groups make."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from rl_runner.commands.train import flatten

    groups = {"train": catalogue.groups(), "eval": [], "play": ["env"]}[verb]
    ours = {f"{group}={option}" for group in groups for option in catalogue.options(group).split()}
    chosen = [arg for arg in args if arg in ours]
    with initialize_config_dir(str(catalogue.conf_dir()), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose(verb, chosen), resolve=False)
    leaves = [key for key, _ in flatten(node) if "._" not in key]
    return sorted({*leaves, *groups, *(leaf.rpartition(".")[0] for leaf in leaves)} - {""})
