"""A comparison as one HTML page that needs nothing else: tables, and charts that show their values under the pointer.

A chart's SVG is stretched to the width that there is; its words are HTML beside it, so that they keep their size.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from rl_runner.report import comparison as tables
from rl_runner.report import groups, stats
from rl_runner.report.compare import Block, Comparison
from rl_runner.report.curves import Curve
from rl_runner.report.protocol import is_protocol
from rl_runner.report.tables import Column
from rl_runner.version import __version__

TEMPLATE = Path(__file__).with_name("page.html")
COLOURS = 8  # of the template
PENS = [(f"var(--c{i})", line) for line in ("solid", "dashed", "dotted") for i in range(COLOURS)]  # told apart
SHADE = 0.17  # opacity of a band
WRAPS = re.compile(r"(?<=,) (?![^\[]*\])| (?=\[)")  # where a cell of numbers may end a line
SIDE = 1000  # of the square that an SVG draws in
STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten
LINES = {
    "eval": f"mean return of evaluations while training; shade: 95 % bootstrap interval of the mean over seeds from "
    f"{stats.BAND_RUNS} seeds on, below that a thin line for each",
    "profile": "share of runs whose score at the end is higher than the one below; shade: 95 % bootstrap interval",
}


class Page:
    """Collects the parts of a page; the charts' numbers go into one block of data.

    Args:
        labels: of all groups; each has the same colour and kind of line everywhere.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.body: list[str] = []
        self.charts: list[dict[str, Any]] = []
        self._pens = {label: PENS[i % len(PENS)] for i, label in enumerate(dict.fromkeys(labels))}

    def words(self, text: str, kind: str = "", tag: str = "p") -> None:
        """Add a line of text."""
        self.body.append(_element(tag, text, kind))

    def table(self, texts: Sequence[Column], numbers: Sequence[Column]) -> None:
        """Add a table: columns of text, then columns of numbers. A group's label gets its colour before it."""
        columns = [*texts, *numbers]
        kinds = ["text"] * len(texts) + [""] * len(numbers)
        heads = [_element("th", column.heading, kind) for column, kind in zip(columns, kinds, strict=True)]
        rows = [f"<tr>{''.join(heads)}</tr>"]
        for i in range(len(columns[0].cells)):
            words = [self._text_cell(column.cells[i]) for column in texts]
            rows.append(f"<tr>{''.join(words)}{''.join(_number_cell(c.cells[i]) for c in numbers)}</tr>")
        self.body.append(f'<div class="scroll"><table>{"".join(rows)}</table></div>')

    def _text_cell(self, text: str) -> str:
        if text not in self._pens:
            return _element("td", text, "text")
        colour, line = self._pens[text]
        key = f'<span class="key" style="border-top-style:{line};border-top-color:{colour}"></span>'
        return f'<td class="text"><div class="named">{key}{_element("span", text)}</div></td>'

    def chart(self, title: str, x: str, y: str, curves: Sequence[Curve], caption: str) -> str:
        """Return a chart, whose numbers are added to the data of the page; `x` and `y` name its axes."""
        lines = [curve for curve in curves if len(curve.x)]
        if not lines:
            return ""
        x0, x1 = _range([curve.x for curve in lines])
        x0 = 0.0 if x == "steps" else x0
        y0, y1 = _range([side for curve in lines for side in (curve.low, curve.high)])
        ticks = ticks_between(y0, y1)
        y0, y1 = min(y0, ticks[0]), max(y1, ticks[-1])
        shapes = [_grid((tick - y0) / (y1 - y0)) for tick in ticks]
        drawn = [_shapes(curve, self._pens[curve.label], (x0, x1, y0, y1)) for curve in lines]
        shapes += [band for band, _ in drawn] + [line for _, line in drawn]  # no band covers a line
        words = [_tick("x", "left", (t - x0) / (x1 - x0), t) for t in ticks_between(x0, x1)]
        words += [_tick("y", "bottom", (t - y0) / (y1 - y0), t) for t in ticks]
        main = [curve for curve in lines if curve.run is None]
        self.charts.append({"x0": x0, "x1": x1, "x": x, "lines": [_numbers(c, self._pens[c.label]) for c in main]})
        shade = f"--shade:{min(SHADE, 1 / len(main)):.2g}"
        size = f'viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none"'
        svg = f'<svg {size} role="img" aria-label="{escape(title)}" style="{shade}">{"".join(shapes)}</svg>'
        plot = [
            _element("p", y, "axis"),
            f'<div class="plot">{svg}{"".join(words)}</div>',
            _element("p", x, "axis below"),
        ]
        return f"<figure>{_element('h3', title)}{''.join(plot)}{_element('figcaption', caption)}</figure>"

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
    made = Page([row.label for block in comparison.blocks for row in block.rows])
    title = f"Comparison: {', '.join(block.environment for block in comparison.blocks)}"
    made.words(title, tag="h1")
    keys = ", ".join(comparison.grouping.keys)
    made.words(f"groups by {keys}" if keys else "one group", "dim")
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
    intervals = () if comparison.grouping.within else (tables.INTERVALS,)
    for line in (*intervals, *tables.MEASURES.values()):
        made.words(line, "dim")
    made.words(f"rlrun {__version__}", "dim")
    return made.text(title)


