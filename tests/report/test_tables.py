"""Tables of a terminal: what fits, and cells that are shown as they are."""

import io

import pytest
from rich.console import Console

from rl_runner.report.tables import Column, fitted, places, print_fitted, stacked

RUNS = Column("network.torso.sizes", ["[64]", "[/64]"])  # rich would read both as markup
NUMBERS = [Column("steps", ["1,000", "2,000"]), Column("[mean]", ["1.0", "[/x]"]), Column("std", ["0.1", "0.2"])]


def printed(width: int, expendable: tuple[str, ...] = ()) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_fitted(console, [RUNS], NUMBERS, expendable, "in the file")
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_cells_and_headings_are_shown_as_they_are() -> None:
    rows = [line.replace("│", " ").replace("┃", " ").split() for line in printed(80).splitlines()]
    assert ["network.torso.sizes", "steps", "[mean]", "std"] in rows
    assert ["[64]", "1,000", "1.0", "0.1"] in rows
    assert ["[/64]", "2,000", "[/x]", "0.2"] in rows


def test_keys_are_shortened_then_columns_are_left_out_in_their_order() -> None:
    whole = 1 + sum(column.width for column in (RUNS, *NUMBERS))
    assert fitted([RUNS], NUMBERS, whole, ["std", "steps"])[1] == []
    table, left_out = fitted([RUNS], NUMBERS, whole - 1, ["std", "steps"])
    assert table is not None
    assert (table.columns[0].header, left_out) == ("sizes", [])
    assert fitted([RUNS], NUMBERS, 26, ["std", "steps"])[1] == ["std"]
    assert fitted([RUNS], NUMBERS, 18, ["std", "steps"])[1] == ["std", "steps"]
    assert fitted([RUNS], NUMBERS, 10, ["std", "steps"]) == (None, [])


def test_a_terminal_too_narrow_for_any_table_shows_lines() -> None:
    assert list(stacked([RUNS], NUMBERS[:1])) == [
        "network.torso.sizes=[64]",
        "  steps 1,000",
        "network.torso.sizes=[/64]",
        "  steps 2,000",
    ]
    assert "[/64]" in printed(10)


@pytest.mark.parametrize(
    ("values", "digits"),
    [([1234.0, 2.0], 0), ([99.5], 2), ([0.5, -3.0], 3), ([0.001], 3), ([], 2), ([float("inf")], 2)],
)
def test_four_digits_of_the_largest_value(values: list[float], digits: int) -> None:
    assert places(values) == digits
