"""A run's configuration on the disk: load, save, and change it for a resume."""

from __future__ import annotations

from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rl_runner.build import checks, trust
from rl_runner.report.runs import flatten
from rl_runner.run.directory import RunDirectory
from rl_runner.run.files import write_whole
from rl_runner.types import State, UserError, one_line

MISSING = object()  # in place of a key's value; null is a value
AUTO = "auto"  # resume=auto: the run that was started with the same words, if there is one
LEARNING = ("batch_size", "learn_every_steps", "learn_every_episodes", "updates_per_learn", "reward_clip")
RESUMABLE = (  # keys, and groups of keys, that a resume may change: all that is in a checkpoint keeps its meaning
    *("total_steps", "stop", "log", "eval", "checkpoint", "device", "num_threads", "replay.frames", "agent.compiled"),
    *("optimizer.lr", "optimizer.lr_end", "optimizer.lr_steps", "optimizer.eps", "optimizer.weight_decay"),
    *LEARNING,
    *("exploration.start", "exploration.end", "exploration.steps"),
    *("sync.every_updates", "sync.every_steps", "sync.every_episodes", "sync.tau"),
    *("agent.lr", "agent.clip_grad_norm", "agent.clip_grad_value", "agent.clip_end", "agent.clip_steps"),
    *("tags", "logger"),
)
COPIES = {"batch_size": "agent.batch_size"}  # keys that another one repeats: PPO and PQN cut their own batches
RECIPES = {  # of runs from before there were recipes, by the loop that their configuration names
    "rl_runner.loops.replay.ReplayLoop": "replay_learning",
    "rl_runner.loops.online.OnlineLoop": "online",
    "rl_runner.loops.planning.PlanningLoop": "planning",
}


def plain(cfg: Any) -> State:
    """Return a configuration as plain dicts and lists, interpolations resolved."""
    return cast(State, OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))


def load_run_config(run: RunDirectory, trusted: list[str]) -> State:
    """Read a run's configuration. It may be a stranger's, so it may only name parts of rlrun and what is trusted.

    Raises:
        UserError: no whole configuration there, or one that names other code.
    """
    try:
        cfg = cast(State, OmegaConf.to_container(OmegaConf.load(run.config), resolve=False))
    except Exception as e:  # whatever a broken file makes the parser raise
        raise UserError(f"{run.config} cannot be read: {one_line(e)}") from e
    if not isinstance(cfg, dict) or not cfg:
        raise UserError(f"{run.config} cannot be read: it holds no keys")
    cfg = _from_older(cfg)
    trust.check(cfg, [*trusted, *trust.remembered(run.config)])
    try:
        checks.require(cfg, checks.TRAINING)
    except UserError as e:
        raise UserError(f"{run.config} is damaged, or no configuration of a run: {e}") from e
    return cfg


def config_of(settings: State) -> State:
    """Return the configuration of the run that is evaluated, watched or exported, or that of a random agent."""
    if settings["checkpoint"] is None:
        return settings
    run, _ = RunDirectory.find(settings["checkpoint"], str(settings["which"]))
    return load_run_config(run, settings["trust"])


def resumed_config(run: RunDirectory, cfg: Any, overrides: list[str]) -> State:
    """Return a run's own configuration with what may change when it is resumed.

    Args:
        run: the run that goes on.
        cfg: the configuration as composed from the command line.
        overrides: the words of the command line, such as "total_steps=200000".

    Raises:
        UserError: something that may not change.
    """
    trained = OmegaConf.create(load_run_config(run, list(cfg.trust)))
    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        if key in ("resume", "trust"):
            continue
        if not _is_resumable(key):
            if _is_value_of(trained, key, OmegaConf.select(cfg, key)):
                continue
            raise UserError(
                f"{key}: cannot change when a run is resumed; leave it out, or begin a new run with its weights: "
                f"init_from={run.path}; what can change: {_changeable(trained)}"
            )
        group = key.rpartition(".")[0]
        if group and OmegaConf.select(trained, group) is None:
            raise UserError(f"{key}: this run has no {group}")
        if (
            key in LEARNING
            and key not in trained
            and not (key == "learn_every_episodes" and "learn_every_steps" in trained)
        ):
            raise UserError(f"{key}: this run has no such key, so that it would change nothing")
        value = _typed(cfg, key)
        if isinstance(value, dict) and key != "logger":  # it holds defaults for the keys that were not named
            raise UserError(f"{key}: name single keys when a run is resumed, such as {key}.{next(iter(value))!s}=...")
        OmegaConf.update(trained, key, value, merge=False)
        copy = COPIES.get(key)
        if copy is not None and OmegaConf.select(trained, copy) is not None:
            OmegaConf.update(trained, copy, value)
    try:
        return plain(trained)
    except OmegaConfBaseException as e:  # a reference to a key that this run does not have
        why = str(e).partition("\n")[0]
        raise UserError(f"{e.full_key}: has no value in the run's own configuration: {why}") from e


