"""Learning curves as a picture. The only module that needs matplotlib, an optional extra: import it late.

A figure is made without pyplot: no display is looked for, and no state is left in the process.
"""

from __future__ import annotations

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
from rl_runner.report.stats import mean_and_ci

AXIS = {"steps": "Steps", "frames": "Emulator frames", "minutes": "Minutes"}
# Told apart by the colour-blind too.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#222222", "#8c564b"]
STYLE: dict[Any, Any] = {
    "font.size": 10,
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


@contextmanager
def picture(path: Path, width: float, height: float, columns: Sequence[float] = (1,)) -> Iterator[list[Axes]]:
    """Return axes side by side, of these relative widths, and write them as a picture at the end."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
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
    with picture(path, 7.2, 3.6) as (axes,):
        labels = list(dict.fromkeys(c.label for c in curves))
        for curve in curves:
            draw_curve(axes, curve, COLOURS[labels.index(curve.label) % len(COLOURS)], main_kind(curves, curve.label))
        handles = legend_handles(curves, labels)
        if goal is not None:
            aim = axes.axhline(goal, color="#555555", linewidth=0.9, linestyle=(0, (5, 4)), zorder=3)
            aim.set_label(goal_label or f"goal: {goal:g}")
            handles.append(aim)
        axes.set(ylabel=ylabel, title=title)
        draw_axis(axes, unit, max(c.x[-1] for c in curves))
        paper = {"facecolor": "white", "edgecolor": "none", "framealpha": 0.9}  # no line through the words
        axes.legend(handles=handles, fontsize=8.5, loc="best", labelcolor="#333333", **paper)


def compare(path: Path, curves: Sequence[Curve], scores: Mapping[str, Sequence[float]], xlabel: str) -> None:
    """Draw configurations beside each other: a point for each seed, and their mean with its confidence interval.

    Args:
        path: the picture.
        curves: of evaluation, one per configuration, drawn on the left; none where there would be too many to read.
        scores: by configuration, one number per seed.
        xlabel: what the numbers are.
    """
    names = list(scores)
    height = 1.1 + sum(0.16 + 0.17 * len(_wrapped(name).splitlines()) for name in names)
    size = (10.4, max(3.6, height)) if curves else (7.2, max(2.4, height))
    with picture(path, *size, columns=(5, 4) if curves else (1,)) as (*left, right):
        for axes in left:
            for curve in curves:
                draw_curve(axes, curve, COLOURS[names.index(curve.label)], EVAL, shade=min(0.16, 0.5 / len(curves)))
            axes.set_ylabel("Return in evaluation\nmean over seeds, 95 % CI")
            draw_axis(axes, "steps", max(c.x[-1] for c in curves))
        for row, name in enumerate(names):
            draw_scores(right, row, scores[name], COLOURS[row] if curves else COLOURS[0])
        right.set_yticks(range(len(names)), labels=[_wrapped(name) for name in names])
        for i, label in enumerate(right.get_yticklabels()):
            label.set_color(COLOURS[i] if curves else "#333333")  # so that the curves need no legend
            label.set_parse_math(False)  # a $ is a $
        right.set_ylim(len(names) - 0.5, -0.5)  # the first on top
        right.grid(visible=True, axis="x")
        right.tick_params(length=0, axis="y")
        right.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        right.set_xlabel(f"{xlabel}\nmean, 95 % CI, each seed (pale)")


def draw_scores(axes: Axes, row: int, values: Sequence[float], colour: str) -> None:
    """Draw the mean of one configuration with its confidence interval, and its seeds as pale points below."""
    if not values:
        return
    mean, half = mean_and_ci(values)
    if len(values) > 1:
        axes.scatter(values, [row + 0.2] * len(values), s=14, color=colour, alpha=0.4, linewidths=0, zorder=2)
        axes.errorbar(mean, row, xerr=half, color=colour, capsize=3, linewidth=1.4, zorder=3)
    axes.scatter([mean], [row], s=36, color=colour, edgecolors="white", linewidths=0.8, zorder=4)


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
    """Draw one line, and its shade, as dark as said, if it is the main one."""
    if curve.kind != main:  # training beside evaluation
        axes.plot(curve.x, curve.mean, color=colour, linewidth=0.9, alpha=0.45, zorder=2)
        return
    (line,) = axes.plot(curve.x, curve.mean, color=colour, linewidth=1.6, zorder=4)
    if main == EVAL:
        line.set(marker="o", markersize=3.5, markeredgecolor="white", markeredgewidth=0.5)
    axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=shade, linewidth=0, zorder=1)


def legend_handles(curves: Sequence[Curve], labels: Sequence[str]) -> list[Line2D]:
    """Say which colour is which label, which line is what, and what the shade means."""
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
        alone = "" if EVAL in kinds else shade_means(curves)
        handles.append(Line2D([], [], color=colour, linewidth=0.9, alpha=0.6, label=f"training{alone}"))
    return handles


def shade_means(curves: Sequence[Curve]) -> str:
    """Say what the shade means."""
    main = [c for c in curves if c.kind == main_kind(curves, c.label)]
    meanings = []
    if any(c.runs == 1 and c.kind == EVAL for c in main):
        meanings.append("± 1 std over episodes")
    counts = sorted({c.runs for c in main if c.runs > 1})
    if counts:
        meanings.append(f"95% CI over {' or '.join(map(str, counts))} runs")
    return f" ({', '.join(meanings)})" if meanings else ""
