"""Verbs that read runs and need no configuration: options with dashes, neither Hydra nor torch.

Heavy imports are inside the functions that do the work, so that help and completion answer at once.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from rl_runner.cli import hints
from rl_runner.types import UserError


@dataclass(frozen=True)
class Option:
    """One option of a verb.

    Attributes:
        name: as typed, such as "--csv".
        meaning: what it is for, in one line.
        metavar: what its value is called in the help; None: it is a switch.
        type: makes the value of the word.
        default: the value if it is not given.
        repeatable: it may be given several times; its value is a list.
    """

    name: str
    meaning: str
    metavar: str | None = None
    type: Callable[[str], Any] = str
    default: Any = None
    repeatable: bool = False

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add the option to a parser."""
        if self.metavar is None:
            parser.add_argument(self.name, action="store_true")
        else:
            action = "append" if self.repeatable else "store"
            parser.add_argument(self.name, action=action, type=self.type, default=self.default)


@dataclass(frozen=True)
class PlainVerb:
    """One verb of the command line.

    Attributes:
        name: the verb as typed.
        summary: what it does, in one line.
        usage: its arguments, in one line.
        options: its options.
        examples: command lines.
        work: does it, given what was parsed.
    """

    name: str
    summary: str
    usage: str
    options: tuple[Option, ...]
    examples: str
    work: Callable[[argparse.Namespace], None]

    def help(self) -> str:
        """Return what `rlrun VERB --help` shows."""
        rows = [(f"{option.name} {option.metavar or ''}".rstrip(), option.meaning) for option in self.options]
        width = max((len(text) for text, _ in rows), default=0)
        listed = ["options", *(f"  {text:{width}}  {meaning}" for text, meaning in rows), ""] if rows else []
        lines = [f"rlrun {self.name}: {self.summary}", "", f"usage: rlrun {self.name} {self.usage}", ""]
        return "\n".join([*lines, *listed, self.examples])

    def run(self, words: Sequence[str]) -> None:
        """Do it.

        Raises:
            UserError: a word is wrong, or it cannot be done.
        """
        parser = _Parser(self)
        parser.add_argument("names", nargs="*")
        for option in self.options:
            option.add_to(parser)
        self.work(parser.parse_intermixed_args(list(words)))


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong as one line."""

    def __init__(self, verb: PlainVerb) -> None:
        super().__init__(f"rlrun {verb.name}", add_help=False, allow_abbrev=False)
        self.verb = verb

    def error(self, message: str) -> NoReturn:
        wrong = message.removeprefix("unrecognized arguments: ")
        if wrong != message:
            name = wrong.split()[0].partition("=")[0]
            near = hints.did_you_mean(name, [option.name for option in self.verb.options])
            message = f"there is no option {name!r}; {near}"
        raise UserError(f"{self.verb.name}: {message.removeprefix('argument ')}")


def number(text: str) -> float:
    """Return a number, with `_` or `,` between thousands if there are any.

    Raises:
        argparse.ArgumentTypeError: it is none, or not finite.
    """
    if "," in text and not re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", text):
        raise argparse.ArgumentTypeError(f"must be a number, such as 1,500 or 1.5, got {text!r}")
    try:
        value = float(text.replace(",", ""))
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from e
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text!r}")
    return value


def count(text: str) -> int:
    """Return a whole number, 1 or more.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    value = number(text)
    if not (value >= 1 and value.is_integer()):
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, got {text!r}")
    return int(value)


def resamples(text: str) -> int:
    """Return a number of resamples. Fewer give no interval that could be trusted; more take too much memory.

    Raises:
        argparse.ArgumentTypeError: it is out of range, or not whole.
    """
    value = number(text)
    if not (100 <= value <= 1_000_000 and value.is_integer()):
        raise argparse.ArgumentTypeError(f"must be a whole number from 100 to 1,000,000, got {text!r}")
    return int(value)


def _compare(options: argparse.Namespace) -> None:
    from rl_runner.cli import comparing

    comparing.compare(options)


def _plot(options: argparse.Namespace) -> None:
    from rl_runner.cli import plotting

    plotting.plot(options)


def _runs(options: argparse.Namespace) -> None:
    from rl_runner.cli import listing

    listing.runs(options)


