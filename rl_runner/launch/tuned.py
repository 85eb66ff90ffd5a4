"""Composition of a training configuration with the values that are tuned for its agent in its environment.

They are in conf/tuned/<agent>/<env>.yaml, or in a directory of the user's (--config-dir) laid out in the same way. The
order is: defaults, agent, environment, tuned, experiment, command line. Hydra alone cannot do it: which file applies
depends on the agent and the environment that an experiment or the command line chose, and the file may choose options
itself (`override /replay: prioritized`).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, cast

import hydra
from hydra._internal import hydra as hydra_app
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from rl_runner import catalogue
from rl_runner.launch import own_classes
from rl_runner.launch.copies import Files, ReadOnce, copier
from rl_runner.report.runs import flatten

MAIN = "train"  # the configuration that tuned values belong to
NOT_OPTIONS = ("agent", "env", "tuned", "ablation", "experiment")  # groups that set values of others
SINGLE = "hydra.mode=RUN"  # Hydra adds it to the words of a single run
ABSENT = object()
KEPT = 256  # compositions; one takes about 30 KB

Choices = Mapping[str, object]  # the chosen option of each group
Defaults = tuple[Choices, list[str]]  # with the paths of the files that they lead to, in Hydra's order
Load = Callable[[list[str]], DictConfig]

_chosen: dict[Hashable, Defaults] = {}  # of rlrun's own files, by words: finding them takes 0.02 s


@contextlib.contextmanager
def found() -> Iterator[None]:
    """Compose with tuned values wherever Hydra composes: a single run, each job of a sweep, --cfg job."""
    module: Any = hydra_app  # which makes a loader for each command line, and offers no other way to name its class
    before, module.ConfigLoaderImpl = module.ConfigLoaderImpl, Loader
    try:
        yield
    finally:
        module.ConfigLoaderImpl = before


def compose(words: list[str]) -> DictConfig:
    """Return the configuration of `rlrun train` with these words."""
    with found(), hydra.initialize_config_dir(str(catalogue.conf_dir()), version_base="1.3"):
        return hydra.compose(MAIN, words)


_read: Files = {}  # files of rlrun and Hydra, which do not change while a process lives
_composed: dict[tuple[Hashable, ...], Callable[[], DictConfig]] = {}  # the last compositions of those files


class Loader(ConfigLoaderImpl):
    """Hydra's loader of configurations, which replaces tuned=auto by the file for the chosen agent and environment."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._own: dict[tuple[str, ...], Files] = {}  # by the words that name a search path
        self._own_chosen: dict[Hashable, Defaults] = {}
        paths = {element.path for element in config_search_path.get_path() if element.provider != "schema"}
        self._shipped = paths <= {"pkg://hydra.conf", str(catalogue.conf_dir()), f"file://{catalogue.conf_dir()}"}

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        """Return what Hydra returns, with files that are read once a configuration, and rlrun's own once a process."""
        parsed = OverridesParser.create().parse_overrides(overrides)
        repository = CachingConfigRepository(self.repository)
        searched = _searched(overrides)
        read = _read if self._shipped and not searched else self._own.setdefault(tuple(searched), {})
        repository.delegate = cast(IConfigRepository, ReadOnce(repository.delegate, read))
        self._process_config_searchpath(config_name, parsed, repository)
        return parsed, repository

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose the configuration that the words of a command line ask for.

        Raises:
            HydraException, OmegaConfBaseException: a word does not fit the configuration.
        """
        if not validate_sweep_overrides or overrides[-1:] == [SINGLE]:
            cfg = self._checked(config_name, overrides)
            if cfg is not None and (not validate_sweep_overrides or cfg.hydra.mode is None):
                return cfg
        key = ("tuned", config_name, *overrides, run_mode, validate_sweep_overrides)
        try:
            return self._once(
                key, lambda: self._load(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
            )
        except ValueError as e:
            if isinstance(e, OmegaConfBaseException):
                raise
            nothing = next((w for w in overrides if w.endswith("=null") and self._is_group(w[:-5])), None)
            name = (nothing or "").removesuffix("=null")
            without = "" if name in ("agent", "env") else f", or leave the group out: ~{name}"
            wrong = f"{nothing}: choose an option, {name}=NAME{without}" if nothing else str(e)
            raise ConfigCompositionException(wrong) from e

    def _load(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool,
        validate_sweep_overrides: bool,
    ) -> DictConfig:
        def load(words: list[str]) -> DictConfig:
            hydras = super(Loader, self).load_configuration
            key = (config_name, *words, run_mode, validate_sweep_overrides)
            return self._once(key, lambda: hydras(config_name, words, run_mode, from_shell, validate_sweep_overrides))

        if config_name != MAIN or not validate_sweep_overrides:  # the latter: Hydra asks for its own keys only
            return load(overrides)
        chosen, paths = self._defaults(overrides, run_mode)
        typed = overrides
        if torso := self._implied_torso(overrides, chosen):
            overrides = [*overrides, torso]
            chosen, paths = self._defaults(overrides, run_mode)
        for group in ("agent", "env"):
            if group not in chosen:  # left out by ~
                raise ConfigCompositionException(f"{group}: one must be chosen: {group}=NAME")
        name, env = chosen.get("tuned"), chosen["env"]  # no name: left out by ~tuned
        if name == "auto":
            envs = [path[4:] for path in reversed(paths) if path.startswith("env/")]  # the chosen one, then its base
            there = self.get_group_options(f"tuned/{chosen['agent']}", config_name=MAIN, overrides=overrides)
            env = next((env for env in envs if env in there), None)
            name = env and f"{chosen['agent']}/{env}"
        cfg = load(overrides) if name in (None, "none") else self._with(str(name), str(env), chosen, overrides, load)
        _restore_overrides(cfg, typed)
        OmegaConf.update(cfg, "tuned.file", name, force_add=True)
        if "unused" not in cfg.tuned:
            OmegaConf.update(cfg, "tuned.unused", [], force_add=True)
        own_classes.drop_other_keys(cfg, overrides)
        _refuse_another_environment(cfg, str(chosen["env"]), overrides, load)
        return cfg

    def _once(self, key: tuple[Hashable, ...], composed: Callable[[], DictConfig]) -> DictConfig:
        """Return a composition; of rlrun's own files it is made once, for a command line is checked before it is run.

        Args:
            key: what the composition depends on, besides the files.
            composed: makes it.
        """
        if not self._lasts(key):
            return composed()
        if key not in _composed:
            while len(_composed) >= KEPT:
                del _composed[next(iter(_composed))]
            _composed[key] = copier(composed())
        return _here(_composed[key]())

    def _lasts(self, words: Iterable[object]) -> bool:
        """Return whether these words mean the same the next time: nothing outside of rlrun's own files takes part."""
        outside = ("searchpath", "agent._target_", "env_copy")
        return self._shipped and not any(part in str(word) for word in words for part in outside)

    def _checked(self, config_name: str | None, overrides: list[str]) -> DictConfig | None:
        """Return the composition of the same command line that its check made, if it was for a single run.

        Hydra composes it twice more: to ask for hydra.mode, and with the word SINGLE, which says no more than that.
        """
        words = overrides[:-1] if overrides[-1:] == [SINGLE] else overrides
        made = _composed.get(("tuned", config_name, *words, RunMode.RUN, True))
        return _here(made()) if made and self._shipped else None

    def _is_group(self, name: str) -> bool:
        return bool(self.get_group_options(name, config_name=MAIN, overrides=[]))

    def _choices(self, *words: str) -> Choices:
        """Return the options that these words choose, as an experiment or another file may choose them too."""
        return self._defaults(list(words), RunMode.RUN)[0]

    def _defaults(self, words: list[str], run_mode: RunMode) -> Defaults:
        """Return the options that these words choose, and their files.

        Words that set a value are left out, so that they make no new entry. With a search path of the user's none is:
        the groups on it are not known here yet.
        """
        choosing = words if _searched(words) else [word for word in words if self._chooses(word)]
        known, key = _chosen if self._lasts(choosing) else self._own_chosen, (*choosing, run_mode)
        if key not in known:
            made = self.compute_defaults_list(MAIN, choosing, run_mode)
            paths = [default.config_path or "" for default in made.defaults]
            known[key] = cast(Choices, made.overrides.known_choices), paths
        return known[key]

    def _chooses(self, word: str) -> bool:
        name = re.split("[=@]", word.lstrip("+~"), maxsplit=1)[0]
        return "/" in name or self.repository.group_exists(name)

    def _implied_torso(self, words: list[str], chosen: Choices) -> str | None:
        """Return the word for the torso that network=NAME implies where an experiment chose another one."""
        typed = dict(word.lstrip("+").split("=", 1) for word in words if "=" in word)
        network = typed.get("network", "")
        one = re.fullmatch(r"[\w./-]+", network)  # not several, of a sweep
        if not one or "network/torso" in typed or "experiment" not in typed:
            return None
        implied = self._choices(*_searched(words), f"network={network}").get("network/torso")
        differs = implied not in (self._choices().get("network/torso"), chosen.get("network/torso"))
        return f"network/torso={implied}" if differs else None

    def _with(self, name: str, env: str, chosen: Choices, words: list[str], load: Load) -> DictConfig:
        """Compose with a tuned file, without those of its values that belong to options that were not chosen.

        A group in which the user or the experiment chose another option than the file is for keeps a tuned value if
        both options' files have that key and the same default for it, as optimizer=adam and adamw have. Otherwise the
        key is missing or means something else there, as exploration.end does under exploration=boltzmann.

        Args:
            name: the file, without tuned/ and .yaml.
            env: the environment whose own values the file replaces: the one that it was found for, or that was chosen.
            chosen: the option of each group, with the file's own choices.
            words: the command line.
            load: composes.
        """
        agent = name.rpartition("/")[0] or chosen["agent"]
        meant = [f"agent={agent}", f"env={env}", *_searched(words)]
        plain = self._choices(*meant, "tuned=none")
        tuned = self._choices(*meant, f"tuned={name}")
        # What was chosen holds, also where another choice implies it, as network=mlp implies network/torso=mlp.
        cfg = load([*words, *_differing(plain, chosen), f"tuned={name}"])
        final = cast(Choices, cfg.hydra.runtime.choices)
        groups = [word.partition("=")[0].replace("/", ".") for word in _differing(tuned, final)]
        groups += [group.replace("/", ".") for group in tuned if group not in final]  # removed by ~group
        classes = [word.partition("._target_=")[0].lstrip("+") for word in words if "._target_=" in word]
        classes = [group for group in classes if not group.startswith("network")]  # its keys are the torso's own
        if groups or classes or (final["agent"], final["env"]) != (agent, env):
            bare = self._choices(*words, "tuned=none")
            _drop(
                cfg,
                tuned=_leaves(load([*meant, f"tuned={name}"])),
                defaults=_leaves(load([*meant, "tuned=none", *_differing(plain, tuned)])),
                others=_leaves(load([*words, *_differing(bare, final), "tuned=none"])),
                groups=groups,
                classes=classes,
                apart=self._apart(words, _differing(final, tuned), _differing(tuned, final)),
            )
        return cfg

    def _apart(self, words: list[str], these: list[str], those: list[str]) -> set[str]:
        """Return the keys to which the files of these options (group=option) and of those give different values."""
        _, files = self._parse_overrides_and_create_caching_repo(MAIN, words)

        def own(options: list[str]) -> dict[str, object]:
            read = {word.partition("=")[0]: files.load_config(word.replace("=", "/")) for word in options}
            nodes = {group.replace("/", "."): cast(DictConfig, file.config) for group, file in read.items() if file}
            return {f"{group}.{key}": value for group, node in nodes.items() for key, value in _leaves(node).items()}

        one, other = own(these), own(those)
        return {key for key in one.keys() & other.keys() if one[key] != other[key]}


