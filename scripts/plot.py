"""Draw learning curves of runs and sweeps, from their metrics.csv.

Training return and mean return in evaluation are drawn or, with --metric, any
other curve of metrics.csv. Runs with the same label become one curve, the mean
over the runs, as far as all of them went. Two to four runs are drawn as thin
lines as well; for five or more the shade is the 95 % bootstrap interval of the
mean. For a single run the shade is the standard deviation over the episodes of
each evaluation.

The jobs of a sweep are labelled by their configuration, other runs by the
directory that they are in.

The numbers drawn are also written next to the picture as a CSV file. That file
can be given instead of runs, to draw the picture again.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


def die(message: str) -> NoReturn:
    """Report in one line what is wrong, and stop."""
    print(f"plot: {message}", file=sys.stderr)
    raise SystemExit(2)


try:
    from rl_runner.report import curves, pictures, results
    from rl_runner.run import notes
    from rl_runner.run.files import NOTE, TABLE
except ImportError as e:
    die(f"needs rlrun and matplotlib: pip install 'rlrun[plot]' ({e})")

EXAMPLES = """examples:
  scripts/plot outputs/cartpole/dqn/* --out cartpole.png
  scripts/plot outputs/sweeps/2026-01-31_20-15-00
  scripts/plot outputs/pong/dqn/* outputs/pong/rainbow/* --x frames --goal 18
  scripts/plot RUN_A RUN_B --names "one step" "three steps" --smooth 5
  scripts/plot RUN --metric learn/loss --out loss.png
  scripts/plot pong.csv --out pong_again.png
"""
PICTURES = (".png", ".svg", ".pdf")


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        """Report it and stop."""
        die(f"{message}; scripts/plot --help lists the options")


def parse() -> argparse.Namespace:
    """Read the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser("scripts/plot", description=__doc__, epilog=EXAMPLES, formatter_class=form)
    parser.add_argument("runs", nargs="+", type=Path, metavar="DIRECTORY", help="of a run, or of a sweep")
    picture = "the picture (.png, .svg, .pdf; default: curves.png)"
    parser.add_argument("--out", type=Path, default=Path("curves.png"), metavar="FILE", help=picture)
    parser.add_argument("--x", choices=curves.UNITS, default="steps", help="horizontal axis (default: steps)")
    parser.add_argument("--metric", metavar="NAME", help="a curve of metrics.csv to draw instead of returns")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="labels: one for each run, or one for all")
    smooth = "training: mean of the last N points (default: 1, as logged)"
    parser.add_argument("--smooth", type=int, default=1, metavar="N", help=smooth)
    parser.add_argument("--goal", type=float, metavar="RETURN", help="draw a dashed line at this return")
    parser.add_argument("--goal-label", metavar="TEXT", help="what the dashed line is")
    parser.add_argument("--title", default="", metavar="TEXT", help="title of the picture")
    parser.add_argument("--ylabel", metavar="TEXT", help="label of the vertical axis (default: Return, or the metric)")
    arguments = parser.parse_args()
    if arguments.out.suffix not in PICTURES:
        parser.error(f"--out: must end in {', '.join(PICTURES)}, got {arguments.out.name!r}")
    if arguments.smooth < 1:
        parser.error(f"--smooth: must be at least 1, got {arguments.smooth}")
    arguments.ylabel = arguments.ylabel or arguments.metric or "Return"
    return arguments


@functools.cache
def jobs_of(sweep: Path) -> dict[Path, tuple[str, str]]:
    """Return the name of the configuration, and the state, of each job that began in a sweep."""
    names, _ = results.told(sweep)
    return {run: (names[run], note.state) for run, note in notes.of_sweep(sweep) if note}


def labelled(paths: Sequence[Path], names: Sequence[str] | None) -> list[tuple[str, Path]]:
    """Return the label and the directory of each run. Files between them, as `*` finds in a sweep, are left out."""
    runs: list[tuple[str, Path]] = []
    for path in [path for path in paths if path.is_dir()] or paths:
        if (path / NOTE).is_file():
            runs.append((jobs_of(path.parent).get(path, (path.parent.name, ""))[0], path))
        elif not (path / TABLE).exists() and (jobs := jobs_of(path)):
            finished = [(label, run) for run, (label, state) in jobs.items() if state == notes.FINISHED]
            if len(finished) < len(jobs):
                print(
                    f"plot: {path}: left out {len(jobs) - len(finished)} jobs that have not finished", file=sys.stderr
                )
            runs += finished
        else:
            runs.append((path.resolve().parent.name, path))
    if names and len(names) not in (1, len(runs)):
        die(f"--names: {len(names)} names for {len(runs)} runs; give one for each run, or one for all")
    if names:
        runs = [(names[i % len(names)], run) for i, (_, run) in enumerate(runs)]
    return runs


def merged(arguments: argparse.Namespace) -> list[curves.Curve]:
    """Read the runs and merge those that share a label."""
    groups: dict[str, list[curves.Run]] = {}
    for label, directory in labelled(arguments.runs, arguments.names):
        run = curves.read_run(directory, arguments.x, arguments.smooth, arguments.metric)
        groups.setdefault(label, []).append(run)
    lines = []
    for label, runs in groups.items():
        lines += (found := curves.merge(label, runs))
        if any(len(run.mean.steps) for run in runs) and curves.EVAL not in {c.kind for c in found}:
            what = "its runs were evaluated at different steps; evaluations are left out"
            print(f"plot: {label}: {what}", file=sys.stderr)
    return lines


def main() -> None:
    """Read the runs, write the numbers, draw them."""
    arguments = parse()
    source = arguments.out.with_suffix(".csv")
    try:
        again = arguments.runs[0].suffix == ".csv" and len(arguments.runs) == 1
        if again:
            source = arguments.runs[0]
        else:
            lines = merged(arguments)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            curves.write_merged(source, arguments.x, lines)
        # Drawn from the file in any case, so that the file alone gives the same picture.
        unit, lines = curves.read_merged(source)
        if not lines:
            die("nothing to draw: the runs have no steps in common")
        look = {name: getattr(arguments, name) for name in ("goal", "goal_label", "title", "ylabel")}
        pictures.draw(lines, unit, arguments.out, **look)
    except curves.Unreadable as e:
        die(str(e))
    except OSError as e:
        die(f"--out: {e.filename or arguments.out}: {e.strerror}")
    print(f"{arguments.out}  (numbers: {source})")


if __name__ == "__main__":
    main()