def _sweep(options: argparse.Namespace) -> None:
    from rl_runner.cli import sweeping

    sweeping.show(options.names)


PLAIN = {
    verb.name: verb
    for verb in (
        PlainVerb(
            name="compare",
            summary="compare runs over their seeds: scores, curves, intervals",
            usage="RUN [RUN ...] [options]   RUN: a run, a sweep, a directory of them, a pattern or latest",
            options=(
                Option("--by", "keys or groups that tell the runs apart; default: all that differ", "KEY,KEY"),
                Option("--threshold", "when did evaluations reach this return?", "RETURN", type=number),
                Option("--reference", "add published scores, with source and protocol"),
                Option("--csv", "write the numbers", "FILE"),
                Option("--plot", "draw curves and scores (.png, .svg, .pdf)", "FILE"),
                Option("--html", "write one page with tables, curves and profiles", "FILE"),
                Option("--resamples", "number of resamples; default: 2000", "N", type=resamples, default=2000),
            ),
            examples="examples\n  rlrun compare outputs/sweeps/mine --threshold 200 --html compare.html\n"
            "  rlrun compare outputs/pong/* --by agent.name --reference --plot pong.png",
            work=_compare,
        ),
        PlainVerb(
            name="plot",
            summary="draw learning curves of runs and sweeps; runs with one label become one curve, their mean",
            usage="RUN [RUN ...] [options]   RUN: as for compare; or FILE.csv of an earlier picture",
            options=(
                Option("--out", "the picture (.png, .svg, .pdf); default: curves.png", "FILE", default="curves.png"),
                Option("--x", "horizontal axis: steps, frames or minutes; default: steps", "UNIT"),
                Option("--metric", "a curve of metrics.csv to draw in place of returns", "NAME"),
                Option("--labels", "one for each RUN, or one for all", "LABEL,LABEL"),
                Option("--smooth", "training: mean of the last N points; default: 1", "N", type=count),
                Option("--goal", "draw a dashed line at this return", "RETURN", type=number),
                Option("--goal-label", "what the dashed line is", "TEXT"),
                Option("--title", "title of the picture", "TEXT"),
                Option("--ylabel", "label of the vertical axis; default: Return, or the metric", "TEXT"),
            ),
            examples="The numbers drawn are written beside the picture as a CSV file, which can be drawn again.\n"
            "Of a sweep the jobs that have finished are drawn.\n"
            "Training and evaluation are drawn. Of two to four runs each is drawn, as a thin line; of five or more a\n"
            "shade is the 95 % bootstrap interval of the mean; of one it is the standard deviation over episodes.\n\n"
            "examples\n  rlrun plot latest\n  rlrun plot outputs/pong/dqn outputs/pong/rainbow --x frames --goal 18\n"
            "  rlrun plot RUN --metric learn/loss --out loss.png",
            work=_plot,
        ),
        PlainVerb(
            name="runs",
            summary="list runs: state, steps, returns, what differs, disk; rlrun runs rm RUN removes some",
            usage="[DIR ...] [options]   or   rm RUN [RUN ...] [--yes]   DIR: default outputs",
            options=(
                Option(
                    "--where",
                    "only runs with this value of a key, steps, last or best; also <, <=, >, >=; repeatable",
                    "KEY=VALUE",
                    repeatable=True,
                ),
                Option("--state", "only those in these states, such as finished or pruned", "STATE,STATE"),
                Option("--sort", "age, run, state, steps, last, best, disk or a key; -KEY: descending", "KEY"),
                Option("--json", "print JSON"),
                Option("--yes", "rm: do not ask"),
            ),
            examples="examples\n  rlrun runs --where env.name=pong --state finished --sort=-last\n"
            "  rlrun runs rm outputs/pong/dqn/2026-01-31_20-15-00_s0   moves it to outputs/.bin",
            work=_runs,
        ),
        PlainVerb(
            name="sweep",
            summary="show how the jobs of a sweep stand, while it runs or later",
            usage="DIR   DIR: the sweep's directory, or one above it, for the newest in it",
            options=(),
            examples="On a terminal the table follows the jobs that run, until they have ended or Ctrl-C.\n\n"
            "examples\n  rlrun sweep outputs/sweeps",
            work=_sweep,
        ),
    )
}
