"""Learning curves as a picture. The only module that needs matplotlib, an optional extra: import it late.

A figure is made without pyplot: no display is looked for, and no state is left in the process.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from rl_runner.report.curves import EVAL, TRAIN, Curve
from rl_runner.report.stats import BAND_RUNS, mean_and_band

MAX_CURVES = 8  # configurations in one picture; more could not be told apart
AXIS = {"steps": "Steps", "frames": "Emulator frames", "minutes": "Minutes"}
# Told apart by the colour-blind too, and on white; those of page.html.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a22d6", "#222222", "#821767", "#6f4c2a"]
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "axes.titlecolor": "#333333",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
}


PAPER: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "framealpha": 0.9}  # no line through the words
LEGEND: dict[str, Any] = {"fontsize": 8.5, "title_fontsize": 8.5, "labelcolor": "#333333", **PAPER}


@contextmanager
def picture(
    path: Path, width: float, height: float, columns: Sequence[float] = (1,), title: str = ""
) -> Iterator[list[Axes]]:
    """Return axes side by side, of these relative widths, and write them as a picture at the end."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        if title:
            figure.suptitle(textwrap.fill(title, round(12 * width)), fontsize=10, color="#333333", parse_math=False)
        yield list(figure.subplots(1, len(columns), squeeze=False, width_ratios=columns)[0])
        figure.savefig(path, dpi=200, facecolor="white")


def draw(
    curves: Sequence[Curve],
    unit: str,
    path: Path,
    goal: float | None = None,
    goal_label: str | None = None,
    title: str = "",
    ylabel: str = "Return",
) -> None:
    """Draw curves as a picture.

    Args:
        curves: at least one.
        unit: of the horizontal axis, one of curves.UNITS.
        path: the picture; its suffix says which kind.
        goal: a return to draw a dashed line at.
        goal_label: what that line is, for the legend.
        title: of the picture.
        ylabel: of the vertical axis.
    """
    labels = list(dict.fromkeys(c.label for c in curves))
    handles = legend_handles(curves, labels)
    rows = math.ceil((len(handles) + (goal is not None)) / 2)
    with picture(path, 7.2, 3.4 + 0.2 * rows) as (axes,):
        for curve in curves:
            draw_curve(axes, curve, COLOURS[labels.index(curve.label) % len(COLOURS)], main_kind(curves, curve.label))
        if goal is not None:
            aim = axes.axhline(goal, color="#555555", linewidth=0.9, linestyle=(0, (5, 4)), zorder=3)
            aim.set_label(goal_label or f"goal: {goal:g}")
            handles.append(aim)
        axes.set(ylabel=ylabel, title=title)
        draw_axis(axes, unit, max(c.x[-1] for c in curves))
        if handles:
            axes.figure.legend(handles=handles, loc="outside lower center", ncols=2, **LEGEND)  # it covers no curve


def compare(
    path: Path,
    curves: Sequence[Curve],
    scores: Mapping[str, Sequence[float]],
    title: str,
    heading: str,
    measured: str = "Last evaluation",
    intervals: bool = True,
    order: Sequence[str] = (),
) -> None:
    """Draw configurations beside each other: learning curves on the left, scores on the right.

    Args:
        path: the picture.
        curves: of evaluation; none where there would be too many to read.
        scores: by configuration, one number per run; the first one stands on top.
        title: of the picture.
        heading: what tells the configurations apart, such as the key that was swept.
        measured: what the scores are of.
        intervals: draw those of the mean scores.
        order: of the configurations, by which they get their colours; none: that of the scores.
    """
    names = list(scores)
    colours = dict(zip(order or names, itertools.cycle(COLOURS), strict=False))
    height = 1.9 + sum(0.16 + 0.17 * len(_wrapped(name).splitlines()) for name in names)
    size = (10.4, max(4.2, height)) if curves else (7.2, max(3.0, height))
    below = -0.6 / (size[1] - 1.5)  # where legends stand, in heights of the axes
    with picture(path, *size, columns=(5, 4) if curves else (1,), title=title) as (*left, right):
        for axes in left:
            draw_curves(axes, curves, colours, below)
        for row, name in enumerate(names):
            draw_scores(right, row, scores[name], colours[name] if curves else COLOURS[0], intervals)
        right.set(title=measured, xlabel="Return", ylabel=textwrap.fill(heading, round(8 * size[1])))
        right.set_yticks(range(len(names)), labels=[_wrapped(name) for name in names])
        right.tick_params(axis="y", length=16 if curves else 0, width=2.5)  # ticks are the key to the curves
        for name, tick in zip(names, right.yaxis.get_major_ticks(), strict=True):
            tick.tick1line.set_markeredgecolor(colours[name] if curves else "none")
            tick.label1.set(parse_math=False, color="#333333")  # a $ is a $
        right.set_ylim(len(names) - 0.5, -0.5)  # the first on top
        right.grid(visible=True, axis="x")
        right.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        right.legend(
            handles=_score_handles(scores, intervals), ncols=3, loc="upper right", bbox_to_anchor=(1, below), **LEGEND
        )


def draw_curves(axes: Axes, curves: Sequence[Curve], colours: Mapping[str, str], below: float) -> None:
    """Draw the learning curves of configurations, and below them what their shades and thin lines mean."""
    for curve in curves:
        draw_curve(axes, curve, colours[curve.label], EVAL, shade=min(0.16, 0.5 / len(colours)))
    axes.set(title="Evaluations while training", ylabel="Return")
    draw_axis(axes, "steps", max(c.x[-1] for c in curves))
    meaning = shade_means(curves).strip(" ()").replace("; ", "\n") or "one run"
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, below), **LEGEND}
    axes.legend(handles=[Line2D([], [], color="#777777", marker="o", markersize=3.5, label=meaning)], **place)


