"""`rlrun eval`: which agent is meant, and what is written about it."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commandline import SHORT_ATARI, only_run, refused, rlrun


def result(run: Path, name: str = "best_000000040_seed0") -> dict[str, Any]:
    return dict(json.loads((run / "eval" / f"{name}.json").read_text()))


def test_the_file_holds_what_the_issue_lists(trained: Path) -> None:
    done = rlrun("eval", str(trained), "episodes=12", "num_envs=3")
    assert (done.code, done.err) == (0, "")
    held = result(trained)
    for of in ("return", "length"):
        assert list(held[of]) == ["mean", "std", "median", "min", "max", "ci95"]
    low, high = held["return"]["ci95"]
    assert held["return"]["min"] <= low <= held["return"]["mean"] <= high <= held["return"]["max"]
    assert held["return"] == held["length"]  # CartPole pays 1 a step
    assert (held["episodes"], held["seed"], held["step"]) == (12, 0, 40)
    assert held["checkpoint"] == str(trained / "checkpoints/best_000000040")
    assert held["environment"] == "CartPole-v1"
    assert held["protocol"]["eval_epsilon"] == 0.0
    table = done.out
    for word in ("mean", "95 % CI", "std", "median", "min", "max", "return", "length"):
        assert word in table
    assert f"{held['return']['mean']:.2f}" in table
    assert f"written to {trained}/eval/best_000000040_seed0.json" in table


def test_the_same_seed_gives_the_same_episodes(trained: Path) -> None:
    results = []
    for seed in (0, 0, 1):
        assert rlrun("eval", str(trained), "episodes=5", f"seed={seed}", "epsilon=0.5").code == 0
        results.append(result(trained, f"best_000000040_seed{seed}_epsilon_0.5")["return"])
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize(
    ("words", "checkpoint"),
    [
        (["latest"], "best_000000040"),
        (["checkpoint=latest"], "best_000000040"),
        (["checkpoint=outputs/cartpole/dqn/first"], "best_000000040"),
        (["outputs/cartpole/dqn/first/"], "best_000000040"),
        (["outputs/cartpole/dqn/first/checkpoints/best"], "best_000000040"),
        (["outputs/cartpole/dqn/first/checkpoints/latest"], "step_000000040"),
        (["outputs/cartpole/dqn/first/checkpoints/step_000000040"], "step_000000040"),
        (["latest", "which=last"], "step_000000040"),
        (["latest", "which=best"], "best_000000040"),
        (["which=40", "latest"], "step_000000040"),
    ],
)
def test_which_agent_is_meant(words: list[str], checkpoint: str, trained: Path) -> None:
    done = rlrun("eval", *words, "episodes=1")
    assert done.code == 0, done
    assert [p.name for p in (trained / "eval").iterdir()] == [f"{checkpoint}_seed0.json"]


def test_which_there_is_not(trained: Path) -> None:
    assert "which: no checkpoint '7'" in refused("eval", "latest", "which=7")
    assert "which: no checkpoint 'worst'" in refused("eval", "latest", "which=worst")


@pytest.mark.parametrize(
    "name",
    ["0_env=cartpole,seed=1", "with space", "it's", "a=b", "[1,2]", "ü${x}", "back\\slash", "back\\'quote", "end\\"],
)
def test_any_path_can_be_named(name: str, trained: Path) -> None:
    odd = Path("outputs") / name
    shutil.copytree(trained, odd, symlinks=True)
    os.utime(odd / "config.yaml", (0, 0))  # not the latest
    for words in ([str(odd)], [f"checkpoint={odd}"], [str(odd / "checkpoints/best")]):
        shutil.rmtree(odd / "eval", ignore_errors=True)
        done = rlrun("eval", *words, "episodes=1")
        assert done.code == 0, done
        assert (odd / "eval/best_000000040_seed0.json").is_file()


def test_what_is_changed_stands_in_the_protocol(workdir: Path) -> None:
    assert rlrun("train", "env=pong", *SHORT_ATARI).code == 0
    run = only_run()
    asked = {"": (0.0, 0.01), "sticky=0.25 epsilon=0.5": (0.25, 0.5), "sticky=0 epsilon=0": (0.0, 0.0)}
    for words, (sticky, epsilon) in asked.items():
        done = rlrun("eval", str(run), "episodes=1", *words.split())
        assert done.code == 0, done
        (file,) = (run / "eval").glob("best_*.json")
        protocol = result(run, file.stem)["protocol"]
        file.unlink()
        assert file.stem.endswith(f"_seed0{words and '_'}{words.replace(' ', '_').replace('=', '_')}")
        got = (protocol["sticky"], protocol["eval_epsilon"], protocol["frame_skip"], protocol["max_frames"])
        assert got == (sticky, epsilon, 4, 80)
    assert yaml.safe_load((run / "config.yaml").read_text())["env"]["sticky"] == 0.0


def test_sticky_actions_are_for_atari(trained: Path) -> None:
    assert "sticky" in refused("eval", str(trained), "sticky=0.25")


def test_videos(trained: Path) -> None:
    done = rlrun("eval", str(trained), "episodes=4", "video=true", "video_episodes=2")
    assert done.code == 0, done
    videos = sorted((trained / "videos").iterdir())
    assert len(videos) == 2
    for video in videos:
        assert re.fullmatch(r"best_000000040_seed0_\d_return_\d+\.mp4", video.name)
        assert video.read_bytes()[4:8] == b"ftyp"
        assert f"written to {video}" in done.out
    assert rlrun("eval", str(trained), "video=false", "episodes=1").code == 0


def test_a_damaged_checkpoint(trained: Path) -> None:
    file = trained / "checkpoints/best_000000040/agent.npz"
    whole = file.read_bytes()
    for content in (whole[:-100], b"", whole[:-1] + b"x"):
        file.write_bytes(content)
        line = refused("eval", str(trained))
        assert "best_000000040 is damaged: agent.npz" in line
        assert refused("play", str(trained), "video=x.gif") == line
    file.unlink()
    assert "agent.npz is missing" in refused("eval", str(trained))
    (file.parent / "manifest.json").write_text("{")
    assert "manifest.json" in refused("eval", str(trained))


@pytest.mark.parametrize(
    ("key", "value"), [("hidden", [7]), ("head", {"_target_": "rl_runner.networks.heads.Dueling"})]
)
def test_a_checkpoint_of_another_shape(key: str, value: Any, trained: Path) -> None:
    config = yaml.safe_load((trained / "config.yaml").read_text())
    node = config["network"]
    node[key] = {**node[key], **value} if isinstance(value, dict) else value
    (trained / "config.yaml").write_text(yaml.safe_dump(config))
    assert "does not fit its configuration" in refused("eval", str(trained))


@pytest.mark.parametrize(
    "text", ["", "{", "3", "[1]", "seed: 0", "a: ${b}", "\x00", "!!python/object/apply:os.system [ls]"]
)
def test_a_broken_configuration(text: str, trained: Path) -> None:
    (trained / "config.yaml").write_text(text)
    refused("eval", str(trained))
