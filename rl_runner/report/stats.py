"""Statistics over runs and episodes.

Those of Agarwal et al. 2021 (https://arxiv.org/abs/2108.13264) take one array for each environment, with one score for
each run in its last dimension. The dimensions before it are those of resamples, all computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import nctdtrinc, stdtrit

Array = npt.NDArray[Any]
Strata = Sequence[Array]  # of each environment the scores of its runs, (..., runs)
Statistic = Callable[[Strata], Array]
BAND_RUNS = 5  # a bootstrap interval of fewer runs is little else than their range
LEAST_RUNS = 3  # for an interval in a table: of two runs it would say nothing
RESAMPLES = 2000
TRIMMED = 0.25  # of the scores, at each end, that the interquartile mean leaves out
POWER = 0.8  # the chance to find the smallest difference that is called detectable


class Estimate(NamedTuple):
    """A number and, where there are enough runs, its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None


# Of the mean over runs.


def mean_and_ci(values: Sequence[Any]) -> tuple[Array, Array]:
    """Return the mean over runs, and half the width of its 95 % confidence interval (0 for one run)."""
    stacked, n = np.stack([np.asarray(v, dtype=float) for v in values]), len(values)
    if n == 1:
        return stacked[0], np.zeros_like(stacked[0])
    return stacked.mean(axis=0), t_quantile(n - 1) * stacked.std(axis=0, ddof=1) / np.sqrt(n)


def mean_and_band(values: Sequence[Any]) -> tuple[Array, Array, Array]:
    """Return the mean over runs, and the lower and the upper edge of the band to draw about it.

    From BAND_RUNS runs on the band is the mean's 95 % bootstrap interval. For fewer runs it is their range.
    """
    stacked, n = np.stack([np.asarray(v, dtype=float) for v in values]), len(values)
    mean = stacked.mean(axis=0)
    if n < BAND_RUNS:
        return mean, stacked.min(axis=0), stacked.max(axis=0)
    drawn = np.random.default_rng(0).multinomial(n, [1 / n] * n, size=RESAMPLES)  # how often each run is drawn
    low, high = np.quantile(np.tensordot(drawn / n, stacked, axes=1), (0.025, 0.975), axis=0)
    return mean, low, high


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t with so many degrees of freedom."""
    return float(stdtrit(freedom, 0.975))


def detectable_difference(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return the difference of two means that a t-test finds in 80 % of experiments with these seeds and this spread.

    The test is two-sided at 5 %, and both groups have the same variance.

    Returns:
        None where a group has fewer than two runs.
    """
    freedom = len(a) + len(b) - 2
    if min(len(a), len(b)) < 2:
        return None
    squares = sum((len(x) - 1) * np.var(x, ddof=1) for x in (a, b))
    error = np.sqrt(squares / freedom * (1 / len(a) + 1 / len(b)))
    return float(nctdtrinc(freedom, 1 - POWER, t_quantile(freedom)) * error)


# Of Agarwal et al. 2021.


def iqm(scores: Strata) -> Array:
    """Return the interquartile mean: the mean of the scores, of all environments, without a quarter at each end."""
    ordered = np.sort(np.concatenate(scores, axis=-1), axis=-1)
    n = ordered.shape[-1]
    cut = int(TRIMMED * n)
    inner: Array = ordered[..., cut : n - cut].mean(axis=-1)
    return inner


def mean(scores: Strata) -> Array:
    """Return the mean over environments of the means over runs."""
    return np.asarray(np.mean([s.mean(axis=-1) for s in scores], axis=0))


def median(scores: Strata) -> Array:
    """Return the median over environments of the means over runs."""
    return np.asarray(np.median([s.mean(axis=-1) for s in scores], axis=0))


def improvement(x: Strata, y: Strata) -> Array:
    """Return the probability that a run of `x` scores higher than one of `y`, mean over environments; a tie is half."""
    each = [
        np.mean((a[..., :, None] > b[..., None, :]) + 0.5 * (a[..., :, None] == b[..., None, :]), axis=(-2, -1))
        for a, b in zip(x, y, strict=True)
    ]
    return np.asarray(np.mean(each, axis=0))


def profile(scores: Strata, thresholds: Array) -> Array:
    """Return the share of runs that score above each threshold, mean over environments: (..., thresholds)."""
    return np.asarray(np.mean([(s[..., None, :] > thresholds[:, None]).mean(axis=-1) for s in scores], axis=0))


def bootstrap(statistic: Statistic, scores: Strata, resamples: int = RESAMPLES, seed: int = 0) -> tuple[Array, Array]:
    """Return the 95 % bootstrap interval of a statistic by percentiles, stratified: runs are drawn by environment.

    Args:
        statistic: of the scores.
        scores: of each environment those of its runs, (runs,).
        resamples: how often as many runs are drawn as there are, with replacement.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    drawn = [np.asarray(s)[rng.integers(len(s), size=(resamples, len(s)))] for s in scores]
    low, high = np.quantile(statistic(drawn), (0.025, 0.975), axis=0)
    return low, high


def estimate(statistic: Statistic, scores: Strata, resamples: int = RESAMPLES) -> Estimate:
    """Return a statistic with its interval.

    Without one if `resamples` is 0, or an environment has fewer than LEAST_RUNS runs.
    """
    value = float(statistic(scores))
    if not resamples or min(map(len, scores)) < LEAST_RUNS:
        return Estimate(value)
    low, high = bootstrap(statistic, scores, resamples)
    return Estimate(value, float(low), float(high))
