"""Videos hold every frame at the right speed, and an episode's seed and actions are enough to draw it again."""

import itertools
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from rl_runner.envs.atari import AtariBackend
from rl_runner.envs.gym import GymBackend
from rl_runner.screen.video import NoPicture, Shown, VideoFile, Window, as_rgb, enlargement, playback
from rl_runner.types import Array, UserError


def flat(n: int, height: int, width: int) -> list[Array]:
    """Frames of two colours, with a bar that grows from frame to frame."""
    frames = np.full((n, height, width, 3), (144, 72, 17), dtype=np.uint8)
    for i, frame in enumerate(frames):
        frame[: height // 2, : 1 + i * (width - 1) // n] = (92, 186, 92)
    return list(frames)


def save(path: Path, frames: list[Array], fps: float) -> None:
    with VideoFile(path, fps) as video:
        for frame in frames:
            video.write(frame)


def read_mp4(path: Path) -> tuple[dict[str, Any], list[Array]]:
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    return meta, [np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3) for data in reader]


def read_gif(path: Path) -> tuple[list[int], list[Array]]:
    """Return durations in milliseconds, and frames."""
    durations, frames = [], []
    with Image.open(path) as gif:
        assert gif.info["loop"] == 0  # for ever
        for i in range(getattr(gif, "n_frames", 1)):
            gif.seek(i)
            durations.append(gif.info["duration"])
            frames.append(np.asarray(gif.convert("RGB")))
    return durations, frames


def test_an_mp4_has_every_frame_enlarged_by_a_whole_factor(tmp_path: Path) -> None:
    frames = flat(90, 210, 160)
    path = tmp_path / "not" / "yet" / "there" / "pong.mp4"
    save(path, frames, fps=60)
    meta, shown = read_mp4(path)
    assert meta["fps"] == 60
    assert meta["pix_fmt"].startswith("yuv420p")
    assert meta["duration"] == pytest.approx(90 / 60, abs=0.02)
    assert meta["size"] == (480, 630)
    assert len(shown) == 90
    for i in (0, 45, 89):
        small = shown[i][1::3, 1::3].astype(int)
        assert np.abs(small - frames[i]).mean() < 3  # the colours survive, up to compression
    assert [p.name for p in path.parent.iterdir()] == ["pong.mp4"]


@pytest.mark.parametrize(("shape", "size"), [((641, 101), (102, 642)), ((1, 1), (640, 640)), ((400, 600), (600, 400))])
def test_an_mp4_of_any_size(tmp_path: Path, shape: tuple[int, int], size: tuple[int, int]) -> None:
    save(tmp_path / "odd.MP4", flat(3, *shape), fps=29.97)
    meta, shown = read_mp4(tmp_path / "odd.MP4")
    assert meta["size"] == size
    assert len(shown) == 3


@pytest.mark.parametrize(
    ("fps", "stride", "durations"),
    [(60, 3, {50}), (50, 2, {40}), (30, 1, {30, 40}), (4, 1, {250}), (1000, 34, {30, 40})],
)
def test_a_gif_plays_at_the_speed_of_the_episode(tmp_path: Path, fps: int, stride: int, durations: set[int]) -> None:
    frames = flat(91, 21, 16)
    save(tmp_path / "a.gif", frames, fps)
    shown_ms, shown = read_gif(tmp_path / "a.gif")
    assert len(shown) == len(frames[::stride])
    assert set(shown_ms) <= durations
    assert sum(shown_ms) / 1000 == pytest.approx(len(shown) * stride / fps, abs=0.02)
    factor = 480 // 21
    for small, frame in zip(shown, frames[::stride], strict=True):
        np.testing.assert_array_equal(small, frame.repeat(factor, axis=0).repeat(factor, axis=1))


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_an_interrupted_video_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    def interrupted() -> None:
        with VideoFile(tmp_path / f"a{suffix}", 30) as video:
            for frame in flat(5, 210, 160):
                video.write(frame)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_video_leaves_the_older_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    save(path, flat(5, 20, 20), 30)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"cannot write .* like the first"):
        save(path, [*flat(5, 20, 20), *flat(1, 20, 22)], 30)
    assert path.read_bytes() == before
    save(path, flat(9, 20, 20), 30)
    assert len(read_mp4(path)[1]) == 9


