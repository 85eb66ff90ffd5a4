"""Search spaces: the sweep grammar of Hydra as distributions of Optuna. Needs Optuna, so import it late."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from rl_runner.types import UserError, one_line

Space = Mapping[str, Any]  # key -> distribution, in the order of the command line


def of(overrides: Sequence[Override]) -> Space:
    """Return the space that is spanned by those overrides which have several values.

    Raises:
        UserError: an override cannot be searched.
    """
    return {key_of(override): _distribution(override) for override in overrides if override.is_sweep_override()}


def key_of(override: Override) -> str:
    """Return the key of an override as it was typed, such as `optimizer.lr` or `+env.kwargs.width`."""
    return (override.input_line or "").partition("=")[0]


def _distribution(override: Override) -> Any:
    sweep: Any = override.value()
    try:
        if unknown := sweep.tags - {"log"}:
            raise ValueError(f"the only tag is log, got {', '.join(sorted(unknown))}")
        log = "log" in sweep.tags
        if isinstance(sweep, ChoiceSweep):
            if log:
                raise ValueError("tag(log, ...) needs interval(...) or range(...)")
            return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
        return _interval(sweep, log) if isinstance(sweep, IntervalSweep) else _range(sweep, log)
    except ValueError as e:
        raise UserError(f"{override.input_line}: {one_line(e)}") from e


def _interval(sweep: IntervalSweep, log: bool) -> Any:
    low, high = sweep.start, sweep.end
    if low is None or high is None or not low < high or (log and low <= 0):
        raise ValueError(f"an interval needs {'0 < ' if log else ''}low < high")
    if isinstance(low, int) and isinstance(high, int):  # int(interval(...)), both ends included
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _range(sweep: RangeSweep, log: bool) -> Any:
    values = list(sweep.range())  # the end is excluded, as everywhere in Hydra
    if not values:
        raise ValueError("the range is empty")
    whole = all(isinstance(value, int) for value in values)
    if log and not (whole and sweep.step == 1 and values[0] > 0):
        raise ValueError("tag(log, range(...)) needs positive whole numbers and step 1; or use tag(log, interval(...))")
    step: Any = abs(sweep.step) if len(values) > 1 else None
    if whole:
        return IntDistribution(int(min(values)), int(max(values)), log=log, step=step or 1)
    return FloatDistribution(min(values), max(values), step=step)


def grid(space: Space) -> list[dict[str, Any]]:
    """Return all points of a space; the last key changes fastest.

    Raises:
        UserError: a key has no finite number of values.
    """
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*map(_values, space, space.values()))]


def _values(key: str, distribution: Any) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if distribution.step is None or distribution.log:
        raise UserError(f"{key}: hydra.sweeper.sampler=grid needs choice(...) or range(...), which have a last value")
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + i * distribution.step for i in range(count)]


def suggest(trial: Any, space: Space) -> dict[str, Any]:
    """Return the values of a trial, drawn by its study's sampler unless they have been drawn before."""
    return {key: _suggested(trial, key, distribution) for key, distribution in space.items()}


def _suggested(trial: Any, key: str, distribution: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    suggested = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    return suggested(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
