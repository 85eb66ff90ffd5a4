"""`rlrun eval`: which agent is meant, and what is written about it."""

import errno
import json
import os
import re
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import yaml

from rl_runner import catalogue
from rl_runner.build import jobs as build
from rl_runner.commands import eval as command
from rl_runner.run import directory
from tests.commandline import SHORT, SHORT_ATARI, only_run, refused, rlrun


def result(run: Path, name: str = "best_000000040_seed0*") -> dict[str, Any]:
    (file,) = (run / "eval").glob(f"{name}.json")
    return dict(json.loads(file.read_text()))


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
    each = held["per_episode"]
    assert statistics.fmean(e["return"] for e in each) == pytest.approx(held["return"]["mean"])
    assert [e["return"] for e in each] == [e["length"] for e in each]
    assert len({e["seed"] for e in each}) == 12
    table = done.out
    for word in ("mean", "95 % CI", "std", "median", "min", "max", "return", "length"):
        assert word in table
    assert f"{held['return']['mean']:.2f}" in table
    assert f"written to {trained}/eval/best_000000040_seed0_episodes_12_num_envs_3.json" in table


def test_one_episode_says_nothing_of_the_spread(trained: Path) -> None:
    out = rlrun("eval", str(trained), "episodes=1").out
    assert "\n1 episode, seed 0," in out
    cells = {name: of_return for name, of_return, *_ in rows(out)}
    assert (cells["95 % CI"], cells["std"]) == ("-", "-")
    assert cells["mean"] == cells["median"] == cells["max"]


def test_a_short_evaluation_leaves_a_longer_one_and_the_names_are_those_of_the_usual_values(trained: Path) -> None:
    for words in (["episodes=12"], ["episodes=3"], ["episodes=12", "num_envs=2"]):
        assert rlrun("eval", str(trained), *words).code == 0
    found = {p.name: json.loads(p.read_text())["episodes"] for p in (trained / "eval").iterdir()}
    name = "best_000000040_seed0_episodes"
    assert found == {f"{name}_12.json": 12, f"{name}_3.json": 3, f"{name}_12_num_envs_2.json": 12}
    usual = yaml.safe_load((catalogue.conf_dir() / "eval.yaml").read_text())
    assert {key: usual[key] for key in build.IN_NAMES} == build.IN_NAMES


def test_the_same_seed_gives_the_same_episodes(trained: Path) -> None:
    results = []
    for seed in (0, 0, 1):
        assert rlrun("eval", str(trained), "episodes=5", f"seed={seed}", "epsilon=0.5").code == 0
        results.append(result(trained, f"best_000000040_seed{seed}_episodes_5_epsilon_0.5")["return"])
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
    assert [p.name for p in (trained / "eval").iterdir()] == [f"{checkpoint}_seed0_episodes_1.json"]


def test_snapshots_are_evaluated_as_the_whole_checkpoint_of_their_step(workdir: Path) -> None:
    run = Path("outputs/run")
    done = rlrun("train", *SHORT, "checkpoint.snapshots_every_steps=20", "agent.double=true", f"hydra.run.dir={run}")
    assert done.code == 0, done
    weights = np.load(run / "checkpoints/snapshots/20/agent.npz").files
    assert weights
    assert all(name.startswith("agent/online/") for name in weights)
    scores = []
    snapshot = f"{run}/checkpoints/snapshots/40"
    for words in ([str(run), "which=last"], [snapshot], [f"{run}/checkpoints/snapshots/20"], [str(run), "which=20"]):
        done = rlrun("eval", *words, "episodes=3")
        assert done.code == 0, done
        scores.append(done.out.splitlines()[1:-1])  # without the names
    assert scores[0] == scores[1]
    assert scores[2] == scores[3]
    names = {f"{checkpoint}_seed0_episodes_3.json" for checkpoint in ("step_000000040", "40", "20")}
    assert {p.name for p in (run / "eval").iterdir()} == names
    line = refused("eval", str(run), "which=30")
    assert line.endswith("best, last or one of the steps: 20, 40")
    assert "checkpoint.snapshots_every_steps: must be a whole number" in refused(
        "train", "checkpoint.snapshots_every_steps=-1"
    )


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
        assert (odd / "eval/best_000000040_seed0_episodes_1.json").is_file()


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
        assert file.stem.endswith(f"_seed0_episodes_1{words and '_'}{words.replace(' ', '_').replace('=', '_')}")
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
        assert re.fullmatch(r"best_000000040_seed0_episodes_4_\d_return_\d+\.mp4", video.name)
        assert video.read_bytes()[4:8] == b"ftyp"
        assert f"written to {video}" in done.out
    assert rlrun("eval", str(trained), "video=false", "episodes=1").code == 0


