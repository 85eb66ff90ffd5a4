"""The HTML page: it needs nothing else, its numbers are those of the comparison, and words cannot become markup.

What a browser makes of it is tested where there is one; its looks, by day and by night, are for the eye.
"""

import itertools
import json
import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_runner.report import page
from rl_runner.report.compare import compare
from rl_runner.report.stats import Array
from tests.runs import a_run

VOID = ("meta", "link", "path", "br")
# What the three kinds of the colour-blind see of linear RGB (Machado et al. 2009), and what others see.
SIGHT = {
    "protanope": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranope": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanope": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    "other": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""
ERRORS = "<script>const errors = []; addEventListener('error', event => errors.push(event.message));</script>"
PROBE = """<script>{
  const tips = [], page = document.documentElement;
  const see = plot => tips.push(plot.querySelector(".tip").getBoundingClientRect().toJSON());
  for (const plot of document.querySelectorAll(".plot")) {
    const {left, width} = plot.getBoundingClientRect();
    for (const share of [0, 0.5, 1]) {
      plot.dispatchEvent(new PointerEvent("pointermove", {clientX: left + share * width}));
      see(plot);
    }
    plot.dispatchEvent(new PointerEvent("pointerleave", {pointerType: "mouse"}));
    plot.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}));
    see(plot);
  }
  const words = document.querySelector(".tip").innerText, widths = [page.scrollWidth, page.clientWidth];
  parent.document.body.dataset.seen = JSON.stringify({tips, words, errors, widths});
}</script>"""


@pytest.fixture
def text(tmp_path: Path) -> str:
    for seed in range(5):
        changes = {"seed": seed, "agent.name": "<b>&a", "total_steps": 30_000}
        a_run(tmp_path / f"a{seed}", {100: 0.0, 200: 4.0, 300: 10.0 * seed}, changes)
        a_run(tmp_path / f"b{seed}", {100: 1.0, 200: 2.0, 300: 3.0}, {**changes, "agent.name": "</script>"})
    return page.page(compare([str(tmp_path)]), references=True)


def charts(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)[0])
    return found


