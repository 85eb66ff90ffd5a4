"""A stranger's run cannot run code: what its configuration names is looked at before anything is built."""

import contextlib
import importlib
import inspect
import pkgutil
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rl_runner.build import trust
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
    "through a module of ours": ("value", {"_target_": "rl_runner.build.checks.os.system", "command": TOUCH}),
    "through a part of ours": ("network.torso._target_", "rl_runner.networks.torsos.np.load"),
    "through torch": ("optimizer._target_", "torch.optim.lr_scheduler.types.FunctionType"),
    "nested": ("env.kwargs", {"x": {"_target_": "os.system", "command": TOUCH}}),
    "our own command line": (
        "value",
        {
            "_target_": "rl_runner.cli.main.run",
            "args": ["train", "value._target_=os.system", f"+value.command={TOUCH}"],
        },
    ),
    "our own importer": ("sync", {"_target_": "rl_runner.envs.gym._import", "module": "evil"}),
    "our own importer at its place": ("env", {"_target_": "rl_runner.envs.gym._import", "module": "evil"}),
    "our maker of environments": ("env", {"_target_": "rl_runner.envs.making.make_env", "id": "evil:Mine-v0"}),
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
        {"_target_": "rl_runner.run.checkpoint.save", "path": "canary", "state": {}, "about": {}},
    ),
    "imports": ("env.imports", ["evil"]),
    "imports as a group": ("env.imports", {"evil": 1}),
    "imports after ours": ("env.imports", ["rl_runner", "evil"]),
    "imports that call": ("env.imports", ["evil:register"]),
    "a wrapper": ("env.wrappers", [{"_target_": "evil.Wrapper"}]),
    "in a wrapper": (
        "env.wrappers",
        [{"_target_": "gymnasium.wrappers.TransformReward", "func": {"_target_": "os.system", "command": TOUCH}}],
    ),
    "a wrapper that writes files": (
        "env.wrappers",
        [{"_target_": "gymnasium.wrappers.RecordVideo", "video_folder": "canary"}],
    ),
    "through gymnasium": ("env.wrappers", [{"_target_": "gymnasium.wrappers.importlib.import_module", "name": "evil"}]),
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


@pytest.mark.parametrize(
    ("trusted", "covered"),
    [
        (["pkg"], True),
        (["pkg.sub"], True),
        (["pkg.sub.module"], True),
        (["other", "pkg.sub.module"], True),
        (["pkg.sub.module.Part"], False),
        (["pkg.sub.mod"], False),
        (["pkg.su"], False),
        (["pkg.sub.modules"], False),
        (["pkg.other"], False),
        (["sub.module"], False),
        (["pk"], False),
        (["pkg."], False),
        ([""], False),
        ([], False),
    ],
)
@pytest.mark.parametrize(
    "env",
    [
        {"imports": ["pkg.sub.module"]},
        {"imports": ["pkg.sub.module:register"]},
        {"id": "pkg.sub.module:Mine-v0"},
        {"kwargs": {"x": {"_target_": "pkg.sub.module.part"}}},
    ],
)
def test_a_trusted_name_covers_itself_and_what_is_below_it(
    trusted: list[str], covered: bool, env: dict[str, Any]
) -> None:
    if covered:
        trust.check({"env": env}, trusted)
    else:
        with pytest.raises(UserError, match=r"names code outside rlrun: pkg\.sub\.module.*trust=\[pkg\]$"):
            trust.check({"env": env}, trusted)