def draw_scores(axes: Axes, row: int, values: Sequence[float], colour: str, intervals: bool = True) -> None:
    """Draw the mean of one configuration, with its confidence interval if that says something, and its runs."""
    if not values:
        return
    mean, low, high = mean_and_band(values)
    if len(values) > 1:
        axes.scatter(values, [row + 0.2] * len(values), s=14, color=colour, alpha=0.4, linewidths=0, zorder=2)
    if intervals and len(values) >= BAND_RUNS:
        axes.errorbar(mean, row, xerr=[[mean - low], [high - mean]], color=colour, capsize=3, linewidth=1.4, zorder=3)
    axes.scatter([mean], [row], s=36, color=colour, edgecolors="white", linewidths=0.8, zorder=4)


def _score_handles(scores: Mapping[str, Sequence[float]], intervals: bool) -> list[Line2D]:
    """Return the legend of the scores: what is drawn of any configuration."""
    counts = [len(values) for values in scores.values()]
    dot: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": "#777777"}
    handles = [Line2D([], [], markersize=6, label="mean over runs", **dot)]
    if intervals and max(counts) >= BAND_RUNS:
        handles.append(Line2D([], [], color="#777777", label="its 95 % CI"))
    if max(counts) > 1:
        handles.append(Line2D([], [], markersize=4, alpha=0.5, label="each run", **dot))
    return handles


def _wrapped(name: str) -> str:
    return textwrap.fill(name, 32, break_long_words=False)


def draw_axis(axes: Axes, unit: str, end: float) -> None:
    """Draw the horizontal axis of learning curves."""
    axes.set_xlabel(AXIS[unit])
    axes.set_xlim(left=0, right=end * 1.01 or 1)
    if unit != "minutes":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params(length=3)


def main_kind(curves: Sequence[Curve], label: str) -> str:
    """Return the curve of a label that is drawn thick: evaluation where there is one."""
    return EVAL if any(c.kind == EVAL and c.label == label for c in curves) else TRAIN


def draw_curve(axes: Axes, curve: Curve, colour: str, main: str, shade: float = 0.16) -> None:
    """Draw one line, and its band with the opacity `shade`, if it is the main one and has enough runs."""
    if curve.run is not None:
        axes.plot(curve.x, curve.mean, color=colour, linewidth=0.8, alpha=0.4, zorder=2)
        return
    if curve.kind != main:  # training beside evaluation
        axes.plot(curve.x, curve.mean, color=colour, linewidth=0.9, alpha=0.45, zorder=2)
        return
    (line,) = axes.plot(curve.x, curve.mean, color=colour, linewidth=1.6, zorder=4)
    if main == EVAL:
        line.set(marker="o", markersize=3.5, markeredgecolor="white", markeredgewidth=0.5)
    if curve.runs == 1 or curve.runs >= BAND_RUNS:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=shade, linewidth=0, zorder=1)


def legend_handles(curves: Sequence[Curve], labels: Sequence[str]) -> list[Line2D]:
    """Return the legend: a colour for each label, a line for each kind of curve, and what the shade means."""
    handles: list[Line2D] = []
    colour = COLOURS[0]
    if len(labels) > 1:
        handles += [Line2D([], [], color=COLOURS[i % len(COLOURS)], label=name) for i, name in enumerate(labels)]
        colour = "#777777"
    kinds = {c.kind for c in curves}
    if EVAL in kinds:
        handles.append(
            Line2D([], [], color=colour, marker="o", markersize=3.5, label=f"evaluation{shade_means(curves)}")
        )
        if TRAIN in kinds:
            handles.append(Line2D([], [], color=colour, linewidth=0.9, alpha=0.6, label="training"))
    elif meaning := shade_means(curves).strip(" ()"):
        handles.append(Line2D([], [], color=colour, linewidth=1.6, label=meaning))
    return handles


def shade_means(curves: Sequence[Curve]) -> str:
    """Return in words what is drawn about the main lines: a shade, or thin lines."""
    main = [c for c in curves if c.kind == main_kind(curves, c.label) and c.run is None]
    meanings = []
    if any(c.runs == 1 and c.kind == EVAL and len(c.x) > 1 and (c.high > c.low).any() for c in main):
        meanings.append("shade: ± 1 std over episodes")
    few = sorted({c.runs for c in main if 1 < c.runs < BAND_RUNS})
    if few:
        meanings.append(f"mean of {' or '.join(map(str, few))} runs, thin: each")
    many = sorted({c.runs for c in main if c.runs >= BAND_RUNS})
    if many:
        meanings.append(f"mean of {' or '.join(map(str, many))} runs, shade: its 95 % CI")
    return f" ({'; '.join(meanings)})" if meanings else ""


def bars(path: Path, values: Mapping[str, float], xlabel: str, title: str) -> None:
    """Draw one bar for each name, the longest on top."""
    names = sorted(values, key=lambda name: values[name])
    with picture(path, 7.2, 1.3 + 0.35 * len(names), title=title) as (axes,):
        axes.barh(range(len(names)), [values[name] for name in names], color=COLOURS[0], height=0.6)
        axes.set_yticks(range(len(names)), labels=[textwrap.fill(name, 40) for name in names])
        for row, name in enumerate(names):
            axes.annotate(f"{values[name]:.2f}", (values[name], row), (4, 0), textcoords="offset points", va="center")
        axes.set(xlabel=xlabel, xlim=(0, max(1e-9, *values.values()) * 1.25))
        axes.grid(visible=False, axis="y")
        axes.tick_params(length=0, axis="y")
