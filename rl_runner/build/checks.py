"""Is a configuration sound? Each check says in one line which key is wrong and what would be right."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from rl_runner import memory
from rl_runner.networks.inputs import OneHot
from rl_runner.types import State, UserError

Check = tuple[Callable[[Any], bool], str]


def _integer(least: int) -> Check:
    return lambda x: isinstance(x, int) and not isinstance(x, bool) and x >= least, f"a whole number, {least} or more"


def _number(low: float, high: float, what: str) -> Check:
    return lambda x: isinstance(x, (int, float)) and not isinstance(x, bool) and low <= x <= high, what


def _or_null(check: Check) -> Check:
    return lambda x: x is None or check[0](x), f"{check[1]}, or null"


_unit = _number(0, 1, "a number in [0, 1]")
_positive = _number(1e-300, 1e300, "a number above 0")
_switch: Check = (lambda x: isinstance(x, bool), "true or false")
_text: Check = (lambda x: isinstance(x, str), "a word")
_names: Check = (
    lambda x: isinstance(x, list) and all(isinstance(s, str) for s in x),
    "a list of names, such as [my_pkg]",
)
_threads: Check = (lambda x: x == "auto" or _integer(1)[0](x), "auto, or a whole number, 1 or more")

TRAINING: dict[str, Check] = {
    "seed": _integer(0),
    "device": _text,
    "num_threads": _threads,
    "total_steps": _integer(1),
    "learning_starts": _integer(0),
    "learn_every_steps": _integer(1),
    "updates_per_learn": _integer(1),
    "batch_size": _integer(1),
    "reward_clip": _or_null(_positive),
    "env.num_envs": _integer(1),
    "agent.gamma": _unit,
    "log.every_steps": _integer(1),
    "eval.every_steps": _integer(0),
    "eval.episodes": _integer(1),
    "eval.num_envs": _integer(1),
    "eval.epsilon": _unit,
    "checkpoint.every_steps": _integer(0),
    "checkpoint.keep": _integer(1),
    "checkpoint.replay": _switch,
    "stop.return": _or_null(_number(-math.inf, math.inf, "a number")),
    "stop.window": _integer(1),
    "stop.eval_return": _or_null(_number(-math.inf, math.inf, "a number")),
    "trust": _names,
}
WHERE_GIVEN: dict[str, Check] = {  # not every agent, or not every older run, has these
    "precision": (lambda x: x in ("fp32", "bf16", "auto"), "fp32, bf16 or auto"),
    "agent.n_step": _integer(1),
    "replay.capacity": _integer(2),
    "optimizer.lr": _positive,
    "optimizer.lr_end": _or_null(_number(0, 1e300, "a number, 0 or more")),
    "optimizer.lr_steps": _integer(0),
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
    "seed": _integer(0),
    "epsilon": _or_null(_unit),
    "device": _text,
    "video": _or_null((lambda x: isinstance(x, str), "a file name ending in .mp4 or .gif")),
    "trust": _names,
}


def training(cfg: State) -> None:
    """Check a training configuration.

    Raises:
        UserError: the first value that is wrong.
    """
    _check(cfg, TRAINING)
    _check(cfg, WHERE_GIVEN, optional=True)


def evaluation(cfg: State) -> None:
    """Check a configuration of `rlrun eval`; raises UserError."""
    _check(cfg, EVALUATION)


def playing(cfg: State) -> None:
    """Check a configuration of `rlrun play`; raises UserError."""
    _check(cfg, PLAYING)


def _check(cfg: State, checks: dict[str, Check], optional: bool = False) -> None:
    for key, (holds, wanted) in checks.items():
        group, _, name = key.rpartition(".")
        node: Any = cfg.get(group) if group else cfg
        given = isinstance(node, dict) and name in node
        node = node[name] if given else None
        if (given or not optional) and not holds(node):
            raise UserError(f"{key}: {wanted} is wanted, got {node!r}")


def arguments(key: str, target: Any, node: State) -> None:
    """Check a node against the signature of the class or function that it names: signatures are the schema.

    Raises:
        UserError: the first key that it does not take, or the first value of another type.
    """
    try:
        parameters = inspect.signature(target).parameters
        hints = typing.get_type_hints(target.__init__ if isinstance(target, type) else target)  # type: ignore[misc]
    except Exception:  # somebody else's code, annotated in ways of its own
        return
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for name, value in node.items():
        if not (open_ended or name in parameters or name.startswith("_")):  # _target_ and the like are Hydra's
            taken = ", ".join(parameters)
            raise UserError(f"{key}.{name}: {target.__name__} takes no such argument; it takes {taken}")
        if name in hints and not (isinstance(value, dict) and "_target_" in value) and not _fits(value, hints[name]):
            raise UserError(f"{key}.{name}: {_in_words(hints[name])} is wanted, got {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    """Say whether a plain value is of an annotated type; of types that no configuration holds, nothing is known."""
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, h) for h in inner)
    if origin in (Sequence, list, tuple):
        return isinstance(value, list) and (not inner or all(_fits(v, inner[0]) for v in value))
    if origin in (Mapping, dict):
        return isinstance(value, dict)
    if origin in (int, float):
        return isinstance(value, (int, origin)) and not isinstance(value, bool)
    return isinstance(value, origin) if origin in (bool, str, type(None)) else True


def _in_words(hint: Any) -> str:
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_in_words(h) for h in inner)
    if origin in (Sequence, list, tuple):
        return f"a list [{_in_words(inner[0])}, ...]" if inner else "a list"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "null"}
    return words.get(origin, "a group of keys" if origin in (Mapping, dict) else str(hint))


def memory_for_replay(capacity: int, per_row: int) -> None:
    """Check that the host's memory will hold the replay, before training fills it.

    Args:
        capacity: rows.
        per_row: bytes of a row.

    Raises:
        UserError: with both numbers.
    """
    wanted, free = capacity * per_row, memory.free_memory()
    if free is not None and wanted > 0.95 * free:
        raise UserError(
            f"replay.capacity: {capacity:,} rows take {wanted / 1e9:.2f} GB, but {free / 1e9:.2f} GB of memory are "
            f"free; at most {int(free * 0.8 / per_row):,} rows fit"
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
    memory.require(what, 3 * weights + 12 * inputs * batch_size, "smaller observations or batch_size are wanted")
