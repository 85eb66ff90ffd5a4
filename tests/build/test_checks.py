"""Values against ranges, types and memory."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from rl_runner import memory
from rl_runner.build import checks
from rl_runner.types import UserError


class Part:
    def __init__(
        self, n: int, x: float | None = None, b: bool = True, s: str = "", *, many: Sequence[int] = ()
    ) -> None:
        pass


def function(group: Mapping[str, int], any_: Any, call: Callable[[int], int]) -> None:
    pass


@pytest.mark.parametrize(
    "node",
    [
        {"n": 1, "x": 1, "b": False, "s": "a", "many": [1]},
        {"x": 1.5},
        {"x": None, "many": []},
        {"_target_": 3, "_partial_": True},
        {"n": {"_target_": "made later"}},
    ],
)
def test_values_that_fit(node: dict[str, Any]) -> None:
    checks.arguments("part", Part, node)


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"n": 1.0}, "part.n: a whole number is wanted, got 1.0"),
        ({"n": True}, "part.n: a whole number is wanted, got True"),
        ({"n": None}, "part.n: a whole number is wanted, got None"),
        ({"x": "1"}, "part.x: a number or null is wanted, got '1'"),
        ({"b": 1}, "part.b: true or false is wanted, got 1"),
        ({"s": 1}, "part.s: a word is wanted, got 1"),
        ({"many": 3}, r"part.many: a list \[a whole number, ...\] is wanted, got 3"),
        ({"many": ["a"]}, "part.many: "),
        ({"many": "abc"}, "part.many: "),
        ({"unknown": 1}, "part.unknown: Part takes no such argument; it takes n, x, b, s, many"),
    ],
)
def test_values_that_do_not_fit(node: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        checks.arguments("part", Part, node)


def test_functions_and_what_cannot_be_known() -> None:
    checks.arguments("f", function, {"group": {"a": 1}, "any_": 3, "call": "whatever"})
    with pytest.raises(UserError, match=r"f.group: a group of keys is wanted, got 3"):
        checks.arguments("f", function, {"group": 3})

    def open_ended(**more: int) -> None:
        pass

    checks.arguments("f", open_ended, {"unknown": object()})

    class Elsewhere:
        def __init__(self, n: "a name that is not here") -> None:  # type: ignore[name-defined]  # noqa: F722
            pass

    checks.arguments("part", Elsewhere, {"n": object()})
    checks.arguments("part", len, {"obj": object()})


# Memory.


def test_replay_that_does_not_fit_is_refused_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 1_000_000_000)
    checks.memory_for_replay(100_000, 7_074)  # 0.71 GB
    with pytest.raises(UserError, match=r"1,000,000 rows take 7\.\d\d GB, but 1\.00 GB .* at most 113,") as e:
        checks.memory_for_replay(1_000_000, 7_074)
    most = int(str(e.value).split("at most ")[1].split()[0].replace(",", ""))
    checks.memory_for_replay(most, 7_074)
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    checks.memory_for_replay(10**12, 7_074)