def test_all_that_has_to_be_trusted_is_said_at_once() -> None:
    cfg = {"env": {"imports": ["a.b", "a.c", "d.e"]}, "value": {"_target_": "f.G"}}
    with pytest.raises(UserError, match=r"rlrun: f\.G, a\.c, d\.e; if you trust it: trust=\[a\.b,f,a,d\]$"):
        trust.check(cfg, ["a.b", "x"])
    trust.check(cfg, ["a.b", "a", "d", "f"])
    assert trust.needed(cfg) == ["a", "d", "f"]


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        ("good_pkg2.os.system", r"os, posix\.system; .*trust=\[good_pkg2,os,posix\]"),
        ("good_pkg2.sub.os.system", r"os, posix\.system; .*trust=\[good_pkg2,os,posix\]"),
        ("good_pkg2.run", r"posix\.system; .*trust=\[good_pkg2,posix\]"),
        ("good_pkg2.Mine.__init__.__class__", r"builtins\.function; .*trust=\[good_pkg2,builtins\]"),
        ("good_pkg2.Mine.__mro__.__class__", r"builtins\.tuple; .*trust=\[good_pkg2,builtins\]"),
    ],
)
def test_a_trusted_package_is_no_way_to_other_code(target: str, asked: str, trained: Path) -> None:
    Path("good_pkg2").mkdir()
    Path("good_pkg2/__init__.py").write_text(
        "import os\nfrom os import system as run\nclass Mine:\n  def __init__(s): 0"
    )
    Path("good_pkg2/sub.py").write_text("import os")
    change(trained, "value", {"_target_": target, "command": TOUCH})
    assert re.search(f"outside rlrun: {asked}$", refused("eval", str(trained), "trust=[good_pkg2]"))
    assert "./canary" not in files()


def test_what_a_trusted_package_takes_from_others_is_asked_for() -> None:
    cfg = {"network": {"torso": {"_target_": "json.JSONDecoder"}}}  # a class of json.decoder
    trust.check(cfg, ["json"])
    with pytest.raises(UserError, match=r"rlrun: json\.decoder\.JSONDecoder; .*trust=\[json\.JSONDecoder,json\]$"):
        trust.check(cfg, ["json.JSONDecoder"])
    trust.check(cfg, ["json.JSONDecoder", "json.decoder"])
    cfg = {"network": {"torso": {"_target_": "json.codecs.lookup"}}}  # of the standard library's C modules
    assert trust.needed(cfg) == ["_codecs", "codecs", "json"]
    trust.check(cfg, trust.needed(cfg))


@pytest.mark.parametrize("target", ["torch.optim.Adam", "torch.optim.SGD", "rl_runner.optim.RMSpropTF"])
def test_optimizers_of_torch_and_rlrun_are_fine(target: str) -> None:
    trust.check({"optimizer": {"_target_": target}}, [])


def test_ours_are_fine_only_where_they_belong() -> None:
    trust.check({"network": {"torso": {"_target_": "rl_runner.networks.torsos.auto"}}}, [])
    trust.check({"env": {"_target_": "rl_runner.envs.gym.GymBackend", "id": "CartPole-v1", "imports": []}}, [])
    for group, target in [("optimizer", "rl_runner.sync.Hard"), ("mine", "rl_runner.sync.Hard"), ("sync", "Hard")]:
        with pytest.raises(UserError, match=r"trust=\["):
            trust.check({group: {"_target_": target}}, [])


def test_rlruns_loggers_are_fine_and_rlrun_as_a_whole_is_not() -> None:
    trust.check({"logger": {"_target_": "rl_runner.run.loggers.MLflow"}}, [])
    dangerous = {"network": {"torso": {"_target_": "rl_runner.cli.main.run"}}}
    for trusted in ([], ["rl_runner"]):
        with pytest.raises(UserError, match=r"trust=\[rl_runner\.cli\.main\.run\]$"):
            trust.check(dangerous, trusted)


def test_of_our_functions_only_recipes_and_factories_are_fine() -> None:
    """Others import modules or open files: `rl_runner.envs.gym.import_module` runs a file of the run's directory."""
    allowed = set()
    for group, packages in trust.PARTS.items():
        for module in [m for package in packages if package.startswith("rl_runner.") for m in modules_below(package)]:
            for name, found in inspect.getmembers(importlib.import_module(module), inspect.isfunction):
                with contextlib.suppress(UserError):
                    trust.check({group: {"_target_": f"{module}.{name}"}}, [])
                    allowed.add(f"{module}.{name}")
                    assert found.__module__ == module
    names = (
        "replay_learning",
        "noisy_control",
        "stochastic_control",
        "discrete_control",
        "numbered_control",  # the same, in older runs
        "on_policy",
        "on_policy_values",
        "online",
        "planning",
    )
    recipes = {f"rl_runner.build.recipes.{name}" for name in names}
    assert allowed == {"rl_runner.networks.torsos.auto", *recipes}