def test_a_video_without_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no frames"):
        save(tmp_path / "a.mp4", [], 30)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frame", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)])
def test_only_colour_frames_are_taken(tmp_path: Path, frame: Array) -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        save(tmp_path / "a.mp4", [frame], 30)


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


@pytest.mark.parametrize("name", ["a.avi", "mp4", "a"])
def test_other_suffixes_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"^video: .*\.mp4 or \.gif"):
        VideoFile(Path(name), 30)


def test_without_the_video_extra_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match=r"pip install 'rlrun\[video\]'"):
        VideoFile(Path("a.mp4"), 30)


def test_an_ffmpeg_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/not/there")
    with pytest.raises(UserError, match=r"^video: IMAGEIO_FFMPEG_EXE names /not/there, which is no program"):
        VideoFile(Path("a.mp4"), 30)
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: "/gone")
    with pytest.raises(UserError, match=r"^video: imageio-ffmpeg names /gone"):
        VideoFile(Path("a.mp4"), 30)


def test_an_ffmpeg_that_cannot_start_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_bytes(b"\x7fELF of another machine")
    broken.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(broken))
    with pytest.raises(UserError, match=r"^video: cannot write .*ffmpeg: "):
        save(tmp_path / "a.mp4", flat(1, 4, 4), 30)


def test_a_place_that_cannot_be_written_to_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^video: cannot write"):
        save(tmp_path / "file" / "a.mp4", flat(1, 4, 4), 30)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_an_encoder_that_fails_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho 'the disk is full' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(broken))
    with pytest.raises(UserError, match=r"^video: cannot write .*: the disk is full"):
        save(tmp_path / f"a{suffix}", flat(50, 210, 160), 30)
    assert list(tmp_path.iterdir()) == [broken]


def test_enlargement_is_whole_and_at_least_one() -> None:
    assert enlargement((210, 160, 3), (640, 640)) == 3
    assert enlargement((210, 160, 3), (640, 300)) == 1
    assert enlargement((1000, 1000, 3), (640, 640)) == 1


@pytest.fixture
def no_screen(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is always a display")
def test_without_a_display_a_file_is_suggested(no_screen: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no display to open a window on; .* video=out\.mp4"):
        Window("pong", 60)


def test_a_display_that_does_not_answer_is_no_display(no_screen: pytest.MonkeyPatch) -> None:
    no_screen.setenv("DISPLAY", ":4711")
    no_screen.setenv("SDL_VIDEODRIVER", "x11")
    with pytest.raises(UserError, match="no display"), Window("pong", 60):
        pass


def test_a_window_shows_frames_in_real_time(no_screen: pytest.MonkeyPatch) -> None:
    no_screen.setenv("SDL_VIDEODRIVER", "dummy")
    frames = flat(13, 210, 160)
    with Window("pong", 60) as window:
        began = time.perf_counter()
        for frame in frames:
            window.write(frame)
        took = time.perf_counter() - began
        import pygame

        screen = pygame.display.get_surface()
        assert screen.get_size() == (480, 630)
        shown = pygame.surfarray.array3d(screen).swapaxes(0, 1)
        np.testing.assert_array_equal(shown[1::3, 1::3], frames[-1])
        assert pygame.display.get_caption()[0] == "pong"
        assert not window.closed
    assert took > 0.9 * 12 / 60 - 3 / 60
    assert not pygame.display.get_init()


@pytest.mark.parametrize("how", ["button", "escape", "q"])
def test_a_window_can_be_closed(no_screen: pytest.MonkeyPatch, how: str) -> None:
    no_screen.setenv("SDL_VIDEODRIVER", "dummy")
    (frame,) = flat(1, 210, 160)
    with Window("pong", 1000) as window:
        window.write(frame)
        import pygame

        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_a))
        window.write(frame)
        assert not window.closed
        keys = {"escape": pygame.K_ESCAPE, "q": pygame.K_q}
        event = (pygame.KEYDOWN, {"key": keys[how]}) if how in keys else (pygame.QUIT, {})
        pygame.event.post(pygame.event.Event(*event))
        window.write(frame)
        assert window.closed
        window.write(frame)  # is not shown, and is no error


