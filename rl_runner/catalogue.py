"""What conf/ holds: the groups, their options, and the name that a user probably meant. It loads at once."""

from __future__ import annotations

import difflib
from pathlib import Path


def conf_dir() -> Path:
    """Return the directory of our configurations: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def groups() -> list[str]:
    """Return the names of all config groups."""
    return sorted(str(p.relative_to(conf_dir())) for p in conf_dir().rglob("*") if p.is_dir())


def options(group: str) -> str:
    """Return the names of a group's options."""
    return " ".join(sorted(p.stem for p in (conf_dir() / group).glob("*.yaml")))


def did_you_mean(word: str, known: list[str]) -> str:
    """Return the known word that was probably meant, or all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]}?"
    return f"there is {', '.join(known)}" if len(known) <= 20 else "rlrun VERB --help shows what there is"
