"""Frames to show."""

import numpy as np

from rl_runner.types import Array


def flat(n: int, height: int, width: int) -> list[Array]:
    """Frames of two colours, with a bar that grows from frame to frame."""
    frames = np.full((n, height, width, 3), (144, 72, 17), dtype=np.uint8)
    for i, frame in enumerate(frames):
        frame[: height // 2, : 1 + i * (width - 1) // n] = (92, 186, 92)
    return list(frames)
