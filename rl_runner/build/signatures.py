"""Configuration nodes -> objects. The signature of the class that a node names tells what is wrong with a key."""

from __future__ import annotations

import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import hydra
from hydra.errors import InstantiationException

from rl_runner import catalogue
from rl_runner.build.checks import CLASS, written
from rl_runner.types import State, UserError, one_line

T = TypeVar("T")
LISTS = {int: "[64, 64]", float: "[0.5, 1.0]", bool: "[true, false]", str: "[a, b]"}  # examples for messages


def part(key: str, node: State, contract: type[T], wanted: str = "") -> T:
    """Instantiate a configuration node that needs nothing from the run.

    Args:
        key: of the node, for messages.
        node: a class or function as `_target_`, and its arguments.
        contract: the protocol that the result must keep.
        wanted: an option that keeps it, for messages, such as exploration=gaussian.

    Raises:
        UserError: a name or a value that is wrong, or an object that lacks what the protocol asks for.
    """
    made = make(key, node)
    require(key, made, contract, wanted)
    return cast(T, made)


def factory(key: str, node: State, kind: type[T]) -> T:
    """Return what builds an object from a configuration node and from facts of the run.

    Args:
        key: of the node, for messages.
        node: a class or function as `_target_`, and its arguments.
        kind: a protocol whose `__call__` says which facts are handed over, and what the object must be.
    """
    contract = typing.get_type_hints(kind.__call__)["return"]

    def build(*args: Any, **facts: Any) -> Any:
        made = make(key, node, *args, **facts)
        require(key, made, contract)
        return made

    return cast(T, build)


def make(key: str, node: State, *args: Any, **facts: Any) -> Any:
    """Instantiate a configuration node: its values, and facts of the run as further arguments.

    Raises:
        UserError: a name or a value that is wrong.
    """
    check(key, node)
    try:
        # Partial, because Hydra would take some of our arguments for configurations.
        return hydra.utils.instantiate({**node, "_partial_": True}, _convert_="all")(*args, **facts)
    except InstantiationException as e:
        if isinstance(e.__cause__, UserError):
            raise e.__cause__ from e
        raise UserError(f"{key}: {one_line(e)}") from e
    except TypeError as e:
        if "argument" in str(e):  # a key that the class does not take, or one that it misses
            raise UserError(f"{_key_of(str(e).partition('.__init__()')[0], key, node)}: {e}") from e
        raise


def _key_of(name: str, key: str, node: State) -> str:
    """Return the key of the node, or of the one in it, whose class has a name; the node's own if there is none."""
    inner = ((f"{key}.{child}", value) for child, value in node.items() if isinstance(value, dict))
    return next((at for at, value in inner if str(value.get("_target_")).endswith(f".{name}")), key)


def named(key: str, target: str) -> Any:
    """Return the class or function that a dotted name means."""
    if not isinstance(target, str):
        raise UserError(f"{key}._target_: must be the name of a class or function, got {written(target)}")
    try:
        return hydra.utils.get_object(target)
    except Exception as e:  # whatever importing it raises
        raise UserError(f"{key}._target_: {_missing(target) or one_line(e)}") from e


def _missing(target: str) -> str:
    """Return in words which part of a dotted name is missing; an empty string: none, but importing one raises."""
    first, *rest = target.split(".")
    try:
        found: Any = importlib.import_module(first)
    except ModuleNotFoundError as e:
        return f"there is no module {first!r}" if e.name == first else ""
    except Exception:
        return ""
    path = first
    for part in rest:
        if not hasattr(found, part):
            try:
                importlib.import_module(f"{path}.{part}")
            except ModuleNotFoundError as e:
                near = difflib.get_close_matches(part, dir(found), n=1)
                known = f"; did you mean {near[0]}?" if near else ""
                return f"{path} has no {part!r}{known}" if e.name == f"{path}.{part}" else ""
            except Exception:
                return ""
        found, path = getattr(found, part), f"{path}.{part}"
    return ""


