"""A comparison as one HTML page that needs nothing else: tables, and charts that show their values under the pointer.

A chart's SVG is stretched to the width that there is; its words are HTML beside it, so that they keep their size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from rl_runner.report import comparison as tables
from rl_runner.report import stats
from rl_runner.report.compare import Block, Comparison, Profiles
from rl_runner.report.curves import Curve
from rl_runner.report.tables import Column
from rl_runner.version import __version__

TEMPLATE = Path(__file__).with_name("page.html")
COLOURS = 8
SIDE = 1000  # of the square that an SVG draws in
STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten
LINES = {
    "eval": f"mean return of evaluations while training; shade: 95 % bootstrap interval of the mean over seeds from "
    f"{stats.BAND_RUNS} seeds on, below that a thin line for each",
    "profile": "share of seeds that score more than this at the end; shade: 95 % bootstrap interval",
}


class Page:
    """Collects the parts of a page; the charts' numbers go into one block of data."""

    def __init__(self) -> None:
        self.body: list[str] = []
        self.charts: list[dict[str, Any]] = []

    def words(self, text: str, kind: str = "", tag: str = "p") -> None:
        """Add a line of text."""
        self.body.append(f'<{tag} class="{kind}">{escape(text)}</{tag}>' if kind else f"<{tag}>{escape(text)}</{tag}>")

    def table(self, keys: Sequence[Column], numbers: Sequence[Column], coloured: bool = True) -> None:
        """Add a table, with the colours of its rows."""
        columns = [*keys, *numbers]
        rows = ["<tr>" + "".join(f"<th>{escape(column.heading)}</th>" for column in columns) + "</tr>"]
        for i in range(len(columns[0].cells)):
            cells = [escape(column.cells[i]) for column in columns]
            if coloured:
                cells[0] = f'<span class="key" style="background:var(--c{i % COLOURS})"></span>{cells[0]}'
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        self.body.append(f'<div class="scroll"><table>{"".join(rows)}</table></div>')

    def chart(self, title: str, unit: str, curves: Sequence[Curve], labels: Sequence[str], caption: str) -> str:
        """Return a chart, whose numbers are added to the data of the page."""
        lines = [curve for curve in curves if len(curve.x)]
        if not lines:
            return ""
        x0, x1 = _range([curve.x for curve in lines])
        x0 = 0.0 if unit == "steps" else x0
        y0, y1 = _range([side for curve in lines for side in (curve.low, curve.high)])
        ticks = ticks_between(y0, y1)
        y0, y1 = min(y0, ticks[0]), max(y1, ticks[-1])
        colours = {label: i % COLOURS for i, label in enumerate(labels)}
        shapes = [_grid((tick - y0) / (y1 - y0)) for tick in ticks]
        for curve in lines:
            shapes.append(_shape(curve, colours[curve.label], (x0, x1, y0, y1)))
        words = [_tick("x", "left", (t - x0) / (x1 - x0), t) for t in ticks_between(x0, x1)]
        words += [_tick("y", "bottom", (t - y0) / (y1 - y0), t) for t in ticks]
        main = [curve for curve in lines if curve.run is None]
        self.charts.append({"x0": x0, "x1": x1, "unit": unit, "lines": [_numbers(c, colours[c.label]) for c in main]})
        svg = f'<svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" role="img">{"".join(shapes)}</svg>'
        plot = f'<div class="plot">{svg}{"".join(words)}</div>'
        return f"<figure><h3>{escape(title)}</h3>{plot}<figcaption>{escape(caption)}</figcaption></figure>"

    def text(self, title: str) -> str:
        """Return the whole page."""
        data = json.dumps(self.charts).replace("<", "\\u003c")
        page = TEMPLATE.read_text(encoding="utf-8").replace("@TITLE@", escape(title))
        before, rest = page.split("@BODY@")
        between, after = rest.split("@DATA@")
        return "".join([before, "\n".join(self.body), between, data, after])