def colours(names: str) -> tuple[list[str], list[str]]:
    """Return the colours of some names, by day and by night."""
    found = re.findall(rf"--(?:{names}): (#\w{{6}});", page.TEMPLATE.read_text())
    return found[: len(found) // 2], found[len(found) // 2 :]


def linear(colour: str) -> Array:
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours by WCAG."""
    dark, light = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def lab(colour: str, sight: list[list[float]]) -> Array:
    """Return a colour, as somebody sees it, in a space where distances are differences that are seen (CIE 1976)."""
    xyz = TO_XYZ @ np.clip(np.array(sight) @ linear(colour), 0, 1) / TO_XYZ.sum(axis=1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_nothing_is_loaded_from_elsewhere(text: str) -> None:
    assert not re.findall(r"""(?:src|href)=|url\(|@import|https?:""", text)


def test_the_markup_is_whole_and_names_stay_text(text: str) -> None:
    open_ones: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in VOID:
                open_ones.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in VOID:
                assert open_ones.pop() == tag

    Reader().feed(text)
    assert open_ones == []
    assert "<b>&a" not in text
    assert "&lt;b&gt;&amp;a" in text
    assert text.count("</script>") == 2


def test_the_data_under_the_pointer_are_the_curves(text: str) -> None:
    curves, profiles = charts(text)
    assert (curves["x0"], curves["x1"], curves["x"]) == (0, 300, "steps")
    assert [line["label"] for line in curves["lines"]] == ["<b>&a", "</script>"]
    assert [point[:2] for point in curves["lines"][0]["points"]] == [[100, 0], [200, 4], [300, 20]]
    low, high = curves["lines"][0]["points"][2][2:]
    assert 0 < low < 20 < high < 40
    assert profiles["lines"][1]["points"][0][1] == 1
    assert profiles["lines"][1]["points"][-1][1] == 0


def test_a_curve_stands_where_its_numbers_are(text: str) -> None:
    """The mean of the first group ends at 20 of 40 ticks, half way up, on the right edge."""
    figure = text.split("<figure>")[1]
    ticks = re.findall(r'class="tick y" style="[^"]*bottom:([\d.]+)%">(\d+)<', figure)
    assert ("0.00", "0") in ticks
    last = re.findall(r'<path class="solid" style="stroke:var\(--c0\)" d="M[^"]*L([\d.]+),([\d.]+)"', figure)[0]
    (height,) = [float(at) for at, tick in ticks if tick == "20"]
    assert [float(number) for number in last] == [1000, pytest.approx(1000 - 10 * height, abs=0.1)]


def test_no_band_covers_a_line(text: str) -> None:
    for figure in text.split("<figure>")[1:]:
        assert figure.count('class="band"') == 2
        assert figure.rindex('class="band"') < figure.index('class="solid"')


def test_the_axes_are_named(text: str) -> None:
    names = re.findall(r'<p class="axis(?: below)?">([^<]*)<', text)
    assert names == ["mean return", "steps", "share of runs", "return"]


def test_how_the_runs_were_measured_is_said(text: str) -> None:
    said = "total_steps=30_000 eval.every_steps=100 eval.episodes=10 eval.epsilon=0.0 env.sticky=0.0"
    assert f'<p class="dim">protocol of all: {said}</p>' in text


def test_a_protocol_that_differs_is_not_that_of_all(tmp_path: Path) -> None:
    a_run(tmp_path / "a", {300: 1.0}, {"env.sticky": 0.0, "stop.return": 5, "total_steps": 30_000})
    a_run(tmp_path / "b", {300: 1.0}, {"env.sticky": 0.25, "stop.return": 5, "total_steps": 30_000})
    (block,) = compare([str(tmp_path)]).blocks
    said = "total_steps=30_000 eval.every_steps=100 eval.episodes=10 eval.epsilon=0.0 stop.return=5 stop.window=100"
    assert page.protocol(block) == said


def test_many_groups_are_told_apart_in_the_table_and_in_the_charts(tmp_path: Path) -> None:
    for i in range(12):
        a_run(tmp_path / f"{i}", {100: 1.0, 200: float(i)}, {"agent.name": f"agent{i:02}"})
    text = page.page(compare([str(tmp_path)]))
    for chart in charts(text):
        pens = [(line["label"], line["line"], line["colour"]) for line in chart["lines"]]
        assert len({pen[1:] for pen in pens}) == 12
        keys = re.findall(r'border-top-style:(\w+);border-top-color:([^"]+)"></span><span>([^<]+)', text)
        assert [(label, line, colour) for line, colour, label in keys] == pens
    assert text.count('<path class="dashed" style="stroke:var(--c0)"') == 2


def test_a_group_has_one_colour_in_all_environments(tmp_path: Path) -> None:
    a_run(tmp_path / "a", {100: 1.0}, {"agent.name": "a"})
    a_run(tmp_path / "b", {100: 1.0}, {"agent.name": "b"})
    a_run(tmp_path / "c", {100: 1.0}, {"agent.name": "b", "env.id": "Other-v1"})
    found = {
        (line["label"], line["colour"]) for c in charts(page.page(compare([str(tmp_path)]))) for line in c["lines"]
    }
    assert found == {("a", "var(--c0)"), ("b", "var(--c1)")}


def test_a_single_evaluation_is_a_dot(tmp_path: Path) -> None:
    a_run(tmp_path / "a", {100: 7.0})
    assert '<path class="dot" style="stroke:var(--c0)" d="M995.0,500.0h0"/>' in page.page(compare([str(tmp_path)]))


@pytest.mark.parametrize("by_night", [False, True])
def test_colours_can_be_told_apart_by_everybody(by_night: bool) -> None:
    paper, lines = colours("paper")[by_night][0], colours(r"c\d")[by_night]
    assert len(lines) == page.COLOURS
    assert min(contrast(line, paper) for line in lines) > 3
    for kind, sight in SIGHT.items():
        seen = {line: lab(line, sight) for line in lines}
        for one, other in itertools.combinations(lines, 2):
            assert np.linalg.norm(seen[one] - seen[other]) > 16, (kind, one, other)


@pytest.mark.parametrize("by_night", [False, True])
def test_words_can_be_read(by_night: bool) -> None:
    paper, warn_paper = (colours(name)[by_night][0] for name in ("paper", "warn-paper"))
    assert min(contrast(ink, paper) for ink in colours("ink|dim")[by_night]) > 4.5
    assert contrast(colours("warn")[by_night][0], warn_paper) > 4.5


def test_a_line_of_a_cell_ends_before_an_interval_but_not_in_it() -> None:
    cell = page._number_cell
    assert cell("1,234.5 [1,000.0, 2,000.0]") == "<td>1,234.5 [1,000.0,&nbsp;2,000.0]</td>"
    assert cell("5 of 5 runs, 20,000 steps, 0.1 min") == (
        "<td>5&nbsp;of&nbsp;5&nbsp;runs, 20,000&nbsp;steps, 0.1&nbsp;min</td>"
    )


def test_each_measure_is_explained_in_a_line_of_its_own(tmp_path: Path) -> None:
    a_run(tmp_path / "a", {100: 7.0})
    text = page.page(compare([str(tmp_path)], threshold=5))
    for name in ("IQM", "area", "last", "best (chosen)", "reached"):
        assert text.count(f'<p class="dim">{name}: ') == 1


def test_published_scores_are_text_from_the_left(tmp_path: Path) -> None:
    a_run(tmp_path / "a", {100: 7.0})
    text = page.page(compare([str(tmp_path)]), references=True)
    assert '<th class="text">not comparable, because</th>' in text
    assert '<td class="text">490&nbsp;±&nbsp;6</td><td class="text">PPO, CleanRL docs</td>' in text


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
@pytest.mark.parametrize("width", [390, 1400])
def test_in_a_browser_nothing_leaves_the_window(tmp_path: Path, width: int) -> None:
    for i in range(12):
        a_run(
            tmp_path / f"{i}",
            {100: 1.0, 200: 2345.0},
            {"agent.name": "a_name_that_is_as_long_as_no_other" * 2 + str(i)},
        )
    text = page.page(compare([str(tmp_path)], threshold=5), references=True)
    text = text.replace("<head>", f"<head>{ERRORS}").replace("</body>", f"{PROBE}</body>")
    (tmp_path / "a.html").write_text(
        f'<body><iframe width="{width}" height="800" srcdoc="{escape(text)}"></iframe></body>'
    )
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    ran = subprocess.run(
        [*command, "--dump-dom", f"file://{tmp_path}/a.html"], capture_output=True, text=True, timeout=120
    )
    seen = json.loads(unescape(re.findall(r'data-seen="([^"]*)"', ran.stdout)[0]))
    needed, there_is = seen["widths"]
    assert (seen["errors"], needed) == ([], there_is)
    assert len(seen["tips"]) == 8
    assert all(0 <= tip["left"] < tip["right"] <= there_is for tip in seen["tips"])
    assert seen["words"].startswith("steps: 100")


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 100, [0, 20, 40, 60, 80, 100]), (-21, 21, [-20, -10, 0, 10, 20]), (0.1, 0.45, [0.1, 0.2, 0.3, 0.4])],
)
def test_round_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert page.ticks_between(low, high) == ticks


@pytest.mark.parametrize("value", [0.0, 500.0, 1e17])
def test_a_range_of_equal_values_has_room(value: float) -> None:
    low, high = page._range([[value], [value]])
    assert low < value < high
    assert page.ticks_between(low, high)


def test_short_numbers() -> None:
    assert [page.short(v) for v in (0, 2.5, -500, 12_500, 1e6)] == ["0", "2.5", "-500", "12.5k", "1M"]
