"""Statistics over runs and episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# Student's t, 97.5 % quantile, for 1 to 30 degrees of freedom.
T = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131]
T += [2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042]


def mean_and_ci(values: Sequence[Any]) -> tuple[Array, Array]:
    """Return the mean over runs, and half the width of its 95 % confidence interval (0 for one run)."""
    stacked, n = np.stack([np.asarray(v, dtype=float) for v in values]), len(values)
    if n == 1:
        return stacked[0], np.zeros_like(stacked[0])
    return stacked.mean(axis=0), t_quantile(n - 1) * stacked.std(axis=0, ddof=1) / np.sqrt(n)


def t_quantile(freedom: int) -> float:
    """Return Student's t, 97.5 % quantile: from the table, then by its expansion about the normal quantile."""
    if freedom <= len(T):
        return T[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
