"""Copies that are their own, whether the original can be pickled or not."""

import pickle

import pytest

from rl_runner.launch.copies import copier


class Twice:
    """A class that is there twice, as those of Hydra's plugins in a launcher's process."""


Unpicklable, Twice = Twice, type("Twice", (), {})  # type: ignore[misc]


@pytest.mark.parametrize("inside", [[1], Unpicklable()], ids=["pickled", "not"])
def test_copies(inside: object) -> None:
    if not isinstance(inside, list):
        with pytest.raises(pickle.PicklingError):
            pickle.dumps(inside)
    original = {"list": [1], "inside": inside}
    copied = copier(original)
    original["list"] = [2]
    first, second = copied(), copied()
    assert first["list"] == second["list"] == [1]
    assert first["list"] is not second["list"]
    assert type(first["inside"]) is type(inside)
