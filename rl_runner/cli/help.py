"""What the command line shows: help, groups with their options, hints. Nothing heavy is imported here."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from rl_runner.catalogue import conf_dir, groups, options
from rl_runner.version import __version__

VERBS = {
    "train": "train an agent, or go on with an interrupted run (resume=RUN)",
    "eval": "play episodes with a saved agent and count",
    "play": "watch an agent, in a window or as a video",
}
EXAMPLES = """\
  rlrun train env=cartpole                                  learns in about a minute
  rlrun train env=pong                                      learns Pong from pixels
  rlrun train experiment=frozenlake_dqn seed=3              an experiment of the lectures
  rlrun train -m env=cartpole network=mlp,dueling seed=1,2,3
  rlrun eval latest                                         100 episodes of the newest run's best agent"""

STOPPING_HELP = (
    "stopping: Ctrl-C (SIGINT), SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 end the step, save, and say how to resume;",
    "          a second Ctrl-C stops at once, unsaved; SIGHUP stays ignored under nohup",
    "exit code: 0 finished, 128 + the signal's number after a signal, 2 for bad input, 1 for any other failure",
)


def overview() -> str:
    """Return what `rlrun --help` shows."""
    verbs = "\n".join(f"  rlrun {verb:6} {what}" for verb, what in VERBS.items())
    return (
        f"rlrun {__version__}: an experiment runner for deep Q-learning\n\n{verbs}\n\n"
        f"groups of `rlrun train`, with their options\n{_table()}\n\n"
        f"examples\n{EXAMPLES}\n\n`rlrun VERB --help` shows the keys that can be set."
    )


def verb_help(verb: str) -> str:
    """Return what `rlrun VERB --help` shows."""
    lines = [f"rlrun {verb}: {VERBS[verb]}", ""]
    if verb != "train":
        runs = "RUN [RUN ...]" if verb == "eval" else "RUN"
        lines += [f"usage: rlrun {verb} {runs} [key=value ...]   RUN: a run's directory, a checkpoint's, or latest", ""]
        lines += ["keys", *_body(conf_dir() / f"{verb}.yaml")]
        if verb == "play":
            lines += ["", f"env (for a random agent): {options('env')}"]
        return "\n".join(lines)
    lines += ["usage: rlrun train [group=option ...] [key=value ...]   several values and -m: one run for each", ""]
    lines += ["groups", _table(), ""]
    lines += ["keys (an environment or an experiment sets its own; see them all with --cfg job)"]
    lines += [*_body(conf_dir() / "train.yaml"), "", "examples", EXAMPLES, ""]
    lines += [*STOPPING_HELP, ""]
    lines += ["your own configuration: --config-dir ./my_conf env=mine"]
    lines += ['tab completion: eval "$(rlrun -sc install=bash)"']
    return "\n".join(lines)


def _table() -> str:
    rows = []
    for group in groups():
        lines = textwrap.wrap(options(group), 100)
        rows += [f"  {group if i == 0 else '':14} {line}" for i, line in enumerate(lines)]
    return "\n".join(rows)


def _body(file: Path) -> list[str]:
    """Return the keys of a configuration file as they are written, without what is Hydra's own."""
    text = re.sub(r"(?m)^(defaults|hydra):\n([ -].*\n|\n)*", "", file.read_text(encoding="utf-8"))
    return [f"  {line}" if line else "" for line in text.strip().splitlines() if not line.startswith("#")]
