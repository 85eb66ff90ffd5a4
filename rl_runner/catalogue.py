"""What conf/ holds: the groups and their options. It imports nothing heavy."""

from __future__ import annotations

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
