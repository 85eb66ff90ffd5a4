"""Conversion of rendered pictures to frames (H, W, 3) uint8."""

from __future__ import annotations

from typing import Any

import numpy as np

from rl_runner.types import Array

PICTURE = "an array (H, W, 3), (H, W) or (H, W, 4), of integers from 0 to 255 or floats from 0 to 1"


class NoPicture(Exception):
    """Raised for a rendered value that is not a picture. The message describes the value."""


def as_rgb(frame: Any) -> Array:
    """Return a picture as (H, W, 3) uint8.

    Args:
        frame: (H, W, 3), gray as (H, W) or (H, W, 1), or (H, W, 4), whose alpha channel is dropped. Integers are from
            0 to 255. Floats are from 0 to 1 if no value of the frame is larger, else from 0 to 255; they are rounded.

    Raises:
        NoPicture: the shape or type is another, or a value is out of range.
    """
    if frame is None or isinstance(frame, (list, tuple)):
        raise NoPicture("None" if frame is None else f"a {type(frame).__name__} of {len(frame)}")
    picture = np.asarray(frame)
    if picture.dtype == object and picture.ndim == 0:  # np.asarray of something that is not an array
        raise NoPicture("None" if picture.item() is None else type(picture.item()).__name__)
    gray = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 1)
    colour = picture.ndim == 3 and picture.shape[2] in (3, 4)
    if not (gray or colour) or not picture.size or picture.dtype.kind not in "biuf":
        raise NoPicture(f"an array of shape {picture.shape} and type {picture.dtype}")
    picture = _as_bytes(picture)
    return picture[:, :, :3] if colour else np.repeat(picture.reshape(*picture.shape[:2], 1), 3, axis=2)


def _as_bytes(picture: Array) -> Array:
    """Return numbers of any type as uint8."""
    if picture.dtype == np.uint8:
        return picture
    if picture.dtype.kind == "b":
        return picture.astype(np.uint8) * np.uint8(255)
    low, high = float(picture.min()), float(picture.max())
    slack = 1e-3 if picture.dtype.kind == "f" else 0.0  # rounding errors
    if not (low >= -slack and high <= 255 + slack):  # also true for NaN
        raise NoPicture(f"values from {low:g} to {high:g} as {picture.dtype}")
    if picture.dtype.kind == "f":
        scale = 255.0 if high <= 1 + slack else 1.0
        picture = np.rint(np.clip(picture.astype(np.float64) * scale, 0, 255))
    return picture.astype(np.uint8)


def enlargement(shape: tuple[int, ...], room: tuple[int, int]) -> int:
    """Return the largest whole factor (at least 1) by which a frame (H, W, ...) still fits into room (H, W)."""
    return max(min(room[0] // shape[0], room[1] // shape[1]), 1)
