"""Frames of an episode as an MP4 or GIF file.

    with VideoFile(Path("pong.mp4"), backend.fps) as video:
        for shown in playback(backend, episode.seed, episode.actions):
            for frame in shown.frames:
                video.write(frame)

Frames are passed to ffmpeg one by one, so memory does not grow with the length of an episode.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from rl_runner.screen.frames import enlargement
from rl_runner.types import Array, UserError

MP4_SIDE, GIF_SIDE = 640, 480  # frames are enlarged by the largest whole factor that fits these
GIF_FPS = 30  # browsers slow GIFs down whose frames last less than 20 ms

EVEN = "pad=ceil(iw/2)*2:ceil(ih/2)*2"  # yuv420p needs even sides
# Tagged as BT.709, because players guess differently if a file does not name its colour space.
MP4_COLOURS = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
MP4_CODEC = ["-crf", "18", "-preset", "veryfast", "-movflags", "+faststart", "-f", "mp4"]
MP4_CODEC += ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
LOSSLESS_CODEC = ["-qp", "0", "-preset", "ultrafast", "-f", "matroska"]


class VideoFile:
    """Writes frames to an .mp4 or .gif file, which appears under its name only when it is complete.

    An MP4 has every frame. A GIF plays at the same speed with at most 30 frames a second, and shows the exact colours
    while there are no more than 255. Small frames are enlarged without blur.

    Args:
        path: the file. Missing directories are created, an older file is replaced. The attribute `path` may be set to
            another name in the same directory before the file is complete.
        fps: frames per second.

    Raises:
        UserError: another suffix, or no ffmpeg; later: the file cannot be written.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in (".mp4", ".gif"):
            raise UserError(f"video: the file name must end in .mp4 or .gif, got {path.name!r}")
        self.path = path
        self._gif = path.suffix.lower() == ".gif"
        self._stride = _gif_stride(fps) if self._gif else 1
        self._fps = fps / self._stride
        self._program = ffmpeg()
        self._work = Path()  # a directory beside the file, for incomplete files
        self._complaints: IO[bytes]  # what ffmpeg writes to stderr
        self._shape: tuple[int, ...] = ()
        self._seen = self._written = 0  # frames
        self._encoder: Generator[None, Any, None] | None = None

    def __enter__(self) -> Self:
        try:
            self._complaints = tempfile.TemporaryFile()  # not beside the file, where the disk may be full
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Beside the file, so that the rename at the end stays on one file system.
            self._work = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        except OSError as e:
            raise self._failed(e.strerror) from e
        return self

    def write(self, frame: Array) -> None:
        """Append a frame (H, W, 3) uint8; all must have the size of the first."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a frame must be (H, W, 3) uint8, got {frame.shape} of {frame.dtype}")
        if self._encoder is None:
            self._shape = frame.shape
            self._encoder = self._start()
        if frame.shape != self._shape:
            raise self._failed(f"all frames must have the shape of the first, {self._shape}, got {frame.shape}")
        keep = self._seen % self._stride == 0
        self._seen += 1
        if not keep:
            return
        try:
            self._encoder.send(np.ascontiguousarray(frame).data)
        except OSError as e:  # ffmpeg has ended
            raise self._failed(self._complaint()) from e
        self._written += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._encoder is not None:
                self._encoder.close()
            self._complaints.close()
            shutil.rmtree(self._work, ignore_errors=True)

    def _start(self) -> Generator[None, Any, None]:
        """Start ffmpeg. It ignores Ctrl-C, so that a run that stops gracefully still completes its video."""
        import imageio_ffmpeg

        logging.getLogger("imageio_ffmpeg").setLevel(logging.CRITICAL)  # errors are reported here, in one line
        height, width, _ = self._shape
        filters = f"{self._scaling(MP4_SIDE)},{EVEN},{MP4_COLOURS}"
        encoder: Generator[None, Any, None] = imageio_ffmpeg.write_frames(
            str(self._work / "video"),
            (width, height),
            fps=self._fps,
            # A GIF's palette is known only after its last frame, so until then its frames are kept on disk.
            codec="libx264rgb" if self._gif else "libx264",
            pix_fmt_out="rgb24" if self._gif else "yuv420p",
            output_params=LOSSLESS_CODEC if self._gif else ["-vf", filters, *MP4_CODEC],
            quality=None,
            macro_block_size=1,
            ffmpeg_log_level="error",
        )
        try:
            with _stderr_to(self._complaints):
                next(encoder)
        except OSError as e:
            raise self._failed(f"{e.filename}: {e.strerror}") from e
        return encoder

    def _finish(self) -> None:
        if self._encoder is None:
            raise ValueError("no frames were written; was the environment made with render=True?")
        self._encoder.close()
        video = self._work / "video"
        if self._frames_in(video) != self._written:  # the exit code is not known here
            raise self._failed(self._complaint())
        try:
            os.replace(self._as_gif(video) if self._gif else video, self.path)
        except OSError as e:
            raise self._failed(e.strerror) from e

    def _frames_in(self, video: Path) -> int:
        """Count the frames in a video file without decoding them; 0 if it cannot be read."""
        done = self._run("-i", str(video), "-c", "copy", "-progress", "-", "-f", "null", os.devnull)
        frames = re.findall(r"^frame=(\d+)", done.stdout, flags=re.MULTILINE)
        return int(frames[-1]) if frames and done.returncode == 0 else 0

    def _as_gif(self, video: Path) -> Path:
        """Convert the lossless video to a GIF: one pass for the palette, another for the frames."""
        palette, gif = self._work / "palette.png", self._work / "gif"
        paint = f"[0]{self._scaling(GIF_SIDE)}[big];[big][1]paletteuse=diff_mode=rectangle"
        source = ["-i", str(video)]
        for arguments in (
            [*source, "-vf", "palettegen", "-update", "1", str(palette)],
            [*source, "-i", str(palette), "-lavfi", paint, "-loop", "0", "-f", "gif", str(gif)],
        ):
            done = self._run(*arguments)
            if done.returncode != 0:
                raise self._failed(_last_line(done.stderr))
        return gif

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ffmpeg to its end. It is in a session of its own, so that Ctrl-C does not reach it."""
        command = [self._program, "-hide_banner", "-loglevel", "error", "-y", *arguments]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", start_new_session=True
        )

    def _scaling(self, side: int) -> str:
        factor = enlargement(self._shape, (side, side))
        return f"scale=iw*{factor}:ih*{factor}:flags=neighbor"

    def _complaint(self) -> str:
        self._complaints.seek(0)
        return _last_line(self._complaints.read().decode(errors="replace"))

    def _failed(self, why: str | None) -> UserError:
        return UserError(f"video: cannot write {self.path}: {why}")


@contextlib.contextmanager
def _stderr_to(file: IO[bytes]) -> Iterator[None]:
    """Redirect the stderr of programs started here to a file: `write_frames` has no argument for it."""
    own = os.dup(2)
    try:
        os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "ffmpeg stopped before the video was complete"


def _gif_stride(fps: float) -> int:
    """Return k; every k-th frame goes into a GIF.

    A GIF stores durations in hundredths of a second. Of the two smallest strides, the first with a whole duration is
    used. For Atari's 60 frames per second it is 3, which also shows what a game draws only on every second frame.
    """
    least = -int(-fps // GIF_FPS)
    return next((k for k in (least, least + 1) if (100 * k / fps).is_integer()), least)


def ffmpeg() -> str:
    """Return the path of the ffmpeg program.

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
        raise UserError("video: imageio-ffmpeg finds no ffmpeg for this machine; install ffmpeg") from e
    if shutil.which(program) is None:
        named = "IMAGEIO_FFMPEG_EXE" if os.environ.get("IMAGEIO_FFMPEG_EXE") else "imageio-ffmpeg"
        raise UserError(f"video: {named} names {program}, which is not an executable program")
    return program
