"""Statistics over runs and episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Array = npt.NDArray[Any]
BAND_RUNS = 5  # the confidence interval of fewer runs is so wide that it says nothing


def mean_and_ci(values: Sequence[Any]) -> tuple[Array, Array]:
    """Return the mean over runs, and half the width of its 95 % confidence interval (0 for one run)."""
    stacked, n = np.stack([np.asarray(v, dtype=float) for v in values]), len(values)
    if n == 1:
        return stacked[0], np.zeros_like(stacked[0])
    return stacked.mean(axis=0), t_quantile(n - 1) * stacked.std(axis=0, ddof=1) / np.sqrt(n)


def mean_and_band(values: Sequence[Any]) -> tuple[Array, Array, Array]:
    """Return the mean over runs, and the lower and the upper edge of the band to draw about it.

    From BAND_RUNS runs on the band is the mean's 95 % confidence interval, cut to the range of the runs. For fewer runs
    it is that range.
    """
    mean, half = mean_and_ci(values)
    lowest, highest = np.min(np.stack(values), axis=0), np.max(np.stack(values), axis=0)
    if len(values) < BAND_RUNS:
        return mean, lowest, highest
    return mean, np.maximum(mean - half, lowest), np.minimum(mean + half, highest)


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t with so many degrees of freedom."""
    return float(stdtrit(freedom, 0.975))