def play(backend: Any, seed: int) -> list[int]:
    """Play an episode at random and give its actions."""
    rng = np.random.default_rng(0)
    backend.reset(np.ones(1, dtype=np.bool_), [seed])
    actions: list[int] = []
    while True:
        actions.append(int(rng.integers(backend.action_space.n)))
        backend.send(np.array(actions[-1:]))
        step = backend.recv()
        if step.terminated[0] or step.truncated[0]:
            return actions


def seen(shown: Iterable[Shown]) -> list[Array]:
    return [frame for step in shown for frame in step.frames]


def test_playback_gives_every_frame_of_the_emulator() -> None:
    actions = play(AtariBackend("pong", sticky=0.25, max_frames=400), seed=7)
    backend = AtariBackend("pong", sticky=0.25, max_frames=400, render=True)
    frames = seen(playback(backend, 7, actions))
    assert 1 + 4 * (len(actions) - 1) < len(frames) <= 1 + 4 * len(actions)  # the last step may be cut short
    assert {(f.shape, f.dtype) for f in frames} == {((210, 160, 3), np.dtype(np.uint8))}
    moved = [not np.array_equal(a, b) for a, b in itertools.pairwise(frames[200:])]
    assert np.mean(moved) > 0.4  # each is a frame of its own, not one shown four times

    played_again = seen(playback(backend, 7, actions))
    np.testing.assert_array_equal(frames, played_again)
    assert not np.array_equal(frames[-1], seen(playback(backend, 8, actions))[-1])


def test_playback_of_an_abandoned_episode_begins_anew() -> None:
    actions = play(AtariBackend("pong", max_frames=200), seed=7)
    backend = AtariBackend("pong", max_frames=200, render=True)
    frames = seen(playback(backend, 7, actions))
    half = playback(backend, 3, actions)
    for _ in range(20):
        next(half)
    np.testing.assert_array_equal(seen(playback(backend, 7, actions)), frames)


def test_playback_of_cartpole() -> None:
    actions = play(GymBackend("CartPole-v1"), seed=5)
    backend = GymBackend("CartPole-v1", render=True)
    frames = seen(playback(backend, 5, actions))
    assert len(frames) == len(actions) + 1  # one a step, and the one after the reset
    assert frames[0].shape == (400, 600, 3)
    assert not np.array_equal(frames[0], frames[-1])
    np.testing.assert_array_equal(frames, seen(playback(backend, 5, actions)))


def test_playback_gives_rewards_and_the_end() -> None:
    actions = play(GymBackend("CartPole-v1"), seed=5)
    backend = GymBackend("CartPole-v1", render=True)
    shown = list(playback(backend, 5, actions))
    assert [step.reward for step in shown] == [0.0] + [1.0] * len(actions)  # CartPole pays 1 a step
    assert [step.ended for step in shown] == [False] * len(actions) + [True]
    assert not list(playback(backend, 5, actions[:-1]))[-1].ended


def test_playback_stops_where_the_episode_ends() -> None:
    actions = play(GymBackend("CartPole-v1"), seed=5)
    assert len(list(playback(GymBackend("CartPole-v1", render=True), 5, [*actions, 0, 1, 0]))) == len(actions) + 1


def test_playback_wants_one_environment() -> None:
    with pytest.raises(ValueError, match="one environment"):
        next(playback(GymBackend("CartPole-v1", num_envs=2, render=True), 0, [0]))
