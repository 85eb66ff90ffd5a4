"""Which keys a torso or an agent gets if the command line names its class, in the place of an option of conf/."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Callable, Mapping, Sequence

from omegaconf import DictConfig, OmegaConf, open_dict

from rl_runner import catalogue

TORSO, AGENT = "network.torso", "agent"


def drop_other_keys(cfg: DictConfig, words: Sequence[str]) -> None:
    """Remove the keys of the former class from a configuration.

    A torso keeps only the keys that were typed. An agent also keeps those that its class takes, so that a subclass of
    one of rlrun's agents has the values of the chosen option. Nothing is taken from a torso whose option was typed as
    well, as in `network/torso=mlp network/torso._target_=my_pkg.MyMLP`.

    Args:
        cfg: the configuration that the words ask for.
        words: the command line.
    """
    typed = {word.lstrip("+").partition("=")[0] for word in words}
    if f"{TORSO}._target_" in typed and not {"network/torso", TORSO} & typed:
        _drop(cfg, TORSO, typed, lambda key: False)
    if f"{AGENT}._target_" in typed:
        taken = parameters(OmegaConf.select(cfg, f"{AGENT}._target_"))
        if taken is not None and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            _drop(cfg, AGENT, typed, lambda key: key in (*taken, *catalogue.AGENT_SETTINGS))


def _drop(cfg: DictConfig, path: str, typed: set[str], is_kept: Callable[[str], bool]) -> None:
    node = OmegaConf.select(cfg, path)
    if not isinstance(node, DictConfig):
        return
    with open_dict(node):
        for key in [str(key) for key in node]:
            named = any(f"{name}.".startswith(f"{path}.{key}.") for name in typed)
            if not (key.startswith("_") or named or is_kept(key)):
                del node[key]


def parameters(target: str | None) -> Mapping[str, inspect.Parameter] | None:
    """Return what a class or function takes, None where it cannot be imported."""
    try:
        return inspect.signature(pydoc.locate(target)).parameters if target else None  # type: ignore[arg-type]
    except Exception:  # whatever importing somebody's module raises: the build will say it
        return None
