"""Tab completion: `rlrun -sc install=bash` prints the hook, which asks `rlrun -sc query=bash` at each Tab.

Candidates are read from conf/ and from the directory of runs, without Hydra, in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from rl_runner import catalogue
from rl_runner.cli import keys
from rl_runner.cli.keys import Key
from rl_runner.cli.plain import PLAIN, PlainVerb
from rl_runner.cli.table import VERBS, Verb
from rl_runner.cli.words import MULTIRUN, options_of

BASH = r"""
_rlrun() {
    local line=${COMP_LINE:0:$COMP_POINT} IFS=$'\n'
    local word=${line##* }
    COMPREPLY=($(COMP_LINE=$line COMP_POINT=$COMP_POINT rlrun -sc query=bash 2>/dev/null))
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]]; then compopt -o nospace; fi
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then  # bash replaces what stands after the last "="
        COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}")
    fi
}
complete -o default -F _rlrun rlrun
"""
ZSH = "autoload -Uz bashcompinit && bashcompinit\n" + BASH
FISH = "complete -c rlrun -f -a '(env COMP_LINE=(commandline -cp | string collect) rlrun -sc query=fish 2>/dev/null)'"
INSTALL = {"bash": BASH, "zsh": ZSH, "fish": FISH}
UNINSTALL = {"bash": "complete -r rlrun", "zsh": "complete -r rlrun", "fish": "complete -e -c rlrun"}


def complete(args: list[str]) -> int:
    """Serve the shell: print its hook, what removes it, or the candidates for the word that is being typed."""
    words = [word.split("=") for word in args if re.fullmatch(r"(install|uninstall|query)=(bash|zsh|fish)", word)]
    if not words:
        print("rlrun: -sc: must be install=SHELL or uninstall=SHELL, where SHELL is bash, zsh or fish", file=sys.stderr)
        return 2
    action, shell = words[0]
    if action != "query":
        print((INSTALL if action == "install" else UNINSTALL)[shell].strip())
        return 0
    line = os.environ.get("COMP_LINE", "")
    point = os.environ.get("COMP_POINT", "")
    with contextlib.suppress(Exception):  # such as somebody's broken YAML: nothing may be printed into the line
        print("\n".join(candidates(line[: int(point)] if point.isdecimal() else line)))
    return 0


def candidates(line: str) -> list[str]:
    """Return what the last word of a command line may become, sorted.

    Args:
        line: the command line up to the cursor, with the program's name.
    """
    words = line.split()
    word = words.pop() if words and not line[-1].isspace() else ""
    if len(words) <= 1:
        found: Iterator[str] = iter([*VERBS, *PLAIN, *(("help", "--help", "--version") if word else ())])
    elif words[1] in PLAIN:
        found = _of_plain(PLAIN[words[1]], word)
    elif words[1] not in VERBS:
        return []
    else:
        found = _of_verb(VERBS[words[1]], words[2:], word)
    return sorted({candidate for candidate in found if candidate.startswith(word)})


def _of_plain(verb: PlainVerb, word: str) -> Iterator[str]:
    """Yield options, or directories of runs."""
    if word.startswith("-"):
        yield from ("--help", *(option.name for option in verb.options))
    else:
        yield from (_directories(word) if word else ["outputs/"] if Path("outputs").is_dir() else ())


def _of_verb(verb: Verb, before: list[str], word: str) -> Iterator[str]:
    """Yield candidates for a word, of which only the beginning needs to be right."""
    last = before[-1] if before else ""
    own = _own_directory(before)
    if choices := options_of(verb).get(last):
        yield from _directories(word) if choices == ("DIRECTORY",) else choices if len(choices) > 1 else ()
    elif last in ("-h", "--help"):
        yield from [*verb.all_groups(), *(key.name for key in keys.of_verb(verb))]
    elif word.startswith("-"):
        yield from [*options_of(verb), "--help"]
    elif "=" in word:
        yield from _values(verb, before, word, own)
    else:
        yield from _names(verb, before, word, own)
        if verb.argument:
            yield from _runs(word)


def _names(verb: Verb, before: list[str], word: str, own: Path | None) -> Iterator[str]:
    """Yield groups and keys; of keys only up to the next dot."""
    sign = word[: len(word) - len(word.lstrip("+~"))]
    end = "" if sign == "~" else "="  # what is removed has no value
    yield from (f"{sign}{group}{end}" for group in verb.all_groups())
    if own:
        yield from (f"{sign}{path.relative_to(own)}{end}" for path in own.rglob("*") if path.is_dir())
    depth = word.count(".")
    for name in _known(verb, before):
        parts = name.split(".")
        yield sign + ".".join(parts[: depth + 1]) + ("." if len(parts) > depth + 1 else end)


def _values(verb: Verb, before: list[str], word: str, own: Path | None) -> Iterator[str]:
    """Yield values of a key; in a sweep several, between commas."""
    typed, _, value = word.partition("=")
    key = typed.lstrip("+~")
    done, comma, value = value.rpartition(",") if MULTIRUN & set(before) else ("", "", value)
    start = f"{typed}={done}{comma}"
    if key in verb.runs:
        values: Iterator[str] = _runs(value)
    elif key in verb.all_groups() or (own and (own / key).is_dir()):
        values = iter([*catalogue.options(key), *_files(own, key)])
    elif key == "which":
        values = iter(("best", "last"))
    else:
        default = _known(verb, before).get(key)
        values = iter(("true", "false") if default in ("true", "false") else [default] if default else [])
    yield from (start + candidate for candidate in values)


def _files(own: Path | None, group: str) -> Iterator[str]:
    yield from (file.stem for file in (own / group).glob("*.yaml")) if own else ()


def _known(verb: Verb, before: list[str]) -> dict[str, str]:
    """Return the keys that can be set and their defaults: of each group those of the chosen option, or of all."""
    chosen = dict(word.partition("=")[::2] for word in before)
    found = {key.name: key.value for key in keys.of_verb(verb)}
    for group in verb.all_groups():
        option = chosen.get(group, "")
        shown: list[Key] = keys.of_option(group, option)
        if not shown:
            shown = [next(iter(had.values())) for had in keys.of_group(group).values()]
        found.update({key.name: key.value for key in shown if "._" not in key.name or key.name.endswith("._target_")})
    return {name: value if re.fullmatch(r"[\w.-]+", value) else "" for name, value in found.items()}


def _own_directory(before: list[str]) -> Path | None:
    """Return the directory of the user's own configuration, if one is named that exists."""
    for i, word in enumerate(before):
        name, _, value = word.partition("=")
        if name in ("--config-dir", "-cd"):
            path = Path(value or (before[i + 1] if i + 1 < len(before) else "."))
            return path if path.is_dir() else None
    return None


def _runs(value: str) -> Iterator[str]:
    """Yield `latest` and the directories that may be a run or lead to one."""
    yield "latest"
    yield from (_directories(value) if value else ["outputs/"] if Path("outputs").is_dir() else ())


def _directories(value: str) -> Iterator[str]:
    """Yield the directories that a path may become; one that holds a run is complete, without a slash."""
    above = value.rpartition("/")[0] + "/" if "/" in value else ""
    try:
        found = sorted(entry.name for entry in os.scandir(above or ".") if entry.is_dir())
    except OSError:
        return
    for name in found:
        if not name.startswith("."):
            yield f"{above}{name}" if (Path(above, name) / "config.yaml").is_file() else f"{above}{name}/"
