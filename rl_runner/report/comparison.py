"""What `rlrun compare` prints and writes: tables on the terminal, CSV, pictures."""

from __future__ import annotations

import csv
import math
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from rl_runner.report import reference, stats
from rl_runner.report.compare import Block, Comparison, Overall, Row
from rl_runner.report.stats import Estimate
from rl_runner.report.tables import Column, places, print_fitted, print_words

EXPENDABLE = ("area", "best", "IQM", "P(better)", "detectable")  # columns that a narrow terminal does without
MANY = 8  # keys in one line
PICTURES = (".png", ".svg", ".pdf")
INTERVALS = f"[low, high]: 95 % bootstrap interval over runs ({stats.LEAST_RUNS} or more); of few runs it is too narrow"
MEASURES = {  # columns, and what they mean
    "IQM": "IQM: mean of the middle half of the runs",
    "area": "area: mean return over a run's budget, how fast it learned",
}
BETTER = "P(better): a run of the group scores higher than one of {}, a tie counts half"


# The terminal.


def show(
    console: Console, comparison: Comparison, references: bool = False, csv: str | None = None, html: str | None = None
) -> None:
    """Print all tables, and what a reader must know of them.

    Args:
        console: where to.
        comparison: what is shown.
        references: add published scores.
        csv: a file that is to hold all numbers.
        html: a page that is to hold them.
    """
    elsewhere = " or ".join(filter(None, (csv, html))) or "--csv or --html"
    headings: set[str] = set()  # of all tables
    for block in comparison.blocks:
        keys = ", ".join(comparison.grouping.keys)
        print_words(console, f"\n{block.environment}, {f'by {keys}' if keys else 'one group'}")
        shown = print_fitted(console, *columns(block.rows), EXPENDABLE, elsewhere)
        headings |= shown
        print_words(console, f"last: {block.source}; the agent at the end of each run", "dim")
        for line in explained(block, shown):
            print_words(console, line, "dim")
        if references:
            _show_references(console, block)
    if overall := comparison.overall:
        print_words(console, f"\nhuman-normalised, over {', '.join(overall.games)}")
        shown = print_fitted(console, *overall_columns(overall), EXPENDABLE, elsewhere)
        headings |= shown
        if "P(better)" in shown and any(row.better for row in overall.rows):
            print_words(console, BETTER.format(overall.rows[0].label), "dim")
    for note in comparison.notes:
        print_words(console, note, "red")
    if along := comparison.grouping.along:
        more = f" and {len(along) - MANY} more keys ({html or '--html'} lists them)" if len(along) > MANY else ""
        print_words(console, f"the groups also differ in {', '.join(along[:MANY])}{more}", "dim")
    if not comparison.grouping.within:
        print_words(console, INTERVALS, "dim")
    if measures := [meaning for name, meaning in MEASURES.items() if name in headings]:
        print_words(console, "     ".join(measures), "dim")


def explained(block: Block, shown: Container[str] = EXPENDABLE) -> Iterator[str]:
    """Yield what the columns of the best agents, of thresholds and of the first group mean.

    Args:
        block: the table.
        shown: headings of the columns that are shown.
    """
    first = block.rows[0].label
    if "best" in shown:
        yield f"best (chosen): {block.chosen}"
    if aim := block.rows[0].reached:
        yield f"reached: runs with an evaluation of {aim.threshold:g} or more; median steps and minutes over all runs"
    if "P(better)" in shown and any(row.better for row in block.rows):
        yield BETTER.format(first)
    if "detectable" in shown and any(row.detectable is not None for row in block.rows):
        yield (
            f"detectable: the difference from {first} that a t-test would find in {stats.POWER:.0%} of such experiments"
        )


def columns(rows: Sequence[Row]) -> tuple[list[Column], list[Column]]:
    """Return the table of one environment: what its rows are of, and their numbers."""
    digits = places([score for row in rows for score in row.scores])
    aim = f"reached {rows[0].reached.threshold:g}" if rows[0].reached else ""
    one_each = all(len(row.runs) == _seeds(row) for row in rows)
    found = {
        "seeds" if one_each else "runs": [str(len(row.runs)) for row in rows],
        "last": [interval(row.last, digits) for row in rows],
        "IQM": [interval(row.iqm, digits) for row in rows],
        "best": [f"{row.best:,.{digits}f}" for row in rows],
        "area": [interval(row.area, digits) for row in rows],
        aim: [reached(row) for row in rows],
        "P(better)": [interval(row.better, 2) for row in rows],
        "detectable": ["-" if row.detectable is None else f"{row.detectable:,.{digits}f}" for row in rows],
    }
    if not aim:
        del found[aim]
    if len(rows) == 1:
        del found["P(better)"], found["detectable"]
    return [Column("group", [row.label for row in rows])], [Column(*column) for column in found.items()]


def _seeds(row: Row) -> int:
    """Return how many seeds a group has. Runs of several configurations, or from several agents, may share one."""
    return len({run.seed for run in row.runs})


