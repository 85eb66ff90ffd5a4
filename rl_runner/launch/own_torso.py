"""A torso that the command line names by its class has its own keys, and none of the option whose place it takes."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf, open_dict

TORSO = "network.torso"


def drop_other_keys(cfg: DictConfig, words: Sequence[str]) -> None:
    """Take the keys of the former torso out of a configuration: the new one need not know them.

    Nothing is done where the option was typed as well, as in `network/torso=mlp network/torso._target_=my_pkg.MyMLP`.

    Args:
        cfg: the configuration that the words ask for.
        words: the command line.
    """
    typed = {word.lstrip("+").partition("=")[0] for word in words}
    node = OmegaConf.select(cfg, TORSO)
    if f"{TORSO}._target_" not in typed or {"network/torso", TORSO} & typed or not isinstance(node, DictConfig):
        return
    with open_dict(node):
        for key in [str(key) for key in node]:
            named = any(f"{name}.".startswith(f"{TORSO}.{key}.") for name in typed)
            if not key.startswith("_") and not named:
                del node[key]
