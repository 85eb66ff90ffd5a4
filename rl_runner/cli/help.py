"""Help texts: the overview, each verb, and each group or key. Nothing heavy is imported."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rl_runner import catalogue
from rl_runner.cli import hints, keys
from rl_runner.cli.keys import Key
from rl_runner.cli.plain import PLAIN
from rl_runner.cli.table import VERBS, Verb
from rl_runner.cli.words import WrongLine
from rl_runner.version import __version__

WIDTH = 110
FEW = 4  # so many different values or meanings of a key are shown
NAMED = 6  # so many options of one meaning
EXAMPLES = """\
  rlrun train env=cartpole                                  learns in about a minute
  rlrun train env=pong                                      learns Pong from pixels
  rlrun train experiment=frozenlake_dqn seed=3              an experiment of the lectures
  rlrun train -m env=cartpole network=mlp,dueling seed=1,2,3
  rlrun eval latest                                         100 episodes of the newest run's best agent"""

STOPPING_HELP = (
    "stopping: at Ctrl-C (SIGINT), SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2 the run saves and prints how to resume;",
    "          a second Ctrl-C stops at once, unsaved; SIGHUP stays ignored under nohup",
    "exit code: 0 finished, 128 + the signal's number after a signal, 2 for bad input or a run that cannot go on",
    "           (it diverged, or the GPU's memory is full), 1 for any other failure",
)


def overview() -> str:
    """Return what `rlrun --help` shows."""
    summaries = {verb.name: verb.summary for verb in VERBS.values()} | {v.name: v.summary for v in PLAIN.values()}
    verbs = "\n".join(f"  rlrun {name:7} {summary}" for name, summary in summaries.items())
    return (
        f"rlrun {__version__}: an experiment runner for deep Q-learning, policy gradients and continuous control"
        f"\n\n{verbs}\n\n"
        f"groups of `rlrun train`, with their options\n{_table(VERBS['train'])}\n\n"
        f"examples\n{EXAMPLES}\n\n"
        f"`rlrun VERB --help` lists the keys; `rlrun train --help optimizer` those of a group."
    )


def verb_help(verb: Verb, topics: Sequence[str] = ()) -> str:
    """Return what `rlrun VERB --help [TOPIC ...]` shows. A topic is a group, group=option, or a key.

    Raises:
        WrongLine: there is no such topic.
    """
    if topics:
        return "\n\n".join("\n".join(_topic(verb, topic)) for topic in topics)
    lines = [f"rlrun {verb.name}: {verb.summary}", "", f"usage: rlrun {verb.name} {verb.usage}", ""]
    if verb.options:
        lines += ["options", *(f"  {option:14} {meaning}" for option, meaning in verb.options), ""]
    if verb.all_groups():
        lines += ["groups", _table(verb), ""]
    lines += [f"keys and what they mean (rlrun {verb.config} [...] --cfg job shows what a run would use)"]
    lines += [*_rows(keys.of_verb(verb)), ""]
    for group in verb.all_groups():
        if names := [name for name in keys.of_group(group) if "._" not in name]:
            lines += [f"keys of {group}: rlrun {verb.name} --help {group}", *_wrapped(" ".join(names)), ""]
    if verb.name == "doctor":
        lines += ["exit code: 0, also with warnings; 2 where rlrun train would refuse", ""]
    if verb.name == "train":
        lines += ["examples", EXAMPLES, "", *STOPPING_HELP, ""]
        lines += ["your own configuration: --config-dir ./my_conf env=mine"]
        lines += ['tab completion: eval "$(rlrun -sc install=bash)"']
    return "\n".join(lines).rstrip()