def _searched(words: list[str]) -> list[str]:
    """Return the words that name a search path of the user's."""
    return [word for word in words if word.lstrip("+").startswith("hydra.searchpath=")]


def _here(cfg: DictConfig) -> DictConfig:
    """Return a composition that was perhaps made in another directory, as it is made in the current one."""
    cfg.hydra.runtime.cwd = os.getcwd()
    return cfg


def _differing(these: Choices, those: Choices) -> list[str]:
    """Return the words that choose what `those` have, for the groups in which `these` have another option."""
    return [
        f"{group}={option}"
        for group, option in those.items()
        if isinstance(option, str)
        and group in these
        and option != these[group]
        and group not in NOT_OPTIONS
        and not group.startswith("hydra/")
    ]


def _drop(
    cfg: DictConfig,
    tuned: dict[str, object],
    defaults: dict[str, object],
    others: dict[str, object],
    groups: list[str],
    classes: list[str],
    apart: set[str],
) -> None:
    """Take tuned values out of a configuration that are not for the options that it has, and note their keys in it.

    Args:
        cfg: the configuration, composed with the tuned file.
        tuned: the values with the tuned file alone, by their dotted keys.
        defaults: the values with the options that the file is for, but without its values.
        others: the values of the configuration if the file had none.
        groups: groups with another option than the one that the file is for.
        classes: groups for which the command line names a class, whose values cannot be those of the file's option.
        apart: keys to which the options that the file is for and those that were chosen give different defaults.
    """
    now = _leaves(cfg)
    for key, value in tuned.items():
        before, other = defaults.get(key, ABSENT), others.get(key, ABSENT)
        new_key = key in apart or (before is ABSENT and any(key.startswith(f"{group}.") for group in groups))
        kept = other == before and not new_key and not any(key.startswith(f"{group}.") for group in classes)
        if now.get(key, ABSENT) != value or other == value or kept:
            continue
        if other is ABSENT:
            _delete(cfg, key)
        else:
            OmegaConf.update(cfg, key, other)
        cfg.tuned.unused.append(key)


