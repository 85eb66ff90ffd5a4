"""Colour frames of an episode, as an MP4 or GIF file or live in a window.

    with VideoFile(Path("pong.mp4"), backend.fps) as video:
        for shown in playback(backend, episode.seed, episode.actions):
            for frame in shown.frames:
                video.write(frame)

Files and windows take frames (H, W, 3) uint8; `as_rgb` makes them from what environments draw. Frames are passed on
step by step, so memory does not grow with the length of an episode.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from rl_runner.types import Array, UserError

if TYPE_CHECKING:
    from rl_runner.envs.vector import Backend

PICTURE = "an array (H, W, 3), (H, W) or (H, W, 4), of integers from 0 to 255 or floats from 0 to 1"
NO_DISPLAY = "no display to open a window on; write a file instead: video=out.mp4"
MP4_SIDE, GIF_SIDE, WINDOW_SIDE = 640, 480, 720  # frames are enlarged by the largest whole factor that fits these
GIF_FPS = 30  # browsers slow GIFs down whose frames last less than 20 ms

EVEN = "pad=ceil(iw/2)*2:ceil(ih/2)*2"  # what yuv420p asks for
# Tagged as BT.709, because players guess differently where a file does not say how its colours were coded.
MP4_COLOURS = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
MP4_CODEC = ["-c:v", "libx264", "-crf", "18", "-preset", "veryfast", "-movflags", "+faststart", "-f", "mp4"]
MP4_CODEC += ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
LOSSLESS = ["-c:v", "libx264rgb", "-qp", "0", "-preset", "ultrafast", "-f", "matroska"]


class Shown(NamedTuple):
    """What the start of an episode, or one of its steps, shows."""

    frames: list[Array]  # (H, W, 3) uint8
    reward: float  # 0 at the start
    ended: bool


def playback(backend: Backend, seed: int, actions: Sequence[Any]) -> Iterator[Shown]:
    """Play an episode again, from its seed and its actions, until it ends or no action is left.

    An environment that is not deterministic may play another episode: its rewards and its end tell.

    Args:
        backend: one environment (num_envs=1) that draws (render=True).
        seed: the episode's seed.
        actions: the episode's actions, one per step.

    Yields:
        the start, then each step.

    Raises:
        UserError: the environment draws something that is no picture.
    """
    if backend.num_envs != 1:
        raise ValueError(f"playback wants a backend of one environment, got {backend.num_envs}")
    backend.frames()  # those of whatever was played before
    backend.reset(np.ones(1, dtype=np.bool_), [seed])
    yield Shown(drawn(backend), 0.0, False)
    for action in actions:
        backend.send(np.array([action], dtype=backend.action_space.dtype))
        step = backend.recv()
        ended = bool(step.terminated[0] or step.truncated[0])
        yield Shown(drawn(backend), float(step.reward[0]), ended)
        if ended:
            return


def drawn(backend: Backend) -> list[Array]:
    """Return the frames (H, W, 3) uint8 that the environment drew since the last call.

    Raises:
        UserError: something that it drew is no picture.
    """
    try:
        return [as_rgb(frame) for frame in backend.frames()]
    except NoPicture as e:
        raise UserError(f"env: {backend.name}: its render gives {e}; wanted: {PICTURE}") from e


class NoPicture(Exception):
    """What an environment drew is no picture. The message is what it drew instead."""


def as_rgb(frame: Any) -> Array:
    """Return a picture as (H, W, 3) uint8.

    Args:
        frame: (H, W, 3), gray as (H, W) or (H, W, 1), or (H, W, 4), whose transparency is dropped. Integers are from 0
            to 255. Floats are from 0 to 1 where none of the frame is larger, else from 0 to 255, and are rounded.

    Raises:
        NoPicture: another shape or type, or values out of range.
    """
    if frame is None or isinstance(frame, (list, tuple)):
        raise NoPicture("None" if frame is None else f"a {type(frame).__name__} of {len(frame)}")
    picture = np.asarray(frame)
    if picture.dtype == object and picture.ndim == 0:  # an array made of what is none
        raise NoPicture("None" if picture.item() is None else type(picture.item()).__name__)
    gray = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 1)
    colour = picture.ndim == 3 and picture.shape[2] in (3, 4)
    if not (gray or colour) or not picture.size or picture.dtype.kind not in "biuf":
        raise NoPicture(f"an array of shape {picture.shape} and type {picture.dtype}")
    picture = _as_bytes(picture)
    return picture[:, :, :3] if colour else np.repeat(picture.reshape(*picture.shape[:2], 1), 3, axis=2)


def _as_bytes(picture: Array) -> Array:
    """Return numbers of any type as uint8."""
    if picture.dtype == np.uint8:
        return picture
    if picture.dtype.kind == "b":
        return picture.astype(np.uint8) * np.uint8(255)
    low, high = float(picture.min()), float(picture.max())
    slack = 1e-3 if picture.dtype.kind == "f" else 0.0  # what rounding leaves outside of the range
    if not (low >= -slack and high <= 255 + slack):  # or not a number
        raise NoPicture(f"values from {low:g} to {high:g} as {picture.dtype}")
    if picture.dtype.kind == "f":
        scale = 255.0 if high <= 1 + slack else 1.0
        picture = np.rint(np.clip(picture.astype(np.float64) * scale, 0, 255))
    return picture.astype(np.uint8)


class VideoFile:
    """Writes frames to an .mp4 or .gif file, which stands under its name only when it is whole.

    An MP4 has every frame. A GIF plays at the same speed with at most 30 of them a second, and shows its colours as
    they are while there are no more than 255. Small frames are enlarged without blur.

    Args:
        path: where to; directories are made, an older file is replaced. Another name in the same directory may be set
            until the file is whole.
        fps: frames per second.

    Raises:
        UserError: another suffix, or no ffmpeg; later: the file cannot be written.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in (".mp4", ".gif"):
            raise UserError(f"video: a file name that ends in .mp4 or .gif is wanted, got {path.name!r}")
        self.path = path
        self._gif = path.suffix.lower() == ".gif"
        self._stride = _gif_stride(fps) if self._gif else 1
        self._fps = fps / self._stride
        self._program = ffmpeg()
        self._work = Path()  # a directory beside the file, for what is not whole yet
        self._shape: tuple[int, ...] = ()
        self._seen = 0
        self._encoder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Beside the file, so that the rename at the end stays on one file system.
            self._work = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        except OSError as e:
            raise self._failed(e.strerror) from e
        return self

    def write(self, frame: Array) -> None:
        """Append a frame (H, W, 3) uint8; all must have the size of the first."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a frame (H, W, 3) of uint8 is wanted, got {frame.shape} of {frame.dtype}")
        if self._encoder is None:
            self._shape = frame.shape
            self._encoder = self._start()
        if frame.shape != self._shape:
            raise self._failed(f"a frame of shape {self._shape} is wanted, like the first, got {frame.shape}")
        keep = self._seen % self._stride == 0
        self._seen += 1
        if not keep:
            return
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.write(np.ascontiguousarray(frame).data)
        except OSError as e:  # the encoder has gone
            self._encoder.wait()
            raise self._failed(self._complaint()) from e

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._stop()
            shutil.rmtree(self._work, ignore_errors=True)

    def _start(self) -> subprocess.Popen[bytes]:
        height, width, _ = self._shape
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-framerate", f"{self._fps}"]
        # A GIF's palette is known only after its last frame, so until then its frames are kept on disk.
        coding = LOSSLESS if self._gif else ["-vf", f"{self._scaling(MP4_SIDE)},{EVEN},{MP4_COLOURS}", *MP4_CODEC]
        try:
            with open(self._work / "complaints", "wb") as complaints:
                return subprocess.Popen(
                    [*self._command(), *source, "-i", "-", *coding, str(self._work / "video")],
                    stdin=subprocess.PIPE,
                    stderr=complaints,
                    start_new_session=True,  # Ctrl-C is for us alone: a graceful stop still finishes the video
                )
        except OSError as e:
            raise self._failed(f"{e.filename}: {e.strerror}") from e

    def _finish(self) -> None:
        if self._encoder is None:
            raise ValueError("no frames were written; was the environment made with render=True?")
        try:
            self._encoder.communicate()  # closes its input
        except OSError as e:
            raise self._failed(self._complaint()) from e
        if self._encoder.returncode != 0:
            raise self._failed(self._complaint())
        try:
            os.replace(self._as_gif() if self._gif else self._work / "video", self.path)
        except OSError as e:
            raise self._failed(e.strerror) from e

    def _stop(self) -> None:
        if self._encoder is None:
            return
        self._encoder.kill()  # does nothing to one that has ended
        self._encoder.wait()
        if self._encoder.stdin is not None:
            with contextlib.suppress(OSError):  # what it did not take any more
                self._encoder.stdin.close()

    def _as_gif(self) -> Path:
        """Turn the lossless video into a GIF: one reading for the palette, another for the pictures."""
        frames, palette, gif = (str(self._work / name) for name in ("video", "palette.png", "gif"))
        self._call("-i", frames, "-vf", "palettegen", "-update", "1", palette)
        paint = f"[0]{self._scaling(GIF_SIDE)}[big];[big][1]paletteuse=diff_mode=rectangle"
        self._call("-i", frames, "-i", palette, "-lavfi", paint, "-loop", "0", "-f", "gif", gif)
        return Path(gif)

    def _call(self, *arguments: str) -> None:
        with open(self._work / "complaints", "wb") as complaints:
            done = subprocess.run(
                [*self._command(), *arguments], stdin=subprocess.DEVNULL, stderr=complaints, start_new_session=True
            )
        if done.returncode != 0:
            raise self._failed(self._complaint())

    def _command(self) -> list[str]:
        return [self._program, "-hide_banner", "-loglevel", "error", "-y"]

    def _scaling(self, side: int) -> str:
        factor = enlargement(self._shape, (side, side))
        return f"scale=iw*{factor}:ih*{factor}:flags=neighbor"

    def _complaint(self) -> str:
        lines = (self._work / "complaints").read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "ffmpeg stopped")

    def _failed(self, why: str | None) -> UserError:
        return UserError(f"video: cannot write {self.path}: {why}")


class Window:
    """Shows frames live, in a window that can be resized, at real-time speed.

    Esc, Q and the window's own button close it: `closed` turns true, and further frames are not shown.

    Args:
        title: the window's.
        fps: frames per second.

    Raises:
        UserError: there is no display.
    """

    def __init__(self, title: str, fps: float) -> None:
        self.closed = False
        self._title, self._period = title, 1.0 / fps
        self._pygame: Any = _pygame()
        self._screen: Any = None  # made with the first frame, which tells its size
        self._due = 0.0  # when the next frame is to be shown

    def __enter__(self) -> Self:
        try:
            self._pygame.display.init()
        except self._pygame.error as e:
            raise UserError(NO_DISPLAY) from e
        # SDL falls back to drivers that show nothing.
        if self._pygame.display.get_driver() in {"dummy", "offscreen"} - {os.environ.get("SDL_VIDEODRIVER")}:
            self._pygame.display.quit()
            raise UserError(NO_DISPLAY)
        return self

    def write(self, frame: Array) -> None:
        """Show a frame (H, W, 3) uint8 when its time has come."""
        if self.closed:
            return
        height, width = frame.shape[:2]
        if self._screen is None:
            self._screen = self._open(height, width)
        self._wait()
        self._listen()
        if self.closed:
            self._pygame.display.quit()
            return
        picture = self._pygame.image.frombuffer(np.ascontiguousarray(frame).tobytes(), (width, height), "RGB")
        screen = self._pygame.display.get_surface()  # another one after the window was resized
        self._draw(picture, screen)
        self._pygame.display.flip()

    def __exit__(self, *_: object) -> None:
        self._pygame.display.quit()  # and not pygame.quit(): environments that draw use its other parts

    def _open(self, height: int, width: int) -> Any:
        factor = enlargement((height, width), (WINDOW_SIDE, WINDOW_SIDE))
        try:
            screen = self._pygame.display.set_mode((width * factor, height * factor), self._pygame.RESIZABLE)
        except self._pygame.error as e:
            raise UserError(NO_DISPLAY) from e
        self._pygame.display.set_caption(self._title)
        return screen

    def _wait(self) -> None:
        now = time.perf_counter()
        if now < self._due:
            time.sleep(self._due - now)
        # The next frame is due one period after this one was, so that small delays do not add up; but who is far
        # behind, after a pause of the environment say, does not catch up in fast motion.
        self._due = max(self._due, now - 2 * self._period) + self._period

    def _listen(self) -> None:
        for event in self._pygame.event.get():
            keys = (self._pygame.K_ESCAPE, self._pygame.K_q)
            pressed = event.type == self._pygame.KEYDOWN and event.key in keys
            self.closed |= event.type == self._pygame.QUIT or pressed

    def _draw(self, picture: Any, screen: Any) -> None:
        """Paint the picture in the middle, enlarged by a whole factor, or made smaller where it does not fit."""
        width, height = picture.get_size()
        room_w, room_h = screen.get_size()
        factor: float = enlargement((height, width), (room_h, room_w))
        if width > room_w or height > room_h:
            factor = min(room_w / width, room_h / height)
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        scale = self._pygame.transform.scale if factor >= 1 else self._pygame.transform.smoothscale
        screen.fill((0, 0, 0))
        screen.blit(scale(picture, size), ((room_w - size[0]) // 2, (room_h - size[1]) // 2))


def enlargement(shape: tuple[int, ...], room: tuple[int, int]) -> int:
    """Return the largest whole factor (at least 1) by which a frame (H, W, ...) still fits into room (H, W)."""
    return max(min(room[0] // shape[0], room[1] // shape[1]), 1)


def _gif_stride(fps: float) -> int:
    """Return k, where each k-th frame goes into a GIF.

    GIFs count in hundredths of a second, so of the two smallest strides the first that comes out even is taken. For
    Atari's 60 frames per second that is 3: an odd one, which also shows what a game draws on each second frame only.
    """
    least = -int(-fps // GIF_FPS)
    return next((k for k in (least, least + 1) if (100 * k / fps).is_integer()), least)


def ffmpeg() -> str:
    """Return the path of the program that writes videos.

    Raises:
        UserError: it is not installed.
    """
    try:
        import imageio_ffmpeg
    except ImportError as e:
        raise UserError("video: imageio-ffmpeg is not installed: pip install 'rlrun[video]'") from e
    try:
        program = str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as e:
        raise UserError("video: imageio-ffmpeg finds no ffmpeg that runs on this machine: install ffmpeg") from e
    if shutil.which(program) is None:
        named = "IMAGEIO_FFMPEG_EXE" if os.environ.get("IMAGEIO_FFMPEG_EXE") else "imageio-ffmpeg"
        raise UserError(f"video: {named} names {program}, which is no program that can be run")
    return program


def _pygame() -> ModuleType:
    chosen, linux = os.environ.get("SDL_VIDEODRIVER"), sys.platform.startswith("linux")
    if linux and not (chosen or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError(NO_DISPLAY)
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError as e:
        raise UserError("a window needs pygame: pip install 'gymnasium[classic-control]'") from e
    return pygame
