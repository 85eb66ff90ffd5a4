"""Pictures: their words neither overlap nor leave the picture, and their colours are those of the page."""

import itertools
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from rl_runner.report import page, pictures
from rl_runner.report.curves import EVAL, Curve

LONG = [
    f"network.head=DistributionalDuelingNoisyHead{i} network.torso.sizes=[64, 64, 64] exploration.end=0.0{i}"
    for i in range(pictures.MAX_CURVES)
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The axes of pictures, the left ones first."""
    kept: list[Axes] = []
    original = pictures.picture

    @contextmanager
    def picture(*args: Any, **more: Any) -> Iterator[list[Axes]]:
        with original(*args, **more) as axes:
            kept.extend(axes)
            yield axes

    monkeypatch.setattr(pictures, "picture", picture)
    return kept


def a_curve(label: str) -> Curve:
    x = np.array([0, 100])
    return Curve(label, EVAL, x, x, x, x, runs=5)


def laid_out(axes: list[Axes]) -> list[Axes]:
    """Return axes after their words have got their places."""
    axes[0].figure.draw_without_rendering()
    return axes


def test_long_names_do_not_overlap(tmp_path: Path, drawn: list[Axes]) -> None:
    scores = {name: [1.0, 2.0, 3.0, 4.0, 5.0] for name in LONG}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of what it cannot fit in
        pictures.compare(tmp_path / "a.png", [a_curve(name) for name in LONG], scores, "title", "heading")
    left, right = laid_out(drawn)
    boxes = [label.get_window_extent() for label in right.get_yticklabels()]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert not any(box.overlaps(left.get_window_extent()) for box in boxes)


def test_the_key_to_the_curves_stands_beside_the_names(tmp_path: Path, drawn: list[Axes]) -> None:
    names = ["dqn", "ppo", "a2c"]
    pictures.compare(tmp_path / "a.png", [a_curve(name) for name in names], {n: [1.0] for n in names}, "", "heading")
    left, right = drawn
    keys = [to_hex(tick.tick1line.get_markeredgecolor()) for tick in right.yaxis.get_major_ticks()]
    assert keys == [to_hex(line.get_color()) for line in left.get_lines()] == pictures.COLOURS[:3]
    assert {label.get_color() for label in right.get_yticklabels()} == {"#333333"}


def test_colours_follow_the_order_of_the_configurations_not_their_scores(tmp_path: Path, drawn: list[Axes]) -> None:
    curves, scores = [a_curve("ppo"), a_curve("dqn")], {"ppo": [2.0], "dqn": [1.0]}
    pictures.compare(tmp_path / "a.png", curves, scores, "", "heading", order=["dqn", "none", "ppo"])
    left, right = drawn
    wanted = [pictures.COLOURS[2], pictures.COLOURS[0]]
    assert [to_hex(line.get_color()) for line in left.get_lines()] == wanted
    assert [to_hex(tick.tick1line.get_markeredgecolor()) for tick in right.yaxis.get_major_ticks()] == wanted


def test_what_is_drawn_of_few_and_of_many_seeds_is_said_in_lines(tmp_path: Path, drawn: list[Axes]) -> None:
    curves = [a_curve("dqn"), a_curve("ppo")._replace(runs=3)]
    pictures.compare(tmp_path / "a.png", curves, {"dqn": [1.0] * 5, "ppo": [1.0] * 3}, "title", "heading")
    legend = drawn[0].get_legend()
    assert legend is not None
    said = ["mean of 3 runs, thin: each", "mean of 5 runs, shade: its 95 % CI"]
    assert [text.get_text().splitlines() for text in legend.get_texts()] == [said]


def test_numbers_at_bars_stay_inside(tmp_path: Path, drawn: list[Axes]) -> None:
    pictures.bars(tmp_path / "a.png", {"optimizer.lr": 0.6, "a" * 60: 0.4}, "Importance", "title")
    (axes,) = laid_out(drawn)
    assert len(axes.texts) == 2
    assert all(text.get_window_extent().x1 < axes.get_window_extent().x1 for text in axes.texts)


def test_the_colours_are_those_of_the_page_on_white() -> None:
    assert re.findall(r"--c\d: (#\w{6})", page.TEMPLATE.read_text())[: page.COLOURS] == pictures.COLOURS


def test_a_shade_is_explained_where_there_is_one() -> None:
    curve = a_curve("dqn")._replace(runs=1, high=np.array([1, 101]))
    assert pictures.shade_means([curve]) == " (shade: ± 1 std over episodes)"
    once = curve._replace(x=curve.x[:1], mean=curve.mean[:1], low=curve.low[:1], high=curve.high[:1])
    assert pictures.shade_means([once]) == ""