def modules_below(package: str) -> list[str]:
    path = getattr(importlib.import_module(package), "__path__", [])
    return [package, *(found.name for found in pkgutil.walk_packages(path, f"{package}."))]


def test_gymnasiums_wrappers_that_change_numbers_need_no_trust(trained: Path) -> None:
    change(trained, "env.wrappers", [{"_target_": "gymnasium.wrappers.ReshapeObservation", "shape": [4]}])
    done = rlrun("eval", str(trained), "episodes=1")
    assert done.code == 0, done
    assert "wrappers ReshapeObservation" in done.out


# What is remembered.


@pytest.fixture
def config(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's configuration beside a package that it names."""
    monkeypatch.syspath_prepend(workdir)
    (workdir / "trusted_pkg.py").write_text("")
    (workdir / "run").mkdir()
    (workdir / "run/config.yaml").write_text("seed: 0\n")
    return workdir / "run/config.yaml"


def test_what_this_user_started_is_remembered(config: Path, state_home: Path) -> None:
    assert trust.remembered(config) == []
    assert trust.remember(config, ["trusted_pkg"])
    assert trust.remembered(config) == ["trusted_pkg"]
    (note,) = state_home.glob("rlrun/trusted/*")
    assert (note.parent.stat().st_mode & 0o077) == 0


def test_another_run_in_its_place_is_not_trusted(config: Path) -> None:
    trust.remember(config, ["trusted_pkg"])
    config.write_text("seed: 1\n")
    assert trust.remembered(config) == []
    config.write_text("seed: 0\n")
    assert trust.remembered(config) == ["trusted_pkg"]
    copy = config.parent.parent / "copy"
    shutil.copytree(config.parent, copy)
    assert trust.remembered(copy / "config.yaml") == []


def test_another_package_of_that_name_is_not_trusted(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust.remember(config, ["trusted_pkg"])
    (config.parent / "trusted_pkg.py").write_text("")
    monkeypatch.syspath_prepend(config.parent)
    assert trust.remembered(config) == []


@pytest.mark.parametrize("text", ["", "[]", "null", '{"config": 1}', "\x00"])
def test_a_broken_note_trusts_nothing(config: Path, state_home: Path, text: str) -> None:
    trust.remember(config, ["trusted_pkg"])
    (note,) = state_home.glob("rlrun/trusted/*")
    note.write_text(text)
    assert trust.remembered(config) == []


def test_a_state_directory_that_cannot_be_written(config: Path, state_home: Path) -> None:
    (state_home / "rlrun").write_text("a file in its place")
    assert not trust.remember(config, ["trusted_pkg"])
    assert trust.remembered(config) == []
    assert trust.remember(config, [])  # nothing to remember


def test_the_state_directory_is_the_users(config: Path, monkeypatch: pytest.MonkeyPatch, workdir: Path) -> None:
    monkeypatch.setenv("HOME", str(workdir / "home"))
    for value in ("", "relative/state"):  # which the specification says to ignore
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert trust.remember(config, ["trusted_pkg"])
        assert len(list(workdir.glob("home/.local/state/rlrun/trusted/*.json"))) == 1
    assert not (workdir / "relative").exists()


def test_a_class_that_was_typed_into_an_interpreter_is_not_remembered(
    config: Path, state_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    assert not trust.remember(config, ["__main__"])
    assert trust.remembered(config) == []
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "script.py"), raising=False)
    assert trust.remember(config, ["__main__"])
    assert trust.remembered(config) == ["__main__"]
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "other.py"))
    assert trust.remembered(config) == []
