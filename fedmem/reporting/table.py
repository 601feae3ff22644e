"""The table that a terminal shows."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedmem.reporting.caption import caption_of
from fedmem.reporting.cells import Section
from fedmem.reporting.origin import origin
from fedmem.reporting.screen_notes import unclear_lists
from fedmem.reporting.sections import alarms, headline, legend, omitted_measures, sections, warnings
from fedmem.reporting.summarise import summarise
from fedmem.reporting.summary import Summary
from fedmem.results.read import Run, read

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text


NO_LIMIT = 10_000
"""The width of what has none, such as a file."""


_MIN = 14
"""The narrowest column of labels."""


_PROSE = 100
"""Sentences are broken here at the latest, however wide the terminal."""


def table(path_or_run: Path | str | Run) -> RenderableType:
    """The table that a run ends with, to be printed by rich.

    The verdict comes first. For each kind of audit example, local and global values of exposure, memorisation,
    membership and reconstruction are side by side. Then follow retention, differences in words, utility, limits, what
    the words mean, and where the files are. Every value has its interval and its n. The table is fitted to the width of
    the console, and no cell is ever broken.
    """
    return _Table(path_or_run if isinstance(path_or_run, Run) else read(path_or_run))


@dataclass(frozen=True)
class _Table:
    """The sections of a run as lines of text."""

    run: Run

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for text, style in self.lines(options.max_width):
            yield line_text(text, style)

    def lines(self, width: int) -> Iterator[tuple[str, str]]:
        """Lines of at most this width, each with its style. Only the path is longer where it has to be."""
        summary = Summary(self.run)
        table_sections = [section for section in sections(summary) if any(block for _, block in section.blocks)]
        yield from prose(headline(self.run), width, "bold")
        for alarm in alarms(self.run):
            yield from prose(alarm, width, "bold red", hang=2)
        for line in origin(self.run):
            yield from prose(line, width, hang=2)
        for warning in warnings(self.run):
            yield from prose(warning, width, "yellow", hang=2)
        short = summarise(self.run, summary)
        yield "", ""
        yield "VERDICT", "bold cyan"
        for verdict in short.verdicts:
            yield from prose(verdict.short, width, "bold", hang=2)
        yield "", ""
        yield from prose(caption_of(self.run, table_sections), width, "dim")
        grid = Grid.of(table_sections, width)
        for section in table_sections:
            yield "", ""
            yield from grid.lines(section)
            for note in section.notes:
                yield from prose(note, width, "yellow")
        yield "", ""
        yield "LIMITS", "bold cyan"
        for limit in short.limits:
            yield from prose(limit, width, hang=2)
        for places in unclear_lists(short):
            yield from prose(places, width, hang=2)
        yield "", ""
        yield "WORDS", "bold cyan"
        for term, meaning in legend(table_sections, summary):
            yield from prose(f"{term}: {meaning}", width, "dim", hang=2)
        yield from prose(omitted_measures(summary), width)
        yield f"Files: {self.run.path}", ""


def line_text(text: str, style: str) -> Text:
    """A line that rich leaves as it is."""
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ignore")


def prose(text: str, width: int, style: str = "", *, hang: int = 0) -> Iterator[tuple[str, str]]:
    """A paragraph broken between words."""
    for line in textwrap.wrap(text, min(width, _PROSE), subsequent_indent=" " * hang, break_long_words=False):
        yield line, style


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One set of columns for all sections, so that local and global values stand below each other.

    A row is a label, n, and cells. The brackets of the intervals in a column are aligned. A label too long for its
    column has a line of its own. Where not even the cells fit side by side, each has a line, after its title.
    """

    width: int
    count: int
    heads: Sequence[int]
    widths: Sequence[int]
    label: int

    @classmethod
    def of(cls, table_sections: Sequence[Section], width: int) -> Grid:
        """Columns that hold every row of these sections."""
        rows = [row for section in table_sections for _, block in section.blocks for row in block]
        lines = [*rows, *(section.columns for section in table_sections)]
        heads, widths = [], []
        for i in range(2, max((len(line) for line in lines), default=2)):
            cells = [line[i] for line in lines if i < len(line)]
            parts = [cell.partition(" [") for cell in cells if " [" in cell]
            head, tail = (max((len(part[j]) for part in parts), default=0) for j in (0, 2))
            heads.append(head)
            widths.append(max(head + 2 + tail, *map(len, cells)))
        count = max((len(row[1]) for row in rows), default=1)
        room = width - 4 - count - sum(2 + column_width for column_width in widths)
        longest = max([len(row[0]) for row in rows] + [len(section.title) - 2 for section in table_sections], default=0)
        return cls(width=width, count=count, heads=heads, widths=widths, label=max(min(longest, room), 0))

    def lines(self, section: Section) -> Iterator[tuple[str, str]]:
        """Title, headings and rows of a section."""
        rows = [row for _, block in section.blocks for row in block]
        label = self.label
        if max(len(row[0]) for row in rows) > label:
            cells_width = max(len(self._cells(row[1:])) for row in (*rows, section.columns))
            label = max(min(max(len(row[0]) for row in rows), self.width - 4 - cells_width), label)
        if label < min(
            _MIN, max(len(row[0]) for row in rows)
        ):  # then all labels have their own line, not only the long ones
            label = 0
        yield from ((line, "bold cyan") for line in self._row((section.title, *section.columns[1:]), section, label, 0))
        for heading, block in section.blocks:
            if heading and block:
                yield from prose(heading, self.width, "italic")
            for row in block:
                style = "dim" if "not significant" in row[-1] or row[-1] == "undefined" else ""
                yield from ((line, style) for line in self._row(row, section, label, 2))

    def _row(self, row: Sequence[str], section: Section, label: int, indent: int) -> Iterator[str]:
        """A row on one line, or its label on a line and its cells below it."""
        cells = self._cells(row[1:])
        space = label + 2 - indent
        if label and len(row[0]) <= space and label + 4 + len(cells) <= self.width:
            yield f"{' ' * indent}{row[0].ljust(space)}  {cells}".rstrip()
            return
        yield f"{' ' * indent}{row[0]}"
        if label and label + 4 + len(cells) <= self.width:
            yield f"{' ' * (label + 4)}{cells}"
        elif 3 + len(cells) <= self.width:
            yield f"   {cells}"
        elif indent:
            for title, cell in zip(section.columns[1:], row[1:], strict=True):
                if cell:
                    yield f"    {title}{' ' * bool(title)}{cell}"

    def _cells(self, cells: Sequence[str]) -> str:
        """The cells after the label: n to the right, values at their bracket, words to the left."""
        texts = [cells[0].rjust(self.count)]
        for cell, head, width in zip(cells[1:], self.heads, self.widths, strict=False):
            value, bracket, rest = cell.partition(" [")
            whole = f"{value.rjust(head)}{bracket}{rest}" if bracket or len(cell) <= head else cell
            texts.append(whole.ljust(width))
        return "  ".join(texts).rstrip()
