"""Tables that fit into a terminal: whole words and whole numbers, or fewer columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text


class Column(NamedTuple):
    """One column of a table."""

    heading: str
    cells: Sequence[str]  # one per row

    @property
    def width(self) -> int:
        """Characters that it takes, with a space on both sides and a line."""
        return 3 + max(map(len, [self.heading, *self.cells]))


def places(values: Sequence[float]) -> int:
    """Return how many decimal places show four digits of the largest value, between none and three."""
    largest = max((abs(value) for value in values), default=0.0)
    return min(max(3 - math.floor(math.log10(largest)), 0), 3) if 0 < largest < math.inf else 2


def print_words(console: Console, text: str, style: str = "") -> None:
    """Print text; a terminal's lines end between words."""
    console.print(Text(text, style=style), soft_wrap=not console.is_terminal)


def print_fitted(
    console: Console, keys: Sequence[Column], numbers: Sequence[Column], expendable: Sequence[str], elsewhere: str
) -> set[str]:
    """Print the table that fits, and where the columns left out of it are; where none fits, lines instead.

    Args:
        console: where to.
        keys: as for `fitted`.
        numbers: as for `fitted`.
        expendable: as for `fitted`.
        elsewhere: where all columns are, such as "results.csv".

    Returns:
        the headings of the columns that are shown.
    """
    table, left_out = fitted(keys, numbers, console.width, expendable)
    if table is None:
        for line in stacked(keys, numbers):
            console.print(line, markup=False)
        return {column.heading for column in numbers}
    console.print(table)
    if left_out:
        print_words(console, f"too narrow here for {', '.join(left_out)}: see {elsewhere}")
    return {column.heading for column in numbers} - set(left_out)


def fitted(
    keys: Sequence[Column], numbers: Sequence[Column], width: int, expendable: Sequence[str] = ()
) -> tuple[Table | None, list[str]]:
    """Return the table that fits into a width, and the headings of the columns left out of it; None if none fits.

    Args:
        keys: what the rows are of; dotted keys are shortened to their last parts if that is needed.
        numbers: what is known of the rows.
        width: in characters.
        expendable: headings of columns that may be left out, the first one first.
    """
    expendable = [heading for heading in expendable if any(column.heading == heading for column in numbers)]
    for count in range(len(expendable) + 1):
        left_out = expendable[:count]
        kept = [column for column in numbers if column.heading not in left_out]
        for first in (keys, _shortened(keys)):
            if 1 + sum(column.width for column in (*first, *kept)) <= width:
                return _table(first, kept), left_out
    return None, []


def stacked(keys: Sequence[Column], numbers: Sequence[Column]) -> Iterator[str]:
    """Yield the rows as lines, each number in a line of its own, for terminals too narrow for any table."""
    for row in range(len(numbers[0].cells)):
        yield "  ".join(f"{key.heading}={key.cells[row]}" for key in keys)
        yield from (f"  {column.heading} {' '.join(column.cells[row].split())}" for column in numbers)


def _table(keys: Sequence[Column], numbers: Sequence[Column]) -> Table:
    table = Table()
    for column in keys:
        table.add_column(escape(column.heading), no_wrap=True)
    for column in numbers:
        table.add_column(escape(column.heading), justify="right", no_wrap=True)
    for row in range(len(numbers[0].cells)):
        table.add_row(*(escape(column.cells[row]) for column in (*keys, *numbers)))
    return table


def _shortened(keys: Sequence[Column]) -> list[Column]:
    """Return the columns with the last part of each dotted key as its heading, where that means one key alone."""
    last = [column.heading.rpartition(".")[2] for column in keys]
    return [
        column._replace(heading=name) if last.count(name) == 1 else column
        for column, name in zip(keys, last, strict=True)
    ]