def page(comparison: Comparison, references: bool = False) -> str:
    """Return a comparison as a page.

    Args:
        comparison: what is shown.
        references: add published scores.
    """
    made = Page()
    title = f"Comparison: {', '.join(block.environment for block in comparison.blocks)}"
    made.words(title, tag="h1")
    made.words(f"groups by {', '.join(comparison.grouping.keys) or 'nothing: one group'}", "dim")
    for note in comparison.notes:
        made.words(note, "warn")
    for block in comparison.blocks:
        _add_block(made, block, references)
    if overall := comparison.overall:
        made.words(f"Human-normalised, over {', '.join(overall.games)}", tag="h2")
        made.table(*tables.overall_columns(overall))
        made.body.append(f'<div class="charts">{_profile(made, overall.profile, "human-normalised score")}</div>')
    if comparison.grouping.along:
        made.words(f"The groups also differ in {', '.join(comparison.grouping.along)}.", "dim")
    for line in tables.CAPTION.splitlines():
        made.words(line, "dim")
    made.words(f"rlrun {__version__}", "dim")
    return made.text(title)


def _add_block(made: Page, block: Block, references: bool) -> None:
    made.words(block.environment, tag="h2")
    made.table(*tables.columns(block.rows))
    made.words(f"last: {block.source}; the agent at the end of each run", "dim")
    made.words(f"best (chosen): {block.chosen}", "dim")
    for line in tables.explained(block):
        made.words(line, "dim")
    curves = [curve for row in block.rows for curve in row.curves]
    labels = [row.label for row in block.rows]
    drawn = made.chart("Learning curves", "steps", curves, labels, LINES["eval"])
    made.body.append(f'<div class="charts">{drawn}{_profile(made, block.profile, "return")}</div>')
    found = list(tables.references(block)) if references else []
    if found:
        made.words(f"Published scores of {block.environment}", tag="h3")
        rows = [[score, source, protocol, differs or "-"] for score, source, protocol, differs in found]
        headings = ("score", "agent, source", "protocol", "not comparable, because")
        columns = [Column(h, list(cells)) for h, cells in zip(headings, zip(*rows, strict=True), strict=True)]
        made.table(columns, [], coloured=False)


def _profile(made: Page, profiles: Profiles, unit: str) -> str:
    labels = [curve.label for curve in profiles.curves]
    return made.chart("Performance profiles", unit, profiles.curves, labels, LINES["profile"])


# Charts.


def ticks_between(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers between two others, about as many as wanted."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(s for s in STEPS if s * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _range(values: Sequence[Any]) -> tuple[float, float]:
    """Return the lowest and the highest of some values, apart even if all are one."""
    low, high = min(float(np.min(v)) for v in values), max(float(np.max(v)) for v in values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _shape(curve: Curve, colour: int, frame: tuple[float, float, float, float]) -> str:
    """Return a curve as SVG: its line and, where it says something, its band."""
    x0, x1, y0, y1 = frame

    def points(xs: Any, ys: Any) -> str:
        at = zip((xs - x0) / (x1 - x0) * SIDE, (1 - (ys - y0) / (y1 - y0)) * SIDE, strict=True)
        return "L".join(f"{x:.1f},{y:.1f}" for x, y in at)

    line = points(curve.x, curve.mean)
    if curve.run is not None:
        return f'<path class="each" style="stroke:var(--c{colour})" d="M{line}"/>'
    least = stats.LEAST_RUNS if curve.kind == "profile" else stats.BAND_RUNS
    around = np.append(curve.x, curve.x[::-1]), np.append(curve.low, curve.high[::-1])
    band = f'<path class="band" style="fill:var(--c{colour})" d="M{points(*around)}Z"/>' if curve.runs >= least else ""
    return f'{band}<path style="stroke:var(--c{colour})" d="M{line}"/>'


def _grid(share: float) -> str:
    height = (1 - share) * SIDE
    return f'<path class="grid" d="M0,{height:.1f}L{SIDE},{height:.1f}"/>'


def _tick(axis: str, side: str, share: float, value: float) -> str:
    shift = "transform:translateY(50%);" if axis == "y" else ""
    return f'<span class="tick {axis}" style="{shift}{side}:{100 * share:.2f}%">{short(value)}</span>'


def short(value: float) -> str:
    """Return a number for an axis: 150k."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _numbers(curve: Curve, colour: int) -> dict[str, Any]:
    rounded = [
        [float(f"{v:.6g}") for v in point] for point in zip(curve.x, curve.mean, curve.low, curve.high, strict=True)
    ]
    return {"label": curve.label, "colour": colour, "points": rounded}