ODD = '''
import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

class Odd(gym.Env):
    """Five steps of reward 1. When it draws it may play otherwise."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    observation_space, action_space = Box(-1, 1, (3,), np.float32), Discrete(2)

    def __init__(self, kind="good", render_mode=None):
        self.kind, self.draws = kind, render_mode is not None
        self.steps = {"short": 3, "long": 7}.get(kind, 5) if self.draws else 5
        if kind == "no mode":
            self.metadata = {"render_modes": ["human"]}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.t += 1
        reward = 2.0 if self.draws and self.kind == "rich" else 1.0
        return np.zeros(3, np.float32), reward, self.t >= self.steps, False, {}

    def render(self):
        if self.kind == "not written":
            raise NotImplementedError
        if self.kind == "late" and self.t == 2:
            return None
        shapes = {"list": (2, 40, 60, 3), "planes": (3, 40, 60), "gray": (40, 60)}
        return None if self.kind == "none" else np.zeros(shapes.get(self.kind, (40, 60, 3)))

class Blind(Odd):
    def __init__(self, kind="good"):
        super().__init__(kind)

gym.register("Odd-v0", Odd)
gym.register("Blind-v0", Blind)
'''


@pytest.fixture
def odd(workdir: Path) -> Path:
    """A run on an environment of somebody's own; `of_kind` changes it."""
    (workdir / "odd_envs.py").write_text(ODD)
    words = ["env=gym", "env.id=Odd-v0", "env.imports=[odd_envs]", "num_threads=1"]
    assert rlrun("train", *words, *SHORT, "hydra.run.dir=outputs/odd").code == 0
    return Path("outputs/odd")


def of_kind(run: Path, kind: str, id: str = "Odd-v0") -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["env"].update(kwargs={"kind": kind}, id=id)
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def test_a_video_tells_what_it_shows(odd: Path) -> None:
    """The episodes that count have return 5 in 5 steps. Frames: one more than the steps that are shown."""
    shows = {
        "good": ("5", 6, ""),
        "gray": ("5", 6, ""),
        "rich": ("10", 6, "with return 10 in 5 steps, not 5 in 5"),
        "short": ("3", 4, "with return 3 in 3 steps, not 5 in 5"),
        "long": ("5_cut", 6, "with return 5 in 5 steps and no end, not 5 in 5"),
    }
    for kind, (shown, frames, said) in shows.items():
        of_kind(odd, kind)
        done = rlrun("eval", str(odd), "trust=[odd_envs]", "episodes=3", "video=true", "video_episodes=1")
        assert (done.code, done.err) == (0, ""), kind
        (video,) = (odd / "videos").iterdir()
        assert video.name == f"best_000000040_seed0_episodes_3_0_return_{shown}.mp4"
        assert imageio_ffmpeg.count_frames_and_secs(str(video))[0] == frames
        (line,) = [line for line in done.out.splitlines() if str(video) in line]
        other = "another episode than the one that was counted"
        end = f": {other}, {said}: Odd-v0 is not deterministic" if said else ""
        assert line == f"written to {video}{end}"
        video.unlink()


def test_what_cannot_be_drawn_is_refused_before_playing(odd: Path) -> None:
    trust = "trust=[odd_envs]"
    said = {
        "none": "env: Odd-v0: its render returns None; it must return an array (H, W, 3)",
        "list": "its render returns an array of shape (2, 40, 60, 3)",
        "planes": "its render returns an array of shape (3, 40, 60)",
        "not written": "env: Odd-v0 cannot be drawn: its render is not implemented",
        "no mode": "env: Odd-v0 cannot be drawn: its metadata['render_modes'] is ['human'], without 'rgb_array'",
    }
    for kind, words in said.items():
        of_kind(odd, kind)
        assert words in refused("eval", str(odd), trust, "video=true")
        assert words in refused("play", str(odd), trust, "video=x.mp4")
        assert words in refused("play", str(odd), trust)
    of_kind(odd, "good", "Blind-v0")
    line = refused("eval", str(odd), trust, "video=true")
    assert line == "rlrun: env: Blind-v0 cannot be drawn: it takes no render_mode='rgb_array'"
    assert refused("play", str(odd), trust, "video=x.mp4") == line
    assert rlrun("eval", str(odd), trust, "episodes=1").code == 0


def test_what_is_no_picture_later_on(odd: Path) -> None:
    of_kind(odd, "late")
    done = rlrun("eval", str(odd), "trust=[odd_envs]", "episodes=1", "video=true")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("rlrun: env: Odd-v0: its render returns None; it must return ")
    assert ["mean", "5.00"] in [row[:2] for row in rows(done.out)]
    assert not list((odd / "videos").iterdir())


def test_without_what_writes_videos(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "imageio_ffmpeg", None)
        assert "pip install 'rlrun[video]'" in refused("eval", str(trained), "video=true")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/not/there")
    line = "rlrun: video: IMAGEIO_FFMPEG_EXE names /not/there, which is not an executable program"
    assert refused("eval", str(trained), "video=true") == line
    assert refused("play", str(trained), "video=x.mp4") == line
    assert rlrun("eval", str(trained), "episodes=1").code == 0