def overall_columns(overall: Overall) -> tuple[list[Column], list[Column]]:
    """Return the table over games."""
    found = [Column("runs", [str(row.runs) for row in overall.rows])]
    for name in ("IQM", "mean", "median"):
        found.append(Column(name, [interval(getattr(row, name.lower()), 3) for row in overall.rows]))
    found.append(Column("P(better)", [interval(row.better, 2) for row in overall.rows]))
    return [Column("group", [row.label for row in overall.rows])], found


def _show_references(console: Console, block: Block) -> None:
    found = list(references(block))
    print_words(
        console, f"published scores of {block.environment}:" if found else f"nothing published of {block.environment}"
    )
    for score, source, protocol, differs in found:
        print_words(console, f"  {score}  {source}; {protocol}")
        if differs:
            print_words(console, f"      NOT COMPARABLE: {differs}", "red")


def references(block: Block) -> Iterator[tuple[str, str, str, str]]:
    """Yield of each published score its number, source, protocol, and how that differs; the best ones first."""
    config = block.rows[0].runs[0].config
    for score in sorted(reference.published(block.environment), key=lambda s: float(s.score), reverse=True):
        spread = f" ± {score.spread}" if score.spread else ""
        budget = f"{int(score.frames):,} frames" if score.frames and "env.game" in config else ""
        budget = f"{int(score.frames):,} steps" if score.frames and not budget else budget
        protocol = ", ".join(filter(None, [score.protocol or "protocol not stated", budget]))
        differs = "; ".join(reference.differences(score, config))
        yield f"{float(score.score):,.6g}{spread}", f"{score.agent}, {score.source}", protocol, differs


# Numbers as text.


def interval(found: Estimate | None, digits: int) -> str:
    """Return a number with its interval as text."""
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return f"{found.value:,.{digits}f}"
    return f"{found.value:,.{digits}f} [{found.low:,.{digits}f}, {found.high:,.{digits}f}]"


def reached(row: Row) -> str:
    """Return in words when the runs of a group reached the threshold."""
    if row.reached is None:
        return "-"
    _, runs, steps, minutes = row.reached
    of = f"{runs} of {len(row.runs)}"
    if math.isinf(steps):
        return f"{of} runs"
    return f"{of} runs, {steps:,.0f} steps" + (f", {minutes:,.1f} min" if math.isfinite(minutes) else "")


# Files.


def write(path: Path, comparison: Comparison) -> None:
    """Write the numbers, one row for each group in each environment and, over games, one for each group."""
    intervals = [f"{name}{part}" for name in ("last", "iqm", "area", "better") for part in ("", "_low", "_high")]
    columns = ["environment", "group", "runs", "seeds", *intervals[:9], "best_chosen", "reached", "reached_steps"]
    columns += ["reached_minutes", *intervals[9:], "detectable", "protocol_differs", "source"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        table.writeheader()
        for block in comparison.blocks:
            for row in block.rows:
                table.writerow(_record(block, row))
        for games in comparison.overall.rows if comparison.overall else ():
            of = {"last": games.mean, "iqm": games.iqm, "better": games.better}
            facts = {"environment": "human-normalised", "group": games.label, "runs": games.runs}
            table.writerow({**facts, **_flat(of)})


def _record(block: Block, row: Row) -> dict[str, object]:
    of = {"last": row.last, "iqm": row.iqm, "area": row.area, "better": row.better}
    _, runs, steps, minutes = row.reached or (0, "", math.inf, math.inf)
    return {
        "environment": block.environment,
        "group": row.label,
        "runs": len(row.runs),
        "seeds": _seeds(row),
        **_flat(of),
        "best_chosen": f"{row.best:.10g}",
        "reached": runs,
        "reached_steps": f"{steps:.10g}" if math.isfinite(steps) else "",
        "reached_minutes": f"{minutes:.10g}" if math.isfinite(minutes) else "",
        "detectable": "" if row.detectable is None else f"{row.detectable:.10g}",
        "protocol_differs": " ".join(block.protocol),
        "source": block.source,
    }


def _flat(found: dict[str, Estimate | None]) -> dict[str, str]:
    cells = {}
    for name, one in found.items():
        for part, number in zip(("", "_low", "_high"), one or (None,) * 3, strict=True):
            cells[name + part] = "" if number is None else f"{number:.10g}"
    return cells


def draw(path: Path, comparison: Comparison) -> list[Path]:
    """Draw learning curves and scores as a picture for each environment; return the pictures.

    Raises:
        ImportError: there is no matplotlib.
    """
    from rl_runner.report import pictures

    several, drawn = len(comparison.blocks) > 1, []
    for block in comparison.blocks:
        one = path.with_stem(f"{path.stem}_{block.environment.replace('/', '_')}") if several else path
        warning = f"; protocol differs: {', '.join(block.protocol)}" if block.protocol else ""
        curves = [curve for row in block.rows for curve in row.curves] if len(block.rows) <= pictures.MAX_CURVES else []
        scores = {row.label: row.scores for row in block.rows}
        heading = ", ".join(comparison.grouping.keys) or "group"
        title, intervals = f"{block.environment}{warning}", not comparison.grouping.within
        pictures.compare(one, curves, scores, title, heading, "Agents at the end", intervals)
        drawn.append(one)
    return drawn