def _delete(cfg: DictConfig, key: str) -> None:
    """Delete a value, and the groups of keys that are empty without it."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    with open_dict(cfg):
        del node[name]
    if parent and not node:
        _delete(cfg, parent)


def _leaves(cfg: DictConfig) -> dict[str, object]:
    """Return the values of a configuration by their dotted keys, interpolations as they are written."""
    node = cast(dict[str, object], OmegaConf.to_container(cfg, resolve=False))
    return dict(flatten({key: value for key, value in node.items() if key not in ("hydra", "tuned")}))


def _refuse_another_environment(cfg: DictConfig, env: str, words: list[str], load: Load) -> None:
    """Refuse env=NAME with the id of another environment: values that are tuned for NAME would be used for that one.

    Another version of the same environment is allowed.
    """
    for key, general in (("id", "gym"), ("game", "atari")):
        if not any(word.lstrip("+").startswith(f"env.{key}=") for word in words):
            continue
        own = load([f"env={env}", "tuned=none", *_searched(words)]).env
        before, after = (None if OmegaConf.is_missing(node, key) else node.get(key) for node in (own, cfg.env))
        if before and after and catalogue.without_version(str(before)) != catalogue.without_version(str(after)):
            raise ConfigCompositionException(
                f"env.{key}: env={env} is {before}; for another environment use env={general} env.{key}={after}"
            )


def _restore_overrides(cfg: DictConfig, words: list[str]) -> None:
    """Restrict Hydra's record of the command line, and the names of directories, to what was typed."""
    typed = [word for word in OverridesParser.create().parse_overrides(words) if not word.is_hydra_override()]
    naming = cfg.hydra.job.config.override_dirname
    cfg.hydra.overrides.task = [word.input_line for word in typed]
    name = get_overrides_dirname(
        typed, exclude_keys=naming.exclude_keys, item_sep=naming.item_sep, kv_sep=naming.kv_sep
    )
    cfg.hydra.job.override_dirname = name.replace("/", ".")  # network/torso=cnn: one directory, not two