def copy_of(run: Path, name: str) -> Path:
    copied = run.parent / name
    shutil.copytree(run, copied, symlinks=True)
    return copied


def rows(out: str) -> list[list[str]]:
    """Return the cells of the last table."""
    table = out[out.rindex("┏") :]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in table.splitlines() if line[0] == "│"]


def test_several_runs(trained: Path) -> None:
    other = copy_of(trained, "other run")
    done = rlrun("eval", str(trained), str(other), "episodes=3")
    assert (done.code, done.err) == (0, "")
    expected = result(trained)["return"]
    cells = [f"{expected['mean']:.2f}", "{:.2f} to {:.2f}".format(*expected["ci95"])]
    cells += [f"{expected[name]:.2f}" for name in ("std", "median", "min", "max")]
    assert rows(done.out) == [[str(run), "40", *cells, "3"] for run in (trained, other)]
    assert result(other)["return"] == expected


def test_one_of_several_fails(trained: Path) -> None:
    other = copy_of(trained, "other")
    (other / "checkpoints/best_000000040/agent.npz").write_bytes(b"")
    done = rlrun("eval", "nowhere", str(other), str(trained), str(trained), "episodes=1")
    assert done.code == 2
    assert done.err.startswith("rlrun: 2 of 4 runs failed: nowhere: no such directory; ")
    assert f"; {other}: checkpoint {other}/checkpoints/best_000000040 is damaged" in done.err
    assert done.err.count("\n") == 1
    assert [row[0] for row in rows(done.out)] == [str(trained)] * 2


def test_a_bug_in_one_of_several(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = command.evaluate, []

    def once_broken(*args: Any) -> Any:
        calls.append(None)
        if len(calls) == 1:
            raise IndexError("a bug")
        return real(*args)

    monkeypatch.setattr(command, "evaluate", once_broken)
    done = rlrun("eval", str(trained), str(copy_of(trained, "other")), "episodes=1")
    assert done.code == 2
    assert "Traceback" in done.err
    assert f"rlrun: 1 of 2 runs failed: {trained}: IndexError: a bug" in done.err
    assert (trained.parent / "other/eval").is_dir()


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["checkpoint={0},{1}"], ["{0}", "{1}"]),
        (["{0},{1}"], ["{0}", "{1}"]),
        (["{0}", "{1}", "seed=1,2"], ["{0} seed=1", "{1} seed=1", "{0} seed=2", "{1} seed=2"]),
        (["{0}", "epsilon=0,1"], ["epsilon=0", "epsilon=1"]),
    ],
)
def test_multirun(words: list[str], labels: list[str], trained: Path) -> None:
    runs = str(trained), str(copy_of(trained, "other run"))
    done = rlrun("eval", "-m", *(word.format(*runs) for word in words), "episodes=1")
    assert done.code == 0, done
    assert [row[0] for row in rows(done.out)] == [label.format(*runs) for label in labels]


def test_a_place_that_cannot_be_written_to(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(file: Path, text: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", f"{file}.tmp")

    monkeypatch.setattr(command, "write_whole", read_only)
    file = trained / "eval/best_000000040_seed0_episodes_2.json"
    line = f"{file}: cannot be written: Read-only file system; the score is the one shown above"
    done = rlrun("eval", str(trained), "episodes=2")
    assert (done.code, done.err) == (2, f"rlrun: {line}\n")
    assert [row[0] for row in rows(done.out)] == ["mean", "95 % CI", "std", "median", "min", "max"]
    done = rlrun("eval", str(trained), str(trained), "episodes=2")
    assert (done.code, done.err) == (2, f"rlrun: 2 of 2 runs failed: {line}; {line}\n")
    assert [row[0] for row in rows(done.out)] == [str(trained)] * 2


@pytest.mark.parametrize("when", ["about", "load", "play"])
def test_a_best_agent_that_is_replaced_meanwhile(when: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that still trains writes a new best agent, then deletes the old one."""
    before, after = (trained / f"checkpoints/best_{step:09d}" for step in (40, 41))
    place = {"about": (directory, "about"), "load": (directory, "load"), "play": (command, "evaluate")}[when]
    real = getattr(*place)

    def replaced(*args: Any, **given: Any) -> Any:
        if before.exists():
            before.rename(after)
        return real(*args, **given)

    monkeypatch.setattr(*place, replaced)
    done = rlrun("eval", str(trained), "episodes=1")
    assert (done.code, done.err) == (0, "")
    assert (
        result(trained, f"best_{40 if when == 'play' else 41:09d}_seed0*")["step"] == 40
    )  # by the manifest, unchanged


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


@pytest.mark.parametrize("text", ["{", "3", "a: ${b}", "\x00", "!!python/object/apply:os.mkdir ['made']"])
def test_a_broken_configuration(text: str, trained: Path) -> None:
    (trained / "config.yaml").write_text(text)
    assert "config.yaml" in refused("eval", str(trained))
    assert not Path("made").exists()
