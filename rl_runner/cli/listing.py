"""`rlrun runs`: its words; `rlrun runs rm`: the question before runs are moved."""

from __future__ import annotations

import argparse
import json
import sys

from rl_runner.report import listing
from rl_runner.report.runs import disk, find
from rl_runner.run import bin as bins
from rl_runner.run.files import OUTPUTS
from rl_runner.run.terminal import counted, make_console, size_in_words
from rl_runner.types import UserError


def runs(options: argparse.Namespace) -> None:
    """List runs, or move some to the bin.

    Raises:
        UserError: there are none, or a word is wrong.
    """
    if options.names[:1] == ["rm"]:
        _remove(options.names[1:], options.yes)
        return
    states = [state for state in (options.state or "").split(",") if state]
    entries = listing.listed(options.names or [OUTPUTS], options.where or [], states, options.sort or "-age")
    if options.json:
        print(json.dumps([listing.record(entry) for entry in entries], indent=1))
    else:
        listing.show(make_console(), entries)


def _remove(names: list[str], yes: bool) -> None:
    if not names:
        raise UserError("runs rm: name the runs")
    paths = find(names)
    for path in paths:
        print(f"{path}  {size_in_words(disk(path))}")
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("runs rm: nobody can be asked here; add --yes")
        try:
            answer = input(f"move {counted(len(paths), 'run')} to the bin? [y/N] ")
        except EOFError:  # Ctrl-D
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing was moved")
            return
    for path, place in bins.move(paths):
        print(f"{path} -> {place}")
