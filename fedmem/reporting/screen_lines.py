"""Lines of a first screen: tables that fit a width, and sentences on few lines."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedmem.contracts.events import count

MORE = "--full"
"""The option that shows everything."""

_PROSE = 100
"""Sentences are broken here at the latest."""

_NARROWEST = 8
"""The fewest characters that the name of a kind is shortened to."""

Line = tuple[str, str]
"""A line and its style."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Lines of values, and whether none had to be left out."""

    lines: tuple[Line, ...]
    is_whole: bool

    @classmethod
    def of(
        cls,
        table: Sequence[Sequence[str]],
        significant: Sequence[bool],
        limit: int,
        gap: int = 2,
        *,
        preferred: Sequence[bool] = (),
        ranks: Sequence[int] = (),
        is_tested: bool = True,
    ) -> Rows:
        """A heading and at most `limit` lines in all; some rows are preferred where not all fit.

        Args:
            table: The heading, then the rows. Rows without an entry in `significant` are the last ones, and are shown
                wherever a row is.
            significant: Whether a row is significant; other rows are dim.
            limit: The most lines.
            gap: Spaces between columns.
            preferred: The rows that are shown first; by default the significant ones.
            ranks: The rank of each row; where not all fit, those of lower ranks are shown. By default preferred rows
                have the lower rank.
            is_tested: Whether rows are tested; otherwise none of those left out is called significant.
        """
        preferred = preferred or significant
        texts = align(table, gap)
        heading, rows, last = texts[0], texts[1 : len(significant) + 1], texts[len(significant) + 1 :]
        ranks = ranks or [not is_preferred for is_preferred in preferred]
        order = sorted(range(len(rows)), key=lambda index: (ranks[index], index))
        room = limit - 1 - len(last)
        is_whole = len(rows) <= room
        kept = set(order if is_whole else order[: max(room - 1, 0)])
        lines = [(rows[index], "" if preferred[index] else "dim") for index in sorted(kept)]
        if not is_whole:
            left_out = [is_significant for index, is_significant in enumerate(significant) if index not in kept]
            tested = f", {sum(left_out)} of them significant" if is_tested else ""
            lines.append((f"… {count(len(left_out), 'more row')}{tested}: {MORE}", ""))
        if not is_whole and not kept:
            return cls(lines=tuple(lines), is_whole=False)
        return cls(lines=((heading, "bold cyan"), *lines, *((text, "") for text in last)), is_whole=is_whole)


def wrap(text: str, width: int) -> list[str]:
    """A sentence on lines of at most this width; even a name without spaces is broken."""
    return textwrap.wrap(text, min(width, _PROSE))


def truncate(text: str, width: int) -> str:
    """A text on one line of at most this width; what is left out is marked.

    >>> truncate("one two three", 9), truncate("one", 9)
    ('one two …', 'one')
    """
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"


def count_text(count: int) -> str:
    """A number of values in words.

    >>> count_text(1), count_text(4)
    ('1 value', '4 values')
    """
    return f"{count} value{'s' * (count != 1)}"


def first_of(word: str, texts: Sequence[str], where: str, width: int, style: str) -> Iterator[Line]:
    """The first of several texts on one line, with their number and where the others are.

    Where it is too long, its first sentence is its short form, if that fits.
    """
    if not texts:
        return
    more = f" (and {len(texts) - 1} more: {where})" if len(texts) > 1 else ""
    text = f"{word}: {texts[0]}"
    if len(text) + len(more) > width and not more:
        more = f" ({where})"
    if len(text) + len(more) > width and len(short := text.partition(". ")[0]) + len(more) <= width:
        text = short
    yield f"{truncate(text, width - len(more))}{more}", style


def width_of(table: Sequence[Sequence[str]], gap: int = 2) -> int:
    """The longest line of a table."""
    return max(map(len, align(table, gap)))


def align(table: Sequence[Sequence[str]], gap: int = 2) -> list[str]:
    """Rows as lines whose columns begin below each other.

    >>> align([("a", "b"), ("long", "c")])
    ['a     b', 'long  c']
    """
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    pairs = [zip(row, widths, strict=True) for row in table]
    return [(" " * gap).join(cell.ljust(width) for cell, width in row).rstrip() for row in pairs]


def fit(table: Sequence[Sequence[str]], width: int) -> tuple[list[tuple[str, ...]], int]:
    """The same within a width, and the gap between its columns.

    First without zeros before the point, then without spaces before brackets of titles, then with narrow gaps. Then
    with shorter names, at last without retention.
    """
    rows = [tuple(row) for row in table]
    if width_of(rows) > width:
        rows = [(row[0], *map(_short_cell, row[1:])) for row in rows]
    if width_of(rows) > width:
        rows = [(row[0], row[1].replace(" (", "("), *row[2:]) for row in rows]
    gap = 2 if width_of(rows) <= width else 1
    for column in (0, 1):
        over = width_of(rows, gap) - width
        if over > 0:
            longest = max(max(len(row[column]) for row in rows) - over, _NARROWEST)
            rows = [(*row[:column], shorten(row[column], longest), *row[column + 1 :]) for row in rows]
    return (rows if width_of(rows, gap) <= width else [row[:4] for row in rows]), gap


def _short_cell(cell: str) -> str:
    return re.sub(r"(?<![\d.])0(?=\.\d)", "", cell).replace("[no interval]", "[–]")


def shorten(text: str, width: int) -> str:
    """A name of at most this width, shortened in its middle, so that endings stay distinct.

    >>> shorten("random_pattern_1", 9), shorten("short", 9)
    ('rand…rn_1', 'short')
    """
    if len(text) <= width:
        return text
    half = (width - 1) // 2
    return f"{text[: width - 1 - half]}…{text[len(text) - half :]}"
