"""What the commands print for a person: columns, sizes and times, in 80 columns.

Names and reasons come from a configuration, from far ends and from devices: they are
escaped, and shortened only where another column would be pushed out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from bridge.observe.escape import printable

__all__ = ["count", "cut", "size", "span", "table", "wrapped"]

WIDTH = 80


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], sides: str, notes: Sequence[str] = ()
) -> Iterator[str]:
    """Columns as wide as they must be; where that is too much, the first and the last left one give."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else 1
    elastic = [index for index, side in enumerate(sides) if side == "<"]
    while (excess := sum(widths) + gap * (len(widths) - 1) - WIDTH) > 0:
        widest = max(elastic, key=lambda index: widths[index])
        if widths[widest] <= 6:
            break  # numbers are never cut
        widths[widest] -= min(excess, widths[widest] - 6, 1)
    for at, row in enumerate([heads, *rows]):
        cells = [
            f"{cut(cell, width):{side}{width}}" for cell, width, side in zip(row, widths, sides, strict=True)
        ]
        yield (" " * gap).join(cells).rstrip()
        if at and notes and notes[at - 1]:
            yield from wrapped("  ", notes[at - 1])


def wrapped(indent: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        printable(text), WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent)
    )


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def count(number: int) -> str:
    """Exact up to a million, where the digits begin to blur."""
    if number < 1_000_000:
        return f"{number:,}"
    if number < 1_000_000_000:
        return f"{number / 1e6:.2f}M"
    return f"{number / 1e9:.2f}G"


def size(amount: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def span(seconds: float) -> str:
    """Two units of a duration: `3 d 4 h`, `5 min 20 s`, `0.4 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, long, small, short in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= long:
            return f"{seconds // long:.0f} {unit} {seconds % long // short:.0f} {small}"
    return f"{seconds:.0f} s"
