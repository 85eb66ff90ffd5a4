"""Is a configuration sound? Each check says in one line which key is wrong and what would be right."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from rl_runner import memory
from rl_runner.networks.inputs import OneHot, looks_like_image
from rl_runner.types import State, UserError

Check = tuple[Callable[[Any], bool], str]
CLASS = "a class or function (_target_) with its arguments"
MISSING = object()  # stands for a key that the configuration does not have


def _integer(least: int, most: float = math.inf) -> Check:
    what = f"a whole number, {least} or more" if most == math.inf else f"a whole number from {least} to {most:,}"
    return lambda x: isinstance(x, int) and not isinstance(x, bool) and least <= x <= most, what


def _number(low: float, high: float, what: str) -> Check:
    return lambda x: isinstance(x, (int, float)) and not isinstance(x, bool) and low <= x <= high, what


def _if_given(check: Check) -> Check:
    return lambda x: x is MISSING or check[0](x), check[1]


def _or_null(check: Check) -> Check:
    return lambda x: x is None or check[0](x), f"{check[1]}, or null"


_unit = _number(0, 1, "a number in [0, 1]")
_positive = _number(1e-300, 1e300, "a number above 0")
_not_negative = _number(0, 1e300, "a number, 0 or more")
_switch: Check = (lambda x: isinstance(x, bool), "true or false")
_text: Check = (lambda x: isinstance(x, str), "a word")
_names: Check = (
    lambda x: isinstance(x, list) and all(isinstance(s, str) for s in x),
    "a list of names, such as [my_pkg]",
)
_letters = "letters, digits, _, - and ."
_label: Check = (
    lambda x: isinstance(x, (str, int)) and re.fullmatch(r"[\w.-]{1,100}", str(x)) is not None,
    f"a word of {_letters}",
)
_labels: Check = (
    lambda x: isinstance(x, list) and all(map(_label[0], x)),
    f"a list [a,b] of words of {_letters}",
)
_several = _integer(1, 65_536)  # more cannot be started
_threads: Check = (lambda x: x == "auto" or _several[0](x), f"auto, or {_several[1]}")

TRAINING: dict[str, Check] = {  # of every run; what an agent needs beyond it is checked by its recipe
    "seed": _integer(0),
    "device": _text,
    "num_threads": _threads,
    "total_steps": _integer(1),
    "agent.name": _label,
    "env.num_envs": _several,
    "log.every_steps": _integer(1),
    "eval.every_steps": _integer(0),
    "eval.episodes": _integer(1),
    "eval.num_envs": _several,
    "eval.epsilon": _unit,
    "checkpoint.every_steps": _integer(0),
    "checkpoint.keep": _integer(1),
    "checkpoint.replay": _switch,
    "stop.return": _or_null(_number(-math.inf, math.inf, "a number")),
    "stop.window": _integer(1, 1_000_000_000),
    "stop.eval_return": _or_null(_number(-math.inf, math.inf, "a number")),
    "trust": _names,
    "precision": (lambda x: x in ("fp32", "bf16", "auto"), "fp32, bf16 or auto"),
    # Runs from before these keys do not have them.
    "name": _if_given(_or_null(_label)),
    "tags": _if_given(_labels),
    "checkpoint.snapshots_every_steps": _if_given(_integer(0)),
    "init_from": _if_given(_or_null(_text)),
    "init_from_optimizer": _if_given(_switch),
}
DISCOUNT: dict[str, Check] = {"agent.gamma": _unit}
GRADIENTS: dict[str, Check] = {
    **DISCOUNT,
    "reward_clip": _or_null(_positive),
    "optimizer.lr": _if_given(_positive),
    "optimizer.alpha": _if_given(_unit),
    "optimizer.eps": _if_given(_not_negative),
    "optimizer.weight_decay": _if_given(_not_negative),
    "optimizer.momentum": _if_given(_not_negative),
    "optimizer.lr_end": _if_given(_or_null(_not_negative)),
    "optimizer.lr_steps": _if_given(_integer(0)),
}
REPLAY_LEARNING: dict[str, Check] = {
    **GRADIENTS,
    "agent.n_step": _integer(1),
    "learning_starts": _integer(0),
    "learn_every_steps": _integer(1),
    "learn_every_episodes": _if_given(_or_null(_integer(1))),  # older runs do not have it
    "updates_per_learn": _integer(1),
    "batch_size": _integer(1, 1_000_000_000),
    "overlap": _switch,
    "replay.capacity": _integer(2),
    "replay.hindsight": _if_given(_unit),  # older runs do not have it
    "replay.sampler": (lambda x: isinstance(x, dict) and "_target_" in x, CLASS),
}
CONTROL: dict[str, Check] = {
    "agent.actor_lr": _if_given(_or_null(_positive)),
    "agent.random_steps": _if_given(_integer(0)),
}
ROLLOUT_LEARNING: dict[str, Check] = {
    **GRADIENTS,
    "rollout_steps": _or_null(_integer(1)),
    "rollout_episodes": _integer(1),
    "scale_actions": _if_given(_switch),  # older runs do not have it
    "agent.value_coef": _if_given(_not_negative),
    "agent.sequence_steps": _if_given(_integer(1)),  # older runs do not have it
}
EVALUATION: dict[str, Check] = {
    "checkpoint": (lambda x: isinstance(x, str), "a run or a checkpoint directory, or latest (rlrun eval outputs/...)"),
    "episodes": _integer(1),
    "num_envs": _integer(1),
    "seed": _integer(0),
    "epsilon": _or_null(_unit),
    "sticky": _or_null(_unit),
    "device": _text,
    "video": _switch,
    "video_episodes": _integer(1),
    "trust": _names,
}
PLAYING: dict[str, Check] = {
    "checkpoint": _or_null(EVALUATION["checkpoint"]),
    "episodes": _integer(1),
    "max_steps": _or_null(_integer(1)),
    "seed": _integer(0),
    "epsilon": _or_null(_unit),
    "device": _text,
    "video": _or_null((lambda x: isinstance(x, str), "a file name ending in .mp4 or .gif")),
    "trust": _names,
}
EXPORT: dict[str, Check] = {
    "checkpoint": (
        EVALUATION["checkpoint"][0],
        "a run or a checkpoint directory, or latest (rlrun export outputs/...)",
    ),
    "out": _or_null(_text),
    "observations": _integer(32),
    "seed": _integer(0),
    "video": _switch,
    "trust": _names,
}


def require(cfg: State, checks: Mapping[str, Check]) -> None:
    """Check the values of a configuration.

    Raises:
        UserError: the first value that is wrong.
    """
    for key, (holds, wanted) in checks.items():
        group, _, name = key.rpartition(".")
        node: Any = cfg.get(group) if group else cfg
        value = node.get(name, MISSING) if isinstance(node, dict) else MISSING
        if group and node is not None and not isinstance(node, dict):
            raise UserError(f"{group}: is a group of keys, such as {key}; set single ones, got {written(node)}")
        if not holds(value):
            got = "it is missing" if value is MISSING else f"got {written(value)}"
            raise UserError(f"{key}: must be {wanted}, {got}")


KEYS = {  # at the top of a configuration, besides those of the tables above
    *("resume", "tuned"),
    *("network", "value", "exploration", "sync", "logger", "recipe"),
    *(key.partition(".")[0] for table in (TRAINING, REPLAY_LEARNING, ROLLOUT_LEARNING) for key in table),
}


def keys(cfg: State) -> None:
    """Check that no key at the top of a configuration is misspelt, and that files of values begin as they must.

    Other keys at the top of a configuration may be read by a recipe or an interpolation of the user's own.

    Raises:
        UserError: a key is a misspelt one, or a file of values lacks its first line.
    """
    for group, own in (("tuned", {"file", "unused"}), ("experiment", set())):
        if set(cfg.get(group) or ()) - own:
            name = f" {cfg['tuned']['file']}.yaml" if group == "tuned" else ""
            raise UserError(f"{group}: the file{name} must begin with the line '# @package _global_'")
    for key in cfg:
        if key not in KEYS and (near := difflib.get_close_matches(key, KEYS, n=1, cutoff=0.85)):
            raise UserError(f"there is no key {key!r}; did you mean {near[0]}?")


def written(value: Any) -> str:
    """Return a value as a command line has it."""
    return {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))


def one_length(cfg: State) -> None:
    """Check that what is compiled has the same shape again and again.

    Raises:
        UserError: a compiled loss for whole episodes, which have any length. torch.compile takes many seconds for each
            length and gives up after a few, so that a resumed run would not compute the same.
    """
    if cfg["agent"].get("compiled") and cfg["rollout_steps"] is None:
        raise UserError("agent.compiled: must be false for whole episodes, which have any length; or set rollout_steps")


def whole_sequences(cfg: State, agent: object) -> None:
    """Check that rollouts and batches of an agent that remembers hold whole sequences.

    Without an attribute `sequence_steps` the agent learns from a whole rollout at once.

    Raises:
        UserError: whole episodes, which have any length; a sequence that does not divide a rollout or is longer than a
            batch; a compiled loss.
    """
    steps, wanted, batch = cfg["rollout_steps"], getattr(agent, "sequence_steps", None), getattr(agent, "batch_size", 0)
    if wanted is None:
        return
    if steps is None:
        raise UserError("rollout_steps: must be a number of steps with network.memory and this agent, got null")
    if cfg["agent"].get("compiled"):
        raise UserError("agent.compiled: must be false with network.memory")
    length = min(wanted, steps)
    if steps % length:
        raise UserError(f"agent.sequence_steps: must divide rollout_steps={steps}, got {length}")
    if batch < length:
        raise UserError(
            f"batch_size: must be at least {length}, the steps of one sequence (the smaller of agent.sequence_steps "
            f"and rollout_steps), got {batch}"
        )


def rows_to_compare(cfg: State, num_envs: int) -> None:
    """Check that a gradient step has the steps or episodes that it compares with each other.

    Raises:
        UserError: the baseline is the mean of the other episodes, and there is only one episode; or all advantages that
            are normalised are equal: those of a single step, or of one whole episode.
    """
    agent, steps = cfg["agent"], cfg["rollout_steps"]
    if agent.get("baseline") == "mean" and steps is None and cfg["rollout_episodes"] == 1:
        raise UserError(
            "rollout_episodes: must be at least 2 with agent.baseline=mean, which is the mean over the steps of the "
            "other episodes, got 1"
        )
    if not agent.get("normalize_advantages"):
        return
    if (agent.get("returns"), agent.get("baseline")) == ("trajectory", "none") and cfg["rollout_episodes"] == 1:
        raise UserError(
            "agent.normalize_advantages: must be false with returns=trajectory and rollout_episodes=1, because all "
            "steps of an episode have the same return; or raise rollout_episodes"
        )
    if steps is None:
        return
    batch = agent["batch_size"] if "epochs" in agent else math.inf  # TRPO's is that of the values
    if min(steps * num_envs, batch) == 1:
        raise UserError(
            "agent.normalize_advantages: must be false where a gradient is of a single step, because its advantage "
            "would be 0; or raise rollout_steps, env.num_envs or batch_size"
        )


def soft_values(cfg: State) -> None:
    """Check that returns are of one step. The soft value of more steps holds the entropy of each, which is not stored.

    Raises:
        UserError: returns are of several steps.
    """
    n_step = cfg["agent"]["n_step"]
    if n_step > 1:
        raise UserError(
            "agent.n_step: must be 1, because this agent's returns of more steps would leave out the entropies of the "
            f"steps between, got {n_step}"
        )


def no_images(space: Any, name: str) -> None:
    """Check that observations are no images.

    Raises:
        UserError: they are.
    """
    if looks_like_image(space):
        raise UserError(
            f"env: the observations of {name} are images {space}; this agent reads vectors and discrete states only. "
            "agent=dqn and agent=ppo read images"
        )


def rows_written(cfg: State) -> int:
    """Return how many different rows of the replay memory a run writes: at most its capacity.

    A step takes a row, and each episode one more; episodes of ten steps or more are assumed.
    """
    capacity, num_envs = int(cfg["replay"]["capacity"]), int(cfg["env"]["num_envs"])
    steps = int(cfg["total_steps"]) + num_envs  # the last step of all environments may go beyond
    return min(capacity, -(-11 * steps // 10) + num_envs)


def memory_for_replay(cfg: State, per_row: int) -> None:
    """Check that the host's memory will hold the rows of the replay that a run writes, before training fills it.

    Args:
        cfg: the configuration.
        per_row: bytes of a row.

    Raises:
        UserError: with both numbers.
    """
    rows, free = rows_written(cfg), memory.free_memory()
    if free is None or rows * per_row <= memory.USABLE * free:
        return
    which = "" if rows == cfg["replay"]["capacity"] else f" that total_steps={cfg['total_steps']:,} writes"
    raise UserError(
        f"replay.capacity: the {rows:,} rows{which} take {rows * per_row / 1e9:.2f} GB, but {free / 1e9:.2f} GB of "
        f"memory are free; at most {int(free * 0.8 / per_row):,} rows fit"
    )


def memory_for_learning(network: nn.Module, batch_size: int) -> None:
    """Check that the host's memory will hold what learning adds to a network that is built.

    These are the gradients, the two moments of Adam, and a batch of one-hot inputs: whole numbers of 8 bytes, then
    floats of 4.

    Args:
        network: the online network.
        batch_size: observations.

    Raises:
        UserError: with what is needed and what is free.
    """
    weights = sum(p.nbytes for p in network.parameters() if p.device.type == "cpu")
    inputs = sum(sum(m.sizes) for m in network.modules() if isinstance(m, OneHot)) if weights else 0
    what = f"network: learning from batches of {batch_size:,}" + (f" × {inputs:,} one-hot inputs" if inputs else "")
    memory.require(what, 3 * weights + 12 * inputs * batch_size, "use smaller observations or a smaller batch_size")
