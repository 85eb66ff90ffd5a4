"""Configuration nodes become objects; what is wrong with them is said by signatures and contracts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import pytest
import torch

from rl_runner.build.signatures import arguments, factory, make, part
from rl_runner.exploration import Greedy
from rl_runner.types import Exploration, UserError

A_CLASS = "must be a class or function (_target_) with its arguments"


def test_wrong_parts_are_named() -> None:
    wrong: dict[str, dict[str, Any]] = {
        "part._target_: .*nowhere": {"_target_": "nowhere.Net"},
        "part._target_: ": {"_target_": "rl_runner.sync.Harder"},
        "part.every_steps: must be a whole number or null": {"_target_": "rl_runner.sync.Hard", "every_steps": "often"},
        "sync.every_steps: must be at least 1": {"_target_": "rl_runner.sync.Hard", "every_steps": 0},
        "part.every_day: Hard takes no such argument; it takes every_updates, every_steps, every_episodes": {
            "_target_": "rl_runner.sync.Hard",
            "every_day": 1,
        },
        "part.every_updates: NoTarget takes no such argument; it takes none": {
            "_target_": "rl_runner.sync.NoTarget",
            "every_updates": 500,
        },
        "part: .*'tau'": {"_target_": "rl_runner.sync.Soft"},
        "part.head.tau: must be a number": {
            "_target_": "rl_runner.networks.qnetwork.QNetwork",
            "head": {"_target_": "rl_runner.sync.Soft", "tau": "a"},
        },
        "part.torso: must be a class or function .*, got null": {
            "_target_": "rl_runner.networks.qnetwork.QNetwork",
            "torso": None,
        },
    }
    for says, node in wrong.items():
        with pytest.raises(UserError, match=says):
            make("part", node)


@pytest.mark.parametrize(
    ("key", "node", "says"),
    [
        ("network", {"torso": "mlp"}, f"network.torso: {A_CLASS}, got 'mlp'; did you mean network/torso=mlp?"),
        ("network", {"head": "dueling"}, f"network.head: {A_CLASS}, got 'dueling'; did you mean network=dueling?"),
        ("network", {"head": "mine"}, f"network.head: {A_CLASS}, got 'mine'"),
        ("network", {"torso": {"sizes": [3]}}, f"network.torso: {A_CLASS}, got "),
        ("replay.sampler", "prioritized", f"replay.sampler: {A_CLASS}, got 'prioritized'; did you mean replay=prior"),
    ],
)
def test_a_word_where_a_class_belongs(key: str, node: Any, says: str) -> None:
    whole = {"_target_": "rl_runner.networks.qnetwork.QNetwork", **node} if isinstance(node, dict) else node
    with pytest.raises(UserError) as refused:
        make(key, whole)
    assert str(refused.value).startswith(says)


def test_facts_are_passed_on() -> None:
    space = gym.spaces.Box(-1, 1, (3,))
    torso = make("part", {"_target_": "rl_runner.networks.torsos.MLP", "sizes": [5, 4]}, space)
    assert torso(torch.zeros(2, 3)).shape == (2, 5)


class Speaks(Protocol):
    loud: bool

    def say(self, what: str, times: int) -> str: ...


class Speaker:
    loud = True

    def say(self, what: str, times: int, end: str = ".") -> str:
        return what * times + end


class Silent:
    loud = False


class Curt:
    loud = True

    def say(self, what: str) -> str:
        return what


class Breaks:
    def __init__(self) -> None:
        raise TypeError("my own mistake")


def node(name: str, **values: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.{name}", **values}


def test_an_object_must_keep_its_contract() -> None:
    assert part("part", node("Speaker"), Speaks).say("a", 2) == "aa."
    with pytest.raises(UserError, match=r"^part: Silent is no Speaks \(tests/.*signatures.py\): it has no say$"):
        part("part", node("Silent"), Speaks)
    with pytest.raises(UserError, match=r"^part: Curt is no Speaks .*: its say must take \(what, times\)$"):
        part("part", node("Curt"), Speaks)
    assert isinstance(part("part", {"_target_": "rl_runner.exploration.Greedy"}, Exploration), Greedy)


class WithoutMetrics:
    def __call__(self, q: Any, step: int, rng: np.random.Generator) -> Any:
        return q.argmax(axis=1)


def test_a_rule_without_metrics_is_refused_when_it_is_built() -> None:
    with pytest.raises(UserError, match=r"exploration: WithoutMetrics is no Exploration .*: it has no metrics"):
        part("exploration", node("WithoutMetrics"), Exploration)


class MakesSpeaker(Protocol):
    def __call__(self, *, size: int) -> Speaks: ...


class Named(Speaker):
    def __init__(self, name: str = "") -> None: ...


class Outer:
    def __init__(self, inner: Callable[[], object]) -> None:
        self.inner = inner()


class Sized(Speaker):
    def __init__(self, size: int, more: int = 0) -> None:
        self.sizes = (size, more)


def test_a_factory_hands_over_facts_of_the_run_and_checks_what_comes_out() -> None:
    made: Any = factory("part", node("Sized", more=3), MakesSpeaker)(size=4)
    assert made.sizes == (4, 3)
    with pytest.raises(UserError, match=r"^part: .*unexpected keyword argument 'size'"):
        factory("part", node("Named"), MakesSpeaker)(size=4)


def test_a_class_in_another_one_that_misses_an_argument_is_named_by_its_own_key() -> None:
    with pytest.raises(UserError, match=r"^part\.inner: Sized\.__init__\(\) missing 1 required .* 'size'$"):
        make("part", node("Outer", inner={**node("Sized"), "_partial_": True}))


def test_somebody_elses_bug_keeps_its_traceback() -> None:
    with pytest.raises(TypeError, match="my own mistake"):
        make("part", node("Breaks"))


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
    arguments("part", Part, node)


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"n": 1.0}, "part.n: must be a whole number, got 1.0"),
        ({"n": True}, "part.n: must be a whole number, got true"),
        ({"n": None}, "part.n: must be a whole number, got null"),
        ({"x": "1"}, "part.x: must be a number or null, got '1'"),
        ({"b": 1}, "part.b: must be true or false, got 1"),
        ({"s": 1}, "part.s: must be a word, got 1"),
        ({"many": 3}, r"part.many: must be a list such as \[64, 64\], got 3"),
        ({"many": ["a"]}, "part.many: "),
        ({"many": "abc"}, "part.many: "),
        ({"unknown": 1}, "part.unknown: Part takes no such argument; it takes n, x, b, s, many"),
    ],
)
def test_values_that_do_not_fit(node: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        arguments("part", Part, node)


def test_functions_and_what_cannot_be_known() -> None:
    arguments("f", function, {"group": {"a": 1}, "any_": 3, "call": {"_target_": "made later"}})
    with pytest.raises(UserError, match=r"f.group: must be a group of keys, got 3"):
        arguments("f", function, {"group": 3})

    def open_ended(**more: int) -> None:
        pass

    arguments("f", open_ended, {"unknown": object()})

    class Elsewhere:
        def __init__(self, n: "a name that is not here") -> None:  # type: ignore[name-defined]  # noqa: F722
            pass

    arguments("part", Elsewhere, {"n": object()})
    arguments("part", len, {"obj": object()})
