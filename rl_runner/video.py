"""Colour frames of an episode, as an MP4 or GIF file or live in a window.

    with VideoFile(Path("pong.mp4"), backend.fps) as video:
        for frame in playback(backend, episode.seed, episode.actions):
            video.write(frame)

Frames are (H, W, 3) uint8. They are handed on one by one, so memory does not grow with the length of an episode.
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
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rl_runner.types import Array, UserError

if TYPE_CHECKING:
    from rl_runner.envs.vector import Backend

NO_DISPLAY = "no display to open a window on; write a file instead: video=out.mp4"
MP4_SIDE, GIF_SIDE, WINDOW_SIDE = 640, 480, 720  # frames are enlarged by the largest whole factor that fits these
GIF_FPS = 30  # browsers slow GIFs down whose frames last less than 20 ms

EVEN = "pad=ceil(iw/2)*2:ceil(ih/2)*2"  # what yuv420p asks for
# Tagged as BT.709, because players guess differently where a file does not say how its colours were coded.
MP4_COLOURS = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
MP4_CODEC = ["-c:v", "libx264", "-crf", "18", "-preset", "veryfast", "-movflags", "+faststart", "-f", "mp4"]
MP4_CODEC += ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
LOSSLESS = ["-c:v", "libx264rgb", "-qp", "0", "-preset", "ultrafast", "-f", "matroska"]


def playback(backend: Backend, seed: int, actions: Sequence[Any]) -> Iterator[Array]:
    """Play an episode again, from its seed and its actions.

    Args:
        backend: one environment (num_envs=1) that draws (render=True).
        seed: the episode's seed.
        actions: the episode's actions, one per step.

    Yields:
        (H, W, 3) uint8, all frames of the episode in order, the one after the reset included.
    """
    if backend.num_envs != 1:
        raise ValueError(f"playback wants a backend of one environment, got {backend.num_envs}")
    backend.frames()  # those of whatever was played before
    backend.reset(np.ones(1, dtype=np.bool_), [seed])
    yield from backend.frames()
    for action in actions:
        backend.send(np.array([action], dtype=backend.action_space.dtype))
        backend.recv()
        yield from backend.frames()


class VideoFile:
    """Writes frames to an .mp4 or .gif file, which stands under its name only when it is whole.

    An MP4 has every frame. A GIF plays at the same speed with at most 30 of them a second, and shows its colours as
    they are while there are no more than 255. Small frames are enlarged without blur.

    Args:
        path: where to; directories are made, an older file is replaced.
        fps: frames per second.

    Raises:
        UserError: another suffix, or the `video` extra is not installed; later: the file cannot be written.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in (".mp4", ".gif"):
            raise UserError(f"video: a file name that ends in .mp4 or .gif is wanted, got {path.name!r}")
        self.path = path
        self._gif = path.suffix.lower() == ".gif"
        self._stride = _gif_stride(fps) if self._gif else 1
        self._fps = fps / self._stride
        self._program = _ffmpeg()
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
            raise ValueError(f"a frame of shape {self._shape} is wanted, like the first, got {frame.shape}")
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
        with open(self._work / "complaints", "wb") as complaints:
            return subprocess.Popen(
                [*self._command(), *source, "-i", "-", *coding, str(self._work / "video")],
                stdin=subprocess.PIPE,
                stderr=complaints,
                start_new_session=True,  # Ctrl-C is for us alone: who asks for a graceful stop still gets the video
            )

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
    """Give the largest whole factor (at least 1) by which a frame (H, W, ...) still fits into room (H, W)."""
    return max(min(room[0] // shape[0], room[1] // shape[1]), 1)


def _gif_stride(fps: float) -> int:
    """Give k, where each k-th frame goes into a GIF.

    GIFs count in hundredths of a second, so of the two smallest strides the first that comes out even is taken. For
    Atari's 60 frames per second that is 3: an odd one, which also shows what a game draws on each second frame only.
    """
    least = -int(-fps // GIF_FPS)
    return next((k for k in (least, least + 1) if (100 * k / fps).is_integer()), least)


def _ffmpeg() -> str:
    try:
        import imageio_ffmpeg
    except ImportError as e:
        raise UserError("writing videos needs imageio-ffmpeg: pip install 'rlrun[video]'") from e
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as e:
        raise UserError("imageio-ffmpeg brings no ffmpeg for this platform: install ffmpeg itself") from e


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