def _typed(cfg: Any, key: str) -> Any:
    """Return a value as it was typed: a reference such as ${total_steps} is to the run's key, not to the default's."""
    node = OmegaConf.to_container(cfg, resolve=False)
    try:
        for name in key.split("."):
            node = cast(State, node)[name]
    except (KeyError, TypeError):  # an element of a list, or a key that another word removes
        return OmegaConf.select(cfg, key)
    return node


def differing(run: RunDirectory, cfg: Any) -> list[str]:
    """Return the keys, each followed by "=", whose values in a composed configuration are not those of a run.

    Keys that a run replaces by what they stand for, "auto" for example, are left out, and so are those that an older
    run does not have.
    """
    trained = dict(flatten(load_run_config(run, list(cfg.trust))))
    return [
        f"{key}="
        for key, value in flatten(plain(cfg))
        if key not in ("resume", "trust", "init_from") and value != "auto" and trained.get(key, value) != value
    ]


def _is_resumable(key: str) -> bool:
    """Return whether a key may change when a run is resumed."""
    return key in RESUMABLE or key.split(".")[0] in RESUMABLE


def _changeable(trained: DictConfig) -> str:
    """Return in words the keys of a run that may change when it is resumed."""
    groups: dict[str, list[str]] = {}
    for key in RESUMABLE:
        if OmegaConf.select(trained, key, default=MISSING) is not MISSING:
            group, _, name = key.rpartition(".")
            groups.setdefault(group, []).append(name)
    return "; ".join(f"of {group} {', '.join(names)}" if group else ", ".join(names) for group, names in groups.items())


def _is_value_of(trained: Any, key: str, value: Any) -> bool:
    """Return whether a key of a run has this value, so that naming it changes nothing. Not for groups of keys."""
    own = OmegaConf.select(trained, key, default=MISSING)
    return own is not MISSING and not isinstance(value, DictConfig) and bool(own == value)


def save_run_config(run: RunDirectory, cfg: State) -> None:
    """Write a run's configuration, resolved, so that it needs no code to read.

    Raises:
        UserError: it cannot be written; one that stands there already stays.
    """
    try:
        write_whole(run.config, OmegaConf.to_yaml(OmegaConf.create(cfg)))
    except OSError as e:
        raise UserError(f"{run.config} cannot be written: {e.strerror}") from e


def _from_older(cfg: State) -> State:
    """Return the configuration of an older run with the keys of today."""
    if "recipe" in cfg or not isinstance(cfg.get("loop"), dict):
        return cfg
    loop = cfg["loop"]
    recipe = RECIPES.get(str(loop.get("_target_")))
    if recipe is None:
        raise UserError(f"this run's loop, {loop.get('_target_')}, is from an older version; write a recipe for it")
    new = {k: v for k, v in cfg.items() if k not in ("loop", "preset")}
    new |= {"recipe": {"_target_": f"rl_runner.build.recipes.{recipe}"}, "overlap": loop.get("overlap", False)}
    new.setdefault("precision", "fp32")
    if recipe == "replay_learning" and isinstance(new.get("agent"), dict):
        new["agent"].setdefault("n_step", 1)
    return new
