"""Whatever an environment draws becomes a frame (H, W, 3) uint8, or is refused."""

from typing import Any

import numpy as np
import pytest

from rl_runner.screen.frames import NoPicture, as_rgb, enlargement
from rl_runner.types import Array

COLOUR = [[[0, 128, 255], [1, 2, 3]]]  # (1, 2, 3)
GRAY = [[0, 7, 255]]  # (1, 3)
AS_COLOUR = [[[0, 0, 0], [7, 7, 7], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (np.array(COLOUR, np.uint8), COLOUR),
        (np.array(COLOUR, np.int64), COLOUR),
        (np.array(COLOUR, np.int32), COLOUR),
        (np.array(COLOUR, np.uint16), COLOUR),
        (np.array(COLOUR, np.float32), COLOUR),  # 0 to 255
        (np.array([[[0.0, 127.6, 254.4]]]), [[[0, 128, 254]]]),  # rounded
        (np.array([[[0.0, 0.5, 1.0]]]), [[[0, 128, 255]]]),  # 0 to 1: 127.5 is rounded to the even 128
        (np.array([[[0.2, 0.1, 0.0]]], np.float16), [[[51, 25, 0]]]),  # 0.1 as float16 is 0.09998: 25.49
        (np.array([[[-1e-7, 0.4, 1.0000001]]]), [[[0, 102, 255]]]),
        (np.array([[[-1e-7, 100.0, 255.0000001]]]), [[[0, 100, 255]]]),
        (np.zeros((1, 1, 3)), [[[0, 0, 0]]]),
        (np.array(GRAY, np.uint8), AS_COLOUR),
        (np.array(GRAY, np.int64)[..., None], AS_COLOUR),
        (np.array([[False, True]]), [[[0, 0, 0], [255, 255, 255]]]),
        (np.array([[[1, 2, 3, 0], [4, 5, 6, 255]]], np.uint8), [[[1, 2, 3], [4, 5, 6]]]),
        (np.array([[[0.2, 0.4, 0.6, 1.0]]]), [[[51, 102, 153]]]),
        (np.array(GRAY, np.dtype(">i4")), AS_COLOUR),
    ],
)
def test_pictures_of_any_type(frame: Array, expected: list[list[list[int]]]) -> None:
    before = frame.copy()
    made = as_rgb(frame)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (None, "None"),
        (np.asarray(None), "None"),
        ([np.zeros((4, 4, 3), np.uint8)] * 5, "a list of 5"),
        (np.zeros((5, 4, 4, 3), np.uint8), r"shape \(5, 4, 4, 3\) and type uint8"),
        (np.zeros((3, 40, 60), np.uint8), r"shape \(3, 40, 60\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros(12), r"shape \(12,\)"),
        ("a word", "type <U6"),
        (np.full((2, 2), 256), "values from 256 to 256 as int64"),
        (np.full((2, 2, 3), -1), "values from -1 to -1"),
        (np.full((2, 2, 3), -0.5), "values from -0.5"),
        (np.full((2, 2, 3), np.nan), "values from nan"),
        (np.full((2, 2, 3), np.inf), "values from inf"),
    ],
)
def test_what_is_no_picture_is_said(frame: Any, said: str) -> None:
    with pytest.raises(NoPicture, match=said):
        as_rgb(frame)


def test_enlargement_is_whole_and_at_least_one() -> None:
    assert enlargement((210, 160, 3), (640, 640)) == 3
    assert enlargement((210, 160, 3), (640, 300)) == 1
    assert enlargement((1000, 1000, 3), (640, 640)) == 1
