"""The HTML page: it needs nothing else, its numbers are those of the comparison, and words cannot become markup."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rl_runner.report import page
from rl_runner.report.compare import compare
from tests.runs import a_run

VOID = ("meta", "link", "path", "br")


@pytest.fixture
def text(tmp_path: Path) -> str:
    for seed in range(5):
        a_run(tmp_path / f"a{seed}", {100: 0.0, 200: 4.0, 300: 10.0 * seed}, {"seed": seed, "agent.name": "<b>&a"})
        a_run(tmp_path / f"b{seed}", {100: 1.0, 200: 2.0, 300: 3.0}, {"seed": seed, "agent.name": "</script>"})
    return page.page(compare([str(tmp_path)]), references=True)


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
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)[0])
    curves, profiles = data
    assert (curves["x0"], curves["x1"], curves["unit"]) == (0, 300, "steps")
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
    last = re.findall(r'<path style="stroke:var\(--c0\)" d="M[^"]*L([\d.]+),([\d.]+)"', figure)[0]
    (height,) = [float(at) for at, tick in ticks if tick == "20"]
    assert [float(number) for number in last] == [1000, pytest.approx(1000 - 10 * height, abs=0.1)]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 100, [0, 20, 40, 60, 80, 100]), (-21, 21, [-20, -10, 0, 10, 20]), (0.1, 0.45, [0.1, 0.2, 0.3, 0.4])],
)
def test_round_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert page.ticks_between(low, high) == ticks


def test_short_numbers() -> None:
    assert [page.short(v) for v in (0, 2.5, -500, 12_500, 1e6)] == ["0", "2.5", "-500", "12.5k", "1M"]
