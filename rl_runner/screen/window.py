"""A window that shows frames live."""

from __future__ import annotations

import os
import sys
import time
from types import ModuleType
from typing import Any, Self

import numpy as np

from rl_runner.screen.frames import enlargement
from rl_runner.types import Array, UserError

NO_DISPLAY = "no display to open a window on; write a file instead: video=out.mp4"
WINDOW_SIDE = 720  # frames are enlarged by the largest whole factor that fits this


class Window:
    """Shows frames in a resizable window at real-time speed.

    Esc, Q and the close button close the window: `closed` becomes true, and further frames are ignored.

    Args:
        title: of the window.
        fps: frames per second.

    Raises:
        UserError: there is no display.
    """

    def __init__(self, title: str, fps: float) -> None:
        self.closed = False
        self._title, self._period = title, 1.0 / fps
        self._pygame: Any = _pygame()
        self._screen: Any = None  # opened with the first frame, whose size it takes
        self._due = 0.0  # when the next frame is to be shown

    def __enter__(self) -> Self:
        try:
            self._pygame.display.init()
        except self._pygame.error as e:
            raise UserError(NO_DISPLAY) from e
        # SDL falls back to drivers without a window.
        if self._pygame.display.get_driver() in {"dummy", "offscreen"} - {os.environ.get("SDL_VIDEODRIVER")}:
            self._pygame.display.quit()
            raise UserError(NO_DISPLAY)
        return self

    def write(self, frame: Array) -> None:
        """Wait until a frame (H, W, 3) uint8 is due, then show it."""
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
        screen = self._pygame.display.get_surface()  # resizing the window replaces the surface
        self._draw(picture, screen)
        self._pygame.display.flip()

    def __exit__(self, *_: object) -> None:
        self._pygame.display.quit()  # not pygame.quit(): environments that draw use other parts of pygame

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
        # The next frame is due one period after this one was due, so that small delays do not add up. After a long
        # delay, a pause of the environment for example, the window does not catch up in fast motion.
        self._due = max(self._due, now - 2 * self._period) + self._period

    def _listen(self) -> None:
        for event in self._pygame.event.get():
            keys = (self._pygame.K_ESCAPE, self._pygame.K_q)
            pressed = event.type == self._pygame.KEYDOWN and event.key in keys
            self.closed |= event.type == self._pygame.QUIT or pressed

    def _draw(self, picture: Any, screen: Any) -> None:
        """Draw the picture in the middle, enlarged by a whole factor, or reduced if it does not fit."""
        width, height = picture.get_size()
        room_w, room_h = screen.get_size()
        factor: float = enlargement((height, width), (room_h, room_w))
        if width > room_w or height > room_h:
            factor = min(room_w / width, room_h / height)
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        scale = self._pygame.transform.scale if factor >= 1 else self._pygame.transform.smoothscale
        screen.fill((0, 0, 0))
        screen.blit(scale(picture, size), ((room_w - size[0]) // 2, (room_h - size[1]) // 2))


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
