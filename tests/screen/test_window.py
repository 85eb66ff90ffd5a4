"""A window shows frames in real time and can be closed."""

import sys
import time

import numpy as np
import pytest

from rl_runner.screen.window import Window
from rl_runner.types import UserError
from tests.screen.drawn import flat


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