def check(key: str, node: State) -> None:
    """Check a node against the signature of what it names, and so the nodes in it."""
    if not isinstance(node, dict):
        raise UserError(f"{key}: must be {CLASS}, got {written(node)}{_meant(key, node)}")
    if "_target_" in node:
        arguments(key, named(key, node["_target_"]), node)
    for name, child in node.items():
        if isinstance(child, dict):
            check(f"{key}.{name}", child)
        for i, item in enumerate(child if isinstance(child, list) else []):
            if isinstance(item, dict):
                check(f"{key}.{name}[{i}]", item)


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
            taken = ", ".join(parameters) or "none"
            raise UserError(f"{key}.{name}: {target.__name__} takes no such argument; it takes {taken}")
        if name in hints and not _fits(value, hints[name]):
            wrong = f"{key}.{name}: must be {_in_words(hints[name])}, got {written(value)}"
            raise UserError(wrong + _meant(f"{key}.{name}", value))


def _meant(key: str, value: Any) -> str:
    """Return the option that was probably meant where network.torso=mlp was typed, or nothing."""
    parent = key.rpartition(".")[0]
    for group in (key.replace(".", "/"), parent):
        if group and str(value) in catalogue.options(group):
            return f"; did you mean {group}={value}?"
    return ""


def _fits(value: Any, hint: Any) -> bool:
    """Say whether a value is of an annotated type; of types that no configuration holds, nothing is known."""
    if isinstance(value, dict) and "_target_" in value:  # an object that is made later
        return True
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, h) for h in inner)
    if origin in (Sequence, list, tuple):
        return isinstance(value, list) and (not inner or all(_fits(v, inner[0]) for v in value))
    if origin in (Mapping, dict):
        return isinstance(value, dict)
    if origin in (int, float):
        return isinstance(value, (int, origin)) and not isinstance(value, bool) and value == value  # not nan
    if origin is Callable:  # no plain value is one
        return False
    return isinstance(value, origin) if origin in (bool, str, type(None)) else True


def _in_words(hint: Any) -> str:
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_in_words(h) for h in inner)
    if origin in (Sequence, list, tuple):
        return f"a list such as {LISTS[inner[0]]}" if inner and inner[0] in LISTS else "a list"
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a word",
        type(None): "null",
        Callable: CLASS,
    }
    return words.get(origin, "a group of keys" if origin in (Mapping, dict) else str(hint))


def require(key: str, made: Any, contract: Any, wanted: str = "") -> None:
    """Check that an object keeps a protocol: its attributes are there, its methods take as many arguments.

    Raises:
        UserError: the first one that is missing or different.
    """
    if not getattr(contract, "_is_protocol", False):
        if not isinstance(made, contract):
            raise UserError(f"{key}: must be a {contract.__name__}, got a {type(made).__name__}")
        return
    kind = type(made)

    def misfit(how: str) -> UserError:
        if wanted and kind.__module__.startswith("rl_runner."):  # an option of ours was chosen
            return UserError(f"{key}: {kind.__name__} does not fit this agent, which needs {wanted} or one like it")
        instead = f"; this agent needs {wanted}, or one like it" if wanted else ""
        where = f"{contract.__module__.replace('.', '/')}.py"
        return UserError(f"{key}: {kind.__name__} is no {contract.__name__} ({where}): {how}{instead}")

    for name, member in _members(contract).items():
        if not hasattr(made, name):
            raise misfit(f"it has no {name}")
        if not inspect.isfunction(member):
            continue
        parameters = list(inspect.signature(member).parameters.values())[1:]  # without self
        positional = [None for p in parameters if p.default is p.empty and p.kind is not p.KEYWORD_ONLY]
        try:
            inspect.signature(getattr(made, name)).bind(*positional)
        except TypeError:
            takes = ", ".join(p.name for p in parameters)
            raise misfit(f"its {name} must take ({takes})") from None
        except ValueError:  # some that are written in C have no signature
            pass


def _members(contract: type) -> dict[str, Any]:
    """Return the methods and attributes that a protocol and its bases name."""
    members: dict[str, Any] = {}
    for base in contract.__mro__:
        if not getattr(base, "_is_protocol", False):
            continue
        own = {n: v for n, v in vars(base).items() if not n.startswith("_") or n == "__call__"}
        members = {**dict.fromkeys(getattr(base, "__annotations__", {})), **own, **members}
    return members
