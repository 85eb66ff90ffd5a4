"""Fast copies of configurations, which Hydra changes when it gets them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, TypeVar, cast

from hydra._internal.config_repository import IConfigRepository
from hydra.plugins.config_source import ConfigResult

T = TypeVar("T")
Files = dict[str, Callable[[], ConfigResult]]  # makes copies of what was read, by path in the search path


def copier(original: T) -> Callable[[], T]:
    """Return what makes copies of an object as it is now."""
    try:
        data = pickle.dumps(original)  # faster than copy.deepcopy
    except pickle.PicklingError:  # a launcher's process may have a class of Hydra's twice: unpickled, and imported
        kept = copy.deepcopy(original)
        return lambda: copy.deepcopy(kept)
    return lambda: cast(T, pickle.loads(data))


class ReadOnce:
    """Configuration files that are read and parsed once. Each reader gets a copy, because Hydra changes what it gets.

    Args:
        repository: reads files.
        read: what was read before.
    """

    def __init__(self, repository: IConfigRepository, read: Files) -> None:
        self._repository, self._read = repository, read

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self._read:
            found = self._repository.load_config(config_path)
            if found is None:  # a program may register it later
                return None
            self._read[config_path] = copier(found)
        return self._read[config_path]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)
