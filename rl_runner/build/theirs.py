"""Report exceptions of a user's own code: the key that names the code first, then the traceback of that code alone."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, TracebackType
from typing import Any

from hydra.errors import HydraException

from rl_runner.build import trust
from rl_runner.types import State, UserError, one_line

OURS = ("rl_runner", "torch", "gymnasium")


class TheirError(UserError):
    """An exception of a user's own code, as one line that names its key.

    Args:
        line: the line.
        trace: the traceback, from the first frame of their code on.
        exit_code: 2 where rlrun says what would be right, 1 for a bug.
    """

    def __init__(self, line: str, trace: str, exit_code: int) -> None:
        super().__init__(line)
        self.trace, self.exit_code = trace, exit_code


@contextlib.contextmanager
def naming_their_code(config: Callable[[], State]) -> Iterator[None]:
    """Raise TheirError for an exception of code that is not rlrun's and that a configuration names.

    Args:
        config: returns the configuration; called after an exception only.
    """
    try:
        yield
    except (Exception, SystemExit) as e:  # games call sys.exit() when their window is closed
        found = None
        with contextlib.suppress(Exception):  # a configuration that cannot be read is no reason to lose `e`
            found = _blame(e, config)
        if found is None:
            raise
        for cause in _causes(e):
            traceback.clear_frames(cause.__traceback__)  # or they would keep all that the job held in memory
        raise found from e  # a program sees what was raised


def _blame(e: BaseException, config: Callable[[], State]) -> TheirError | None:
    causes = [cause for cause in _causes(e) if not isinstance(cause, (UserError, HydraException, NotImplementedError))]
    if not causes:
        return None
    cfg = config()
    targets = list(_targets(cfg))
    names = [*(target for _, target in targets), *trust.imported(cfg)]
    packages = {name.partition(".")[0] for name in names} - {*OURS}
    for cause in causes:
        frames = [tb for tb in _tracebacks(cause) if _module(tb.tb_frame).partition(".")[0] in packages]
        if not frames:
            continue
        trace = "".join(traceback.format_exception(type(cause), cause, frames[0]))
        if isinstance(e, UserError) and not isinstance(e.__cause__, HydraException):
            return TheirError(str(e), trace, e.exit_code)  # whose line names the key
        key, name = _key(frames, targets)
        says = one_line(cause)
        return TheirError(f"{key}: {name} raised {type(cause).__name__}{f': {says}' if says else ''}", trace, 1)
    return None


def _causes(e: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from."""
    while e is not None:
        yield e
        e = e.__cause__  # type: ignore[assignment]


def _tracebacks(e: BaseException) -> Iterator[TracebackType]:
    """Yield the traceback of each frame, outermost first."""
    tb = e.__traceback__
    while tb is not None:
        yield tb
        tb = tb.tb_next


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _key(frames: list[TracebackType], targets: list[tuple[str, str]]) -> tuple[str, str]:
    """Return the key of the part whose code these frames are in, and the name of the code."""
    for tb in frames:
        for key, target in targets:
            if _runs_in(tb.tb_frame, _loaded(target)):
                return key, target
    frame = frames[0].tb_frame
    code = frame.f_code.co_qualname.removesuffix(f".{frame.f_code.co_name}") if "." in frame.f_code.co_qualname else ""
    name = f"{_module(frame)}.{code or frame.f_code.co_name}"
    same = [key for key, target in targets if target.partition(".")[0] == _module(frame).partition(".")[0]]
    return ("env" if not same or _is_of_environment(frame) else same[0]), name


def _is_of_environment(frame: FrameType) -> bool:
    """Return whether a frame is of a method of an environment."""
    mro = type(frame.f_locals.get("self")).__mro__
    return any(base.__module__.startswith("gymnasium.") for base in mro)


def _runs_in(frame: FrameType, found: Any) -> bool:
    """Return whether a frame is of a function, or of a method of a class's instance."""
    code: CodeType | None = getattr(found, "__code__", None)
    return frame.f_code is code or (isinstance(found, type) and isinstance(frame.f_locals.get("self"), found))


def _loaded(target: str) -> Any:
    """Return what a dotted name means, if its module is imported already; nothing is imported here."""
    parts = target.split(".")
    for i in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:i]))
        if found is not None:
            for part in parts[i:]:
                found = getattr(found, part, None)
            return found
    return None


def _targets(cfg: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the targets of a configuration, each after its key."""
    children = cfg.items() if isinstance(cfg, dict) else enumerate(cfg) if isinstance(cfg, list) else ()
    for name, child in children:
        if name == "_target_" and child:
            yield key, str(child)
        yield from _targets(child, f"{key}[{name}]" if isinstance(cfg, list) else f"{key}.{name}".lstrip("."))
