"""A video file holds every frame at the right speed, and appears only when it is complete."""

import sys
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from rl_runner.screen.video import VideoFile
from rl_runner.types import Array, UserError
from tests.disk import full_beyond
from tests.screen.drawn import flat


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
    with pytest.raises(UserError, match=r"cannot write .* shape of the first"):
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
    with pytest.raises(
        UserError, match=r"^video: IMAGEIO_FFMPEG_EXE names /not/there, which is not an executable program"
    ):
        VideoFile(Path("a.mp4"), 30)
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: "/gone")
    with pytest.raises(UserError, match=r"^video: imageio-ffmpeg names /gone"):
        VideoFile(Path("a.mp4"), 30)


def test_an_ffmpeg_that_cannot_start_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_bytes(b"\x7fELF of another machine")
    broken.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(broken))
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
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(broken))
    with pytest.raises(UserError, match=r"^video: cannot write .*: the disk is full"):
        save(tmp_path / f"a{suffix}", flat(50, 210, 160), 30)
    assert list(tmp_path.iterdir()) == [broken]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize("frames", [3, 50])  # 3 are fewer than a pipe holds: ffmpeg is gone, and no write tells
def test_a_killed_encoder_is_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], suffix: str, frames: int
) -> None:
    dies = tmp_path / "ffmpeg"
    dies.write_text("#!/bin/sh\nhead -c 1000 > /dev/null\nkill -9 $$\n")
    dies.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(dies))
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"older")
    with pytest.raises(UserError, match=r"^video: cannot write .*: ffmpeg stopped before the video was complete$"):
        save(path, flat(frames, 60, 80), 30)
    assert path.read_bytes() == b"older"
    assert sorted(tmp_path.iterdir()) == [path, dies]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_an_encoder_killed_after_its_last_frame_is_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """It encodes half of the frames, as one does that is killed while it empties its buffers, and says nothing."""
    stops = tmp_path / "ffmpeg"
    half = 10 * 60 * 80 * 3
    stops.write_text(
        f'#!/bin/sh\ncase "$*" in *rawvideo*) head -c {half} | {imageio_ffmpeg.get_ffmpeg_exe()} "$@";;\n'
        f'*) exec {imageio_ffmpeg.get_ffmpeg_exe()} "$@";; esac\n'
    )
    stops.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(stops))
    with pytest.raises(UserError, match="ffmpeg stopped before the video was complete"):
        save(tmp_path / f"a{suffix}", flat(11, 60, 80), 30)
    save(tmp_path / f"a{suffix}", flat(10, 60, 80), 30)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a{suffix}", "ffmpeg"]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_full_disk_is_a_user_error(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    noise = list(np.random.default_rng(0).integers(0, 256, size=(20, 60, 80, 3), dtype=np.uint8))
    with full_beyond(10_000), pytest.raises(UserError, match=r"^video: cannot write [^\n]*$"):
        save(tmp_path / f"a{suffix}", noise, 30)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_stderr_is_ones_own_again_while_frames_are_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with VideoFile(tmp_path / "a.mp4", 30) as video:
        video.write(flat(1, 60, 80)[0])
        print("said meanwhile", file=sys.stderr)
    assert capfd.readouterr().err == "said meanwhile\n"
