"""The first screen of a comparison or sweep, in at most 20 lines.

The screen says what ran, and what failed. It has one line for each measure, kind and setting: the means at the owning
client and in the aggregate, and what aggregation retains. Then come sentences about significant, not significant and
undefined differences, their counts, the front, and the place of the report.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmem.contracts.events import count
from fedmem.estimation.saturation import MARK
from fedmem.reporting.cells import Value
from fedmem.reporting.screen_lines import MORE, Line, Rows, first_of, fit, truncate, wrap
from fedmem.reporting.table import line_text
from fedmem.reporting.verdict import list_text
from fedmem.studies.study_summary import SettingValue, StudySummary
from fedmem.studies.trades import by_means

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

LINES = 20
"""The most lines of a first screen."""

_ARROWS = {"higher": "↑", "lower": "↓"}


@dataclass(frozen=True, kw_only=True)
class StudyScreen:
    """The first screen of a comparison or sweep, to be printed by rich.

    Attributes:
        summary: What the study shows.
        last: The last lines: where results and report are, or how to draw it.
    """

    summary: StudySummary
    last: tuple[str, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for text, style in self.lines(options.max_width):
            yield line_text(text, style)

    def lines(self, width: int) -> list[Line]:
        """At most 20 lines of at most this width; only the last ones are longer where they have to be."""
        head, tail = list(self._head(width)), [*self._tail(width), *((line, "") for line in self.last)]
        room = LINES - len(head) - len(tail)
        sentences = [wrap(sentence.text, width) for sentence in self.summary.sentences]
        num_lines = sum(map(len, sentences))
        rows = self._table(width, max(room - min(num_lines, room // 2), 0))
        return [*head, *rows, *_sentence_lines(sentences, room - len(rows)), *tail]

    def _head(self, width: int) -> Iterator[Line]:
        """The scenarios that ran or failed, and the notes that a reader needs first."""
        summary = self.summary
        what = (
            f"{summary.title.partition(' · ')[0]}: {count(len(summary.settings), 'setting')} x "
            f"{count(len(summary.seeds), 'seed')}"
        )
        yield truncate(f"{what}: {'; '.join(summary.settings)}", width), "bold"
        yield from first_of("FAILED", summary.failures, MORE, width, "bold red")
        shown = summary.warnings[: _WARNINGS - 1 if len(summary.warnings) > _WARNINGS else _WARNINGS]
        for text in shown:
            short = _short_warning(text)
            yield from first_of("WARNING", [short if short == text else f"{short} ({MORE})"], MORE, width, "yellow")
        if len(shown) < len(summary.warnings):
            yield f"WARNING: {count(len(summary.warnings) - len(shown), 'more warning')}: {MORE}", "yellow"

    def _tail(self, width: int) -> Iterator[Line]:
        """How many differences are significant, and which settings no other one dominates."""
        fronts = [f"test accuracy and {front}" for front in self.summary.fronts]
        word = f"Front ({by_means(is_tested=self.summary.is_compared)})"
        if not fronts and len(self.summary.settings) > 1:
            yield truncate("Front: utility was not measured; add the probe {kind: utility}", width), ""
        if fronts:
            first, *rest = wrap(f"{word}: {fronts[0]}", width)
            # the settings on the front stand at its end, so that a long one takes two lines
            if rest:
                yield first, ""
            last = " ".join(rest) or first
            more = f" (and {count(len(fronts) - 1, 'more front')}: {MORE})" if len(fronts) > 1 else ""
            more = more or f" ({MORE})" * (len(last) > width)
            yield f"{truncate(last, width - len(more))}{more}", ""
        text = self._counts()
        yield truncate(text, width), "dim"

    def _counts(self) -> str:
        differences = self.summary.differences
        if not differences:
            return "Nothing is compared; fedmem compare tests differences"
        states = {
            "significant": [each for each in differences if each.is_significant],
            "not significant": [each for each in differences if each.verdict == "not significant"],
            "identical": [each for each in differences if each.verdict == "identical"],
            "undefined": [each for each in differences if each.is_undefined],
        }
        counts = ", ".join(f"{len(members)} {state}" for state, members in states.items() if members)
        return f"{count(len(differences), 'adjusted difference')}: {counts} ({MORE})"

    def _table(self, width: int, limit: int) -> list[Line]:
        """One line for each measure, kind and setting; those with significant differences are shown first."""
        groups: dict[Hashable, list[SettingValue]] = {}
        for value in self.summary.values:
            key = (value.title, value.kind, tuple(sorted(value.labels.items())))
            groups.setdefault(key, []).append(value)
        ordered = sorted(groups.values(), key=lambda group: not group[0].kind)
        cells, significant, preferred, ranks = [], [], [], []
        num_useful = sum(len({value.setting for value in group}) for group in ordered if group[0].is_utility)
        useful_rank = 0 if 2 * num_useful < limit else 1
        for group in ordered:
            settings = list(dict.fromkeys(value.setting for value in group))
            arrows = [self._arrow(value) for value in group]
            for setting in settings:
                pairs = list(zip(group, arrows, strict=True))
                of_setting = {value.level: (value, arrow) for value, arrow in pairs if value.setting == setting}
                cells.append((_name(group[0]), setting, *(_cell(of_setting.get(level)) for level in _LEVELS)))
                significant.append(any(arrow for _, arrow in of_setting.values()))
                preferred.append(significant[-1] or (any(arrows) and setting in self.summary.reference))
                if group[0].is_utility:
                    # the other axis of the front
                    ranks.append(useful_rank)
                elif preferred[-1]:
                    ranks.append(1)
                else:
                    ranks.append(2 + all(value.is_anything for value, _ in of_setting.values()))
        if not cells or limit < 2:
            return []
        marks = [f"↑ ↓ differs from {list_text(self._references())}"] * any(significant)
        marks += [f"{MARK} saturated"] * any(MARK in cell for row in cells for cell in row)
        heading = ("; ".join(marks), "", "owning client", "aggregate", "retained")
        table, gap = fit([heading, *cells], width)
        if any(row[:2] != short[:2] for row, short in zip(cells, table[1:], strict=True)):
            # names are worth more than what can be seen from the other two columns
            table, gap = fit([row[:4] for row in (heading, *cells)], width)
        is_tested = self.summary.is_compared
        if not is_tested:
            preferred = [True] * len(cells)
        return list(
            Rows.of(table, significant, limit, gap, preferred=preferred, ranks=ranks, is_tested=is_tested).lines
        )

    def _references(self) -> list[str]:
        return list(dict.fromkeys(self.summary.reference))

    def _arrow(self, value: SettingValue) -> str:
        """Whether a value is significantly higher or lower than that of the reference."""
        return next(
            (
                _ARROWS[each.verdict]
                for each in self.summary.differences
                if each.between == "settings"
                and each.is_significant
                and (each.setting, each.metric, each.kind, each.level, dict(each.labels))
                == (value.setting, value.metric, value.kind, value.level, dict(value.labels))
            ),
            "",
        )


_WARNINGS = 3
"""The most lines with warnings."""

_STATEMENT = 40
"""A shorter text before a colon is a heading, and no statement."""


def _short_warning(text: str) -> str:
    """The first statement of a warning: up to the end of its sentence, or the colon before its reasons.

    >>> _short_warning("With lr=1.0, nothing shows that the aggregate has learnt anything: it fails. Train.")
    'With lr=1.0, nothing shows that the aggregate has learnt anything'
    """
    clauses = re.split(r"\. |; ", text)[0].split(": ")
    num = next((n for n in range(1, len(clauses)) if len(": ".join(clauses[:n])) >= _STATEMENT), len(clauses))
    return ": ".join(clauses[:num]).rstrip(".")


_LEVELS = ("local", "global", "retention")


def _name(value: SettingValue) -> str:
    return f"{value.title}, {value.kind}" if value.kind else value.title


def _cell(entry: tuple[SettingValue, str] | None) -> str:
    """A mean with its interval, and an arrow where it differs significantly from that of the reference."""
    if entry is None:
        return ""
    value, arrow = entry
    if math.isnan(value.value):
        return "undefined" if value.level == "retention" else "–"
    estimate = Value(value=value.value, low=value.low, high=value.high, n=value.seeds, saturated=value.saturated)
    return f"{estimate.text(value.digits)}{arrow}"


def _sentence_lines(sentences: list[list[str]], room: int) -> list[Line]:
    """As many whole sentences as fit; the others are counted."""
    lines: list[Line] = []
    for place, sentence in enumerate(sentences):
        is_last = place == len(sentences) - 1
        if len(lines) + len(sentence) + (not is_last) > room:
            left_out = len(sentences) - place
            return [*lines, (f"… {count(left_out, 'more sentence')}: {MORE}", "")][: max(room, 0)]
        lines += [(line, "bold") for line in sentence]
    return lines
