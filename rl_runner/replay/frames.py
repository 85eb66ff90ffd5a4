"""The frames of a replay memory, in the host's memory or in the device's, where batches are gathered then.

Both hold the same numbers at the same positions and are saved alike: a resumed run may keep its frames in the other.
"""

from __future__ import annotations

import math
import mmap
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rl_runner.compute import on_device
from rl_runner.types import Array, BoolArray, IntArray

BLOCK = 1000  # rows
NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python names it from 3.13 on; the number is Linux's


class HostFrames:
    """Frames (rows, N, *frame) in the host's memory. Rows that were never written take no memory.

    Args:
        shape: (rows, N, *frame).
        dtype: of a frame's numbers.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._array = _zeros(shape, dtype)
        self.shape, self.dtype, self.nbytes = shape, self._array.dtype, self._array.nbytes

    def put(self, row: IntArray, env: IntArray, frames: Array) -> None:
        """Write frames (K, *frame) to rows (K,) of environments (K,)."""
        self._array[row, env] = frames

    def take(self, row: IntArray, env: IntArray) -> Array:
        """Copy frames (..., *frame) from rows (...) of environments (...)."""
        return np.asarray(self._array[row, env])

    def take_stacks(self, row: IntArray, env: IntArray, blank: BoolArray) -> Array:
        """Copy frames (B, stack, *frame) from rows (B, stack), zeros where `blank` (B, stack)."""
        out = self.take(row, env)
        out[blank] = 0
        return out

    def first(self, rows: int) -> Array:
        """Return the first rows, as a view if they are on the host."""
        return self._array[:rows]

    def load(self, saved: Array) -> None:
        """Restore the first rows."""
        self._array[: len(saved)] = saved


class DeviceFrames:
    """The same in the memory of a GPU. `take` returns tensors there; only row numbers are transferred.

    Args:
        shape: (rows, N, *frame).
        dtype: of a frame's numbers.
        device: of the frames.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike, device: torch.device) -> None:
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        self._tensor = torch.zeros((shape[0] * shape[1], *shape[2:]), dtype=kind, device=device)  # (rows N, *frame)
        self.shape, self.dtype, self.nbytes = shape, np.dtype(dtype), self._tensor.nbytes

    def put(self, row: IntArray, env: IntArray, frames: Array) -> None:
        """See `HostFrames`."""
        self._tensor.index_copy_(0, self._index(row, env), self._moved(np.ascontiguousarray(frames)))

    def take(self, row: IntArray, env: IntArray) -> Tensor:
        """See `HostFrames`."""
        index = self._index(row, env)
        return self._tensor.index_select(0, index.flatten()).reshape(*index.shape, *self.shape[2:])

    def take_stacks(self, row: IntArray, env: IntArray, blank: BoolArray) -> Tensor:
        """See `HostFrames`."""
        out = self.take(row, env)
        mask = self._moved(blank).reshape(*blank.shape, *[1] * (out.dim() - blank.ndim))
        return out.masked_fill_(mask, 0)

    def first(self, rows: int) -> Array:
        """See `HostFrames`."""
        flat: Array = self._tensor[: rows * self.shape[1]].cpu().numpy()
        return flat.reshape(rows, *self.shape[1:])

    def load(self, saved: Array) -> None:
        """See `HostFrames`."""
        for start in range(0, len(saved), BLOCK):  # in blocks, because the device may have little free memory
            block = np.array(saved[start : start + BLOCK])
            first = start * self.shape[1]
            self._tensor[first : first + len(block) * self.shape[1]] = self._moved(block).flatten(0, 1)

    def _index(self, row: IntArray, env: IntArray) -> Tensor:
        return self._moved(row * self.shape[1] + env)

    def _moved(self, array: npt.NDArray[Any]) -> Tensor:
        return on_device(array, self._tensor.device)


def _zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Return zeros that take memory only where they are written.

    Linux refuses an array that is larger than the whole memory, even so. Then it is asked not to reserve the memory.

    Raises:
        MemoryError: it is still refused.
    """
    try:
        return np.zeros(shape, dtype)
    except MemoryError:
        if sys.platform != "linux":
            raise
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)
    except OSError as e:
        raise MemoryError(str(e)) from e
    return np.frombuffer(pages, dtype).reshape(shape)
