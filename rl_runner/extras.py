"""Packages that are not always there: those of the extras in pyproject.toml."""

from __future__ import annotations

import importlib
from typing import Any

from rl_runner.types import UserError


def package(name: str, extra: str, wanted_by: str) -> Any:
    """Import a package of an extra.

    Raises:
        UserError: it is missing; the line begins with `wanted_by`.
    """
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise UserError(f"{wanted_by}: {missing(name, extra)}") from e


def missing(name: str, extra: str) -> str:
    """Return what is said where a package of an extra is missing."""
    return f"needs {name}, which is not installed: pip install 'rlrun[{extra}]'"