def _add_block(made: Page, block: Block, references: bool) -> None:
    made.words(block.environment, tag="h2")
    made.table(*tables.columns(block.rows))
    made.words(f"protocol of all: {protocol(block)}", "dim")
    made.words(f"last: {block.source}; the agent at the end of each run", "dim")
    for line in tables.explained(block):
        made.words(line, "dim")
    curves = [curve for row in block.rows for curve in row.curves]
    drawn = made.chart("Learning curves", "steps", "mean return", curves, LINES["eval"])
    made.body.append(f'<div class="charts">{drawn}{_profile(made, block.profile, "return")}</div>')
    found = list(tables.references(block)) if references else []
    if found:
        made.words(f"Published scores of {block.environment}", tag="h3")
        rows = [[score, source, protocol, differs or "-"] for score, source, protocol, differs in found]
        headings = ("score", "agent, source", "protocol", "not comparable, because")
        columns = [Column(h, list(cells)) for h, cells in zip(headings, zip(*rows, strict=True), strict=True)]
        made.table(columns, [])


def _profile(made: Page, profile: list[Curve], unit: str) -> str:
    return made.chart("Performance profiles", unit, "share of runs", profile, LINES["profile"])


def protocol(block: Block) -> str:
    """Return how all runs of an environment were trained and measured, as far as they agree."""
    run = block.rows[0].runs[0]
    left_out = {*block.protocol, *block.training, *(("stop.window",) if run.config.get("stop.return") is None else ())}
    keys = [key for key in run.config if is_protocol(key) and key not in left_out and _is_set(run.config[key])]
    values = [run.config[key] for key in keys]
    texts = [f"{v:_}" if type(v) is int else groups.value(run, key) for key, v in zip(keys, values, strict=True)]
    return " ".join(f"{key}={text}" for key, text in zip(keys, texts, strict=True))


def _is_set(value: Any) -> bool:
    return value is not None and value != []


# Elements.


def _element(tag: str, text: str, kind: str = "") -> str:
    start = f'<{tag} class="{kind}">' if kind else f"<{tag}>"
    return f"{start}{re.sub(' (?=[%±])|(?<=±) ', '&nbsp;', escape(text))}</{tag}>"


def _number_cell(text: str) -> str:
    """Return a cell of numbers; a line ends before an interval, never in one."""
    return f"<td>{' '.join(part.replace(' ', '&nbsp;') for part in WRAPS.split(escape(text)))}</td>"


# Charts.


def ticks_between(low: float, high: float) -> list[float]:
    """Return round numbers between two others, about five."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(s for s in STEPS if s * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _range(values: Sequence[Any]) -> tuple[float, float]:
    """Return the lowest and the highest of some values, apart even if all are one."""
    low, high = min(float(np.min(v)) for v in values), max(float(np.max(v)) for v in values)
    room = max(0.5, abs(low) * 1e-6)  # at 1e17, 0.5 is lost in rounding
    return (low, high) if high > low else (low - room, high + room)


def _shapes(curve: Curve, pen: tuple[str, str], frame: tuple[float, float, float, float]) -> tuple[str, str]:
    """Return a curve as SVG: its band, where it says something, and its line."""
    (x0, x1, y0, y1), (colour, kind) = frame, pen

    def points(xs: Any, ys: Any) -> str:
        at = zip((xs - x0) / (x1 - x0) * SIDE, (1 - (ys - y0) / (y1 - y0)) * SIDE, strict=True)
        return "L".join(f"{x:.1f},{y:.1f}" for x, y in at)

    line = points(curve.x, curve.mean)
    if len(curve.x) == 1:
        line, kind = f"{line}h0", "dot"  # a line without length is drawn as a dot
    if curve.run is not None:
        return "", f'<path class="each {kind}" style="stroke:{colour}" d="M{line}"/>'
    least = stats.LEAST_RUNS if curve.kind == "profile" else stats.BAND_RUNS
    around = np.append(curve.x, curve.x[::-1]), np.append(curve.low, curve.high[::-1])
    band = f'<path class="band" style="fill:{colour}" d="M{points(*around)}Z"/>' if curve.runs >= least else ""
    return band, f'<path class="{kind}" style="stroke:{colour}" d="M{line}"/>'


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


def _numbers(curve: Curve, pen: tuple[str, str]) -> dict[str, Any]:
    sides = zip(curve.mean, curve.low, curve.high, strict=True)
    points = [[float(f"{x:.10g}"), *(float(f"{v:.6g}") for v in ys)] for x, ys in zip(curve.x, sides, strict=True)]
    return {"label": curve.label, "colour": pen[0], "line": pen[1], "points": points}
