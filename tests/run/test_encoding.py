"""State trees as JSON beside arrays."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_runner.run.encoding import LONGEST, decode, encode
from rl_runner.types import Array, UserError

KEYS = st.text(max_size=3) | st.sampled_from(["$array", "$items", "$tuple", "a/b", "1"]) | st.integers() | st.none()
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
TREES = st.recursive(
    LEAVES | st.integers(0, 9).map(np.arange),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Return whether two trees are equal, of equal kinds and in equal order."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(map(repr, a)) == list(map(repr, b)) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(np.array_equal(a, b)) if isinstance(a, np.ndarray) else a == b


@settings(deadline=None)
@given(TREES)
def test_a_tree_comes_back_as_it_was(tree: Any) -> None:
    arrays: dict[str, Array] = {}
    text = json.dumps(encode(tree, "agent", arrays))
    assert same(decode(json.loads(text), arrays), tree)


def test_the_json_of_each_kind_worked_out_by_hand() -> None:
    arrays: dict[str, Array] = {}
    tree = {"layers": [{"w": torch.ones(2)}, (1, None)], "$x": {2: "a"}, "n": np.float32(0.5), "ids": np.arange(3)}
    assert encode(tree, "agent", arrays) == {
        "$items": [
            ["layers", [{"w": {"$tensor": "agent/layers/0/w", "dtype": "float32"}}, {"$tuple": [1, None]}]],
            ["$x", {"$items": [[2, "a"]]}],
            ["n", 0.5],
            ["ids", {"$array": "agent/ids"}],
        ]
    }
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "agent/layers/0/w": [1, 1],
        "agent/ids": [0, 1, 2],
    }


def test_bfloat16_is_kept_by_its_bits() -> None:
    arrays: dict[str, Array] = {}
    values = torch.tensor([1.0, -0.0, math.pi, math.inf], dtype=torch.bfloat16)
    coded = encode(values, "w", arrays)
    assert arrays["w"].dtype == np.int16
    back = decode(coded, arrays)
    assert back.dtype == torch.bfloat16
    assert torch.equal(back.view(torch.int16), values.view(torch.int16))


def test_names_are_short_plain_and_never_given_twice() -> None:
    arrays: dict[str, Array] = {}
    encode({1: np.zeros(1), "1": np.ones(1), "é": np.zeros(1), "x" * 300: np.zeros(1)}, "a", arrays)
    assert list(arrays)[:3] == ["a/1", "a/1 2", "a/_"]
    assert max(map(len, arrays)) == LONGEST


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (
            {"a": {1}},
            "s/a: a state must hold dicts, lists, tensors, arrays, numbers, strings and None alone, got a set",
        ),
        ({"a": [np.array([None])]}, "s/a/0: a state must hold .*, got a ndarray"),
        ({(1, 2): 3}, "s: the keys of a state's dicts must be strings, numbers or None"),
    ],
)
def test_what_cannot_be_kept_is_named_by_its_path(bad: Any, says: str) -> None:
    with pytest.raises(UserError, match=f"^{says}"):
        encode(bad, "s", {})