def _topic(verb: Verb, topic: str) -> Iterable[str]:
    """Return the lines on a group, an option of a group, or the keys of a name."""
    topic = topic.rstrip("=.")
    group, equals, option = topic.partition("=")
    for known in verb.all_groups():
        if known.replace("/", ".") == group.replace("/", "."):
            return _option(known, option) if equals else _group(verb, known)
    found = [key for key in keys.of_verb(verb) if _covers(topic, key.name)]
    lines = _rows(found)
    for known in verb.all_groups():
        lines += _union({name: had for name, had in keys.of_group(known).items() if _covers(topic, name)}, known)
    if not lines:
        meant = hints.meant_key(topic, keys.names(verb))
        raise WrongLine(f"no help on {topic!r}; " + (f"did you mean {meant}?" if meant else "name a group or a key"))
    return lines


def _covers(topic: str, name: str) -> bool:
    return name == topic or name.startswith(f"{topic}.")


def _option(group: str, option: str) -> list[str]:
    options = catalogue.options(group)
    if option not in options:
        raise WrongLine(hints.unknown_choice(group, option, options))
    return [f"{group}={option}: {keys.described(group, option)}".rstrip(": "), *_rows(keys.of_option(group, option))]


def _group(verb: Verb, group: str) -> list[str]:
    lines = [f"options of {group} (rlrun {verb.name} --help {group}=OPTION shows all that one sets)"]
    options = catalogue.options(group)
    width = max(map(len, options), default=0)
    for option in options:
        first, *more = textwrap.wrap(keys.described(group, option), WIDTH - width - 4) or [""]
        lines += [f"  {option:{width}}  {first}".rstrip(), *(" " * (width + 4) + line for line in more)]
    rows = _union({name: had for name, had in keys.of_group(group).items() if not _hidden(name)}, group)
    lines += ["", "keys", *rows] if rows else []
    inner = [other for other in verb.all_groups() if other.startswith(f"{group}/")]
    return [*lines, *([f"see also: {', '.join(inner)}"] if inner else [])]


def _hidden(name: str) -> bool:
    leaf = name.rpartition(".")[2]
    return leaf.startswith("_") and leaf != "_target_"


def _union(found: dict[str, dict[str, Key]], group: str) -> list[str]:
    """Return the rows of keys that several options of a group have, each with the options that say otherwise."""
    every = catalogue.options(group)
    merged = []
    for name, had in found.items():
        values: dict[str, list[str]] = {}
        for option, key in had.items():
            values.setdefault(key.value, []).append(option)
        if len(values) == 1 and len(had) == len(every):
            value = next(iter(values))
        elif len(values) > FEW:
            value = "(each option its own)"
        else:
            value = ", ".join(f"{value} ({', '.join(options)})" for value, options in values.items())
        merged.append(Key(name, value, _meanings(had)))
    return _rows(merged)


def _meanings(had: dict[str, Key]) -> str:
    """Return what a key means, one line for each text that options have for it, the longest text first.

    Each line names its options if they are few. Of many texts, as env.returns has, only the longest is returned.
    """
    texts: dict[str, list[str]] = {}
    for option, key in had.items():
        texts.setdefault(key.comment, []).append(option)
    ordered = sorted(texts, key=len, reverse=True)
    if len(ordered) == 1 or len(ordered) > FEW:
        return ordered[0]
    return "\n".join(
        f"{text} ({', '.join(texts[text])})" if len(texts[text]) <= NAMED else text for text in ordered if text
    )


def _rows(found: Iterable[Key]) -> list[str]:
    """Return one row for each key: name, value, comment."""
    shown = [(f"{key.name}: {key.value}".rstrip(), key.comment) for key in found if not _hidden(key.name)]
    width = min(max((len(text) for text, comment in shown if comment), default=0), 40)
    rows = []
    for text, comment in shown:
        meanings = comment.splitlines()
        if len(text) > width or not meanings:
            rows += _wrapped(text)
        else:
            rows.append(f"  {text:{width}}  # {meanings.pop(0)}")
        rows += [f"  {'':{width}}  # {meaning}" for meaning in meanings]
    return rows


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def _table(verb: Verb) -> str:
    rows = []
    for group in verb.all_groups():
        lines = textwrap.wrap(" ".join(catalogue.options(group)), 100)
        rows += [f"  {group if i == 0 else '':14} {line}" for i, line in enumerate(lines)]
    return "\n".join(rows)
