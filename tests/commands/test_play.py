"""`rlrun play`: a saved agent or a random one, in a window or as a file."""

import re
from pathlib import Path

import pytest
from imageio_ffmpeg import count_frames_and_secs

from tests.commandline import refused, rlrun

KINDS = {"mp4": (4, b"ftyp"), "gif": (0, b"GIF89a")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_agent_as_a_file(kind: str, trained: Path) -> None:
    done = rlrun("play", str(trained), f"video=new dir/o=u,t.{kind}")
    assert done.code == 0, done
    start, magic = KINDS[kind]
    assert (Path("new dir") / f"o=u,t.{kind}").read_bytes()[start:].startswith(magic)
    first, episode, last = done.out.splitlines()
    assert first == "CartPole-v1, best_000000040"
    assert re.fullmatch(r"episode 1: return (\d+), \1 steps", episode)
    assert last == f"written to new dir/o=u,t.{kind}"


@pytest.mark.parametrize("words", [["env=cartpole"], ["env=pong", "env.max_frames=120", "env.noop_max=0"]])
def test_a_random_agent(words: list[str], workdir: Path) -> None:
    done = rlrun("play", *words, "video=out.gif")
    assert done.code == 0, done
    assert "a random agent" in done.out
    assert (workdir / "out.gif").is_file()


def test_stops_after_so_many_steps(trained: Path, workdir: Path) -> None:
    done = rlrun("play", "env=cartpole", "episodes=9", "max_steps=15", "video=clip.mp4")
    assert done.code == 0, done
    assert re.search(r"^episode \d: stopped after \d+ steps, return \d+ so far$", done.out, re.MULTILINE)
    lengths = [int(n) for n in re.findall(r"(\d+) steps", done.out)]
    assert sum(lengths) == 15
    # One more for the first frame of each episode.
    assert count_frames_and_secs(workdir / "clip.mp4")[0] == 15 + len(lengths)
    assert "max_steps" in refused("play", "env=cartpole", "max_steps=0", "video=clip.mp4")


def test_the_same_seed_gives_the_same_episodes(trained: Path) -> None:
    shown = {}
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        done = rlrun("play", str(trained), "episodes=2", "epsilon=0.5", f"seed={seed}", f"video={name}.gif")
        shown[name] = [line for line in done.out.splitlines() if line.startswith("episode ")]
    assert len(shown["a"]) == 2
    assert shown["a"] == shown["b"] != shown["c"]
    assert Path("a.gif").read_bytes() == Path("b.gif").read_bytes()


def test_without_a_display(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    line = refused("play", str(trained))
    assert "no display" in line
    assert "video=out.mp4" in line
    assert refused("play", "env=cartpole") == line


def test_continuous_actions_are_played_at_random_and_not_trained(workdir: Path) -> None:
    assert "Discrete" in refused("train", "env=gym", "env.id=Pendulum-v1")
    done = rlrun("play", "env=gym", "env.id=Pendulum-v1", "env.max_steps=20", "video=x.gif")
    assert done.code == 0, done
    assert "20 steps" in done.out


def test_one_run_at_a_time(trained: Path) -> None:
    line = f"rlrun: checkpoint: play takes one run at a time, got '{trained}' and 'latest'"
    assert refused("play", str(trained), "latest") == line
    assert refused("play", str(trained), "checkpoint=latest", "video=x.gif") == line
