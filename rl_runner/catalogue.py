"""What can be named: the groups in conf/ and their options, and Atari games. It imports nothing heavy."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

AGENT_SETTINGS = ("name", "gamma", "n_step")  # keys of the agent group that are not arguments of the agent's class


def conf_dir() -> Path:
    """Return the directory of our configurations: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def groups() -> list[str]:
    """Return the names of all config groups. The directories in conf/tuned are names of agents, not groups."""
    names = (p.relative_to(conf_dir()).as_posix() for p in conf_dir().rglob("*") if p.is_dir())
    return sorted(name for name in names if not name.startswith("tuned/"))


def options(group: str) -> list[str]:
    """Return the names of a group's options, sorted."""
    directory = conf_dir() / group
    files = directory.rglob("*.yaml") if group == "tuned" else directory.glob("*.yaml")
    return sorted(p.relative_to(directory).with_suffix("").as_posix() for p in files)


def without_version(id: str) -> str:
    """Return the id of an environment without its version, such as "CartPole" for "CartPole-v1"."""
    return re.sub(r"-v\d+$", "", id)


def atari_option(id: str) -> str | None:
    """Return how the Atari game of an id is chosen, such as "env=pong" for "ALE/Pong-v5" or "PongNoFrameskip-v4".

    None: the id is not that of an Atari game, or ale-py is not installed.
    """
    found = importlib.util.find_spec("ale_py")  # not imported: that would register its ids, for the next jobs too
    if found is None or found.origin is None:
        return None
    games = {rom.stem.replace("_", ""): rom.stem for rom in (Path(found.origin).parent / "roms").glob("*.bin")}
    name = re.sub(r"^ALE/|(-ram)?(NoFrameskip|Deterministic)?$", "", without_version(id))
    if (game := games.get(name.lower())) is None:
        return None
    return f"env={game}" if game in options("env") else f"env=atari env.game={game}"
