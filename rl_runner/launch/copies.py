"""Fast copies of configurations, which Hydra changes when it gets them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import TypeVar, cast

T = TypeVar("T")


def copier(original: T) -> Callable[[], T]:
    """Return what makes copies of an object as it is now."""
    try:
        data = pickle.dumps(original)  # faster than copy.deepcopy
    except pickle.PicklingError:  # a launcher's process may have a class of Hydra's twice: unpickled, and imported
        kept = copy.deepcopy(original)
        return lambda: copy.deepcopy(kept)
    return lambda: cast(T, pickle.loads(data))
