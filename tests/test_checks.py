"""What a stranger's run may not do, and values against signatures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rl_runner import checks
from rl_runner.types import UserError
from tests.commandline import files, refused, rlrun

TOUCH = "touch canary"
CODE = "open('canary', 'w')"
ATTACKS: dict[str, tuple[str, Any]] = {
    "os.system": ("value", {"_target_": "os.system", "command": TOUCH}),
    "posix.system": ("value", {"_target_": "posix.system", "command": TOUCH}),
    "subprocess": ("replay.sampler", {"_target_": "subprocess.Popen", "args": ["touch", "canary"]}),
    "subprocess in a list": ("env.kwargs", {"x": [{"_target_": "subprocess.run", "args": ["touch", "canary"]}]}),
    "eval": ("sync", {"_target_": "builtins.eval", "_args_": [CODE]}),
    "through a module of ours": ("value", {"_target_": "rl_runner.checks.os.system", "command": TOUCH}),
    "through a part of ours": ("network.torso._target_", "rl_runner.networks.torsos.np.load"),
    "through torch": ("optimizer._target_", "torch.optim.lr_scheduler.types.FunctionType"),
    "nested": ("env.kwargs", {"x": {"_target_": "os.system", "command": TOUCH}}),
    "our own command line": (
        "value",
        {"_target_": "rl_runner.cli.run", "args": ["train", "value._target_=os.system", f"+value.command={TOUCH}"]},
    ),
    "our own importer": ("sync", {"_target_": "rl_runner.envs.gym._import", "module": "evil"}),
    "our own importer at its place": ("env", {"_target_": "rl_runner.envs.gym._import", "module": "evil"}),
    "an environment in another place": (
        "value",
        {"_target_": "rl_runner.envs.gym.GymBackend", "id": "CartPole-v1", "imports": ["evil"]},
    ),
    "an environment in an environment": (
        "env.kwargs",
        {"x": {"_target_": "rl_runner.envs.gym.GymBackend", "id": "CartPole-v1", "imports": ["evil"]}},
    ),
    "our checkpoint writer": (
        "value",
        {"_target_": "rl_runner.checkpoint.save", "path": "canary", "state": {}, "about": {}},
    ),
    "imports": ("env.imports", ["evil"]),
    "imports as a group": ("env.imports", {"evil": 1}),
    "imports after ours": ("env.imports", ["rl_runner", "evil"]),
    "id": ("env.id", "evil:Mine-v0"),
    "arguments without names": ("env._args_", ["evil:Mine-v0"]),
    "an interpolated target": ("value", {"_target_": "${seed_of_evil}", "command": TOUCH}),
    "an escaped interpolation": ("env.kwargs", {"x": f"\\${{oc.create:{{_target_:os.system,command:{TOUCH}}}}}"}),
    "an escaped interpolation as a key": (
        "env.kwargs",
        {f"\\${{oc.create:{{_target_:os.system,command:{TOUCH}}}}}": 1},
    ),
    "a target that is no word": ("value", {"_target_": ["os.system"], "command": TOUCH}),
}


def change(run: Path, key: str, value: Any) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[last] = value
    config["seed_of_evil"] = "os.system"
    if key == "env._args_":
        del config["env"]["id"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_strangers_run_cannot_run_code(attack: str, trained: Path) -> None:
    Path("evil.py").write_text(CODE)
    change(trained, *ATTACKS[attack])
    line = refused("eval", str(trained), "episodes=1")
    assert line.startswith("rlrun: trust: this run's config.yaml ")
    for words in (["play", str(trained), "video=x.gif"], ["train", f"resume={trained}"]):
        assert refused(*words) == line
    assert "./canary" not in files()


def test_what_is_trusted_is_run(trained: Path) -> None:
    Path("good_pkg.py").write_text(CODE + "\nfrom rl_runner.networks.torsos import MLP as Net")
    change(trained, "network.torso._target_", "good_pkg.Net")
    assert "if you trust it: trust=[good_pkg]" in refused("eval", str(trained))
    assert "trust=[good_pkg]" in refused("eval", str(trained), "trust=[good]")
    done = rlrun("eval", str(trained), "trust=[good_pkg]", "episodes=1")
    assert done.code == 0, done
    assert "./canary" in files()


@pytest.mark.parametrize("target", ["torch.optim.Adam", "torch.optim.SGD", "torch.optim.RMSprop"])
def test_torch_optimizers_are_fine(target: str) -> None:
    checks.trusted({"optimizer": {"_target_": target}}, [])


def test_ours_are_fine_only_where_they_belong() -> None:
    checks.trusted({"network": {"torso": {"_target_": "rl_runner.networks.torsos.auto"}}}, [])
    checks.trusted({"env": {"_target_": "rl_runner.envs.gym.GymBackend", "id": "CartPole-v1", "imports": []}}, [])
    for group, target in [("optimizer", "rl_runner.sync.Hard"), ("mine", "rl_runner.sync.Hard"), ("sync", "Hard")]:
        with pytest.raises(UserError, match=r"trust=\["):
            checks.trusted({group: {"_target_": target}}, [])


# Values against signatures.


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
        {"unknown": object(), "_target_": 3},
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
    ],
)
def test_values_that_do_not_fit(node: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        checks.arguments("part", Part, node)


def test_functions_and_what_cannot_be_known() -> None:
    checks.arguments("f", function, {"group": {"a": 1}, "any_": 3, "call": "whatever"})
    with pytest.raises(UserError, match=r"f.group: a group of keys is wanted, got 3"):
        checks.arguments("f", function, {"group": 3})

    class Elsewhere:
        def __init__(self, n: "a name that is not here") -> None:  # type: ignore[name-defined]  # noqa: F722
            pass

    checks.arguments("part", Elsewhere, {"n": object()})
    checks.arguments("part", len, {"n": object()})


# Memory.


def test_replay_that_does_not_fit_is_refused_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "free_memory", lambda: 1_000_000_000)
    checks.memory_for_replay(100_000, (4, 84, 84), np.uint8, 4)  # 0.71 GB: each frame once
    with pytest.raises(UserError, match=r"1,000,000 rows take 7\.\d\d GB, but 1\.00 GB .* at most 113,") as e:
        checks.memory_for_replay(1_000_000, (4, 84, 84), np.uint8, 4)
    most = int(str(e.value).split("at most ")[1].split()[0].replace(",", ""))
    checks.memory_for_replay(most, (4, 84, 84), np.uint8, 4)
    with pytest.raises(UserError):
        checks.memory_for_replay(1_000_000, (1000,), np.float32, 1)
    monkeypatch.setattr(checks, "free_memory", lambda: None)
    checks.memory_for_replay(10**12, (4, 84, 84), np.uint8, 4)


def test_free_memory_is_a_number_or_unknown() -> None:
    free = checks.free_memory()
    assert free is None or 0 < free < 2**50
