"""A comparison for people: sections of a table, and its lines for a terminal. From its values, nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from fedmem.contracts.events import count
from fedmem.estimation.saturation import MARK
from fedmem.reporting.cells import Section, Value, number
from fedmem.reporting.table import Grid, line_text, prose
from fedmem.reporting.verdict import list_text
from fedmem.studies.comparison import Comparison, Retention, Row
from fedmem.studies.contrasts import MAX_SEEDS, Contrast, Mean, Ratio
from fedmem.studies.finer import finer_rows
from fedmem.studies.not_significant import not_significant_note as not_significant_note
from fedmem.studies.quantities import Quantity
from fedmem.studies.reading_notes import (
    condition_warning,
    few_seeds_warning,
    notes_of_measure,
    with_condition,
    with_few_seeds,
)
from fedmem.studies.trades import Trade, by_means
from fedmem.studies.within import sections_within

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

CAPTION = (
    "Means over seeds, in brackets 95 % intervals; each seed draws data, random inclusion, canaries and weights, and "
    "all settings share them. Differences are paired by seeds. The column p is that of no difference. It and the "
    "intervals of differences are adjusted for the number of tests that stands beside p (Bonferroni). The number is "
    "fixed before the runs: it counts settings whose runs failed, although no value of them is used. So the chance of "
    "any wrong call among the tests of one measure is at most 5 %. A difference is called exactly where its interval "
    "excludes 0."
)

SWEEP_CAPTION = (
    "Means over seeds, in brackets 95 % intervals; each seed draws data, random inclusion, canaries and weights, and "
    "all settings share them. Nothing is compared here: fedmem compare tests differences of settings, kinds and levels."
)

WITHIN_CAPTION = (
    "Means over seeds, in brackets 95 % intervals; each seed draws data, random inclusion, canaries and weights. "
    "Differences of kinds and of levels are paired by seeds. Their p and intervals are adjusted for the number of "
    "tests that stands "
    "beside p (Bonferroni). A difference is called exactly where its interval excludes 0. Other kinds are other "
    "examples, and other levels are other models: a difference does not say why. The column detects has the smallest "
    "difference that these seeds would have found with 80 % chance."
)

POWER = (
    "A difference that is not significant is no evidence that there is none. The column detects has the smallest "
    "difference that these seeds would have found with 80 % chance. It is more than possible where no difference is so "
    "large: take more seeds. The column seeds says how many would find the difference that was seen."
)

SATURATED = (
    f"{MARK} saturated: within half a bit of the ceiling of exposure, log2(references + 1). Other measures are "
    "saturated within .01 (AUC, rates, accuracy) or .05 (memorisation) of their end. Two saturated values cannot show "
    "a difference. One saturated value hides a part of it. The retention of a saturated local value is too high."
)


def saturation_note(comparison: Comparison) -> str:
    """The meaning of the mark of saturated values; empty if nothing is saturated."""
    marks = [row.saturated for row in comparison.rows]
    marks += [entry.saturated for entry in comparison.retention]
    marks += [trade.saturated for trade in comparison.trades]
    return SATURATED if any(marks) else ""


def study_warnings(comparison: Comparison) -> tuple[str, ...]:
    """The warnings of the runs, each with its settings unless all have it, then how few seeds some number has."""
    sizes = [row.mean.n if row.contrast is None else row.contrast.n for row in comparison.rows]
    fewest = min((n for n in sizes if n > 1), default=0)
    of_runs = []
    for place, text in enumerate(comparison.warnings):
        settings = comparison.warned[place] if place < len(comparison.warned) else ()
        names = list_text([comparison.labels[setting] for setting in settings])
        is_of_all = not settings or len(settings) == len(comparison.settings)
        of_runs.append(
            text.removeprefix("WARNING: ") if is_of_all else f"With {names}, {text.removeprefix('WARNING: ')}"
        )
    return tuple(filter(None, (*of_runs, condition_warning(comparison), few_seeds_warning(fewest))))


def is_compared(comparison: Comparison) -> bool:
    """Whether some setting is compared with another one; those of a sweep are not."""
    return any(other != setting for setting, other in enumerate(comparison.reference))


def reading_notes(comparison: Comparison) -> str:
    """How to read the table."""
    if is_compared(comparison):
        return CAPTION
    return WITHIN_CAPTION if len(comparison.settings) == 1 else SWEEP_CAPTION


def sections(comparison: Comparison) -> Iterator[Section]:
    """The table part by part: differences by measure, and what aggregation keeps."""
    others = set(comparison.reference)
    against = comparison.labels[others.pop()] if len(others) == 1 else "its reference"
    # a sweep compares no settings: its rows end with their means
    columns = None if is_compared(comparison) else 3
    finer = finer_rows(comparison)
    for title, measure_rows in groupby(comparison.rows, key=lambda row: row.quantity.title):
        section_rows = list(measure_rows)
        blocks = [
            (
                _heading(quantity),
                tuple(
                    cells[:columns]
                    for row in group
                    for cells in (
                        _row(comparison, row),
                        *(_finer_row(comparison, other) for other in finer.get((quantity, row.setting), ())),
                    )
                ),
            )
            for quantity, group in groupby(section_rows, key=lambda row: row.quantity)
        ]
        unit = section_rows[0].quantity.unit
        difference = f"minus {against}{unit and ', '}{unit}"
        tests = count(section_rows[0].tests, "test")
        yield Section(
            title=title.upper(),
            columns=("", "seeds", "mean", difference, f"p, {tests}", "")[:columns],
            blocks=tuple(blocks),
            notes=(
                *notes_of_measure(comparison, title),
                *_settings_on_other_examples(comparison, section_rows),
            ),
        )
    if len(comparison.settings) == 1:
        yield from sections_within(comparison)
    retention_blocks = []
    for quantity, group in groupby(comparison.retention, key=lambda entry: entry.quantity):
        name = f"{quantity.title}, {quantity.kind}"
        rows = [(entry, _retention_text(entry)) for entry in group]
        retention_blocks.append(
            (
                name,
                tuple(
                    (comparison.labels[entry.setting], str(entry.ratio.n), text, *_retention_cells(entry))[:columns]
                    for entry, text in rows
                ),
            )
        )
    yield Section(
        title="WHAT AGGREGATION KEEPS",
        columns=("", "seeds", "global / local", f"minus {against}", "p", "")[:columns],
        blocks=tuple(retention_blocks),
        notes=_retention_notes(comparison),
    )


def _retention_notes(comparison: Comparison) -> tuple[str, ...]:
    """For how many tests the differences of retention are adjusted, measure by measure, and where there is none."""
    tests = {entry.quantity.title: entry.tests for entry in comparison.retention if entry.difference is not None}
    sizes = "; ".join(f"{title} {number_of_tests}" for title, number_of_tests in tests.items())
    notes = [f"Intervals and p of these differences are adjusted for the number of tests: {sizes}."] if tests else []
    places_by_reason: dict[str, list[str]] = {}
    for entry in comparison.retention:
        if entry.reason:
            place = f"{entry.quantity.title}, {entry.quantity.kind}, {comparison.labels[entry.setting]}"
            places_by_reason.setdefault(entry.reason, []).append(place)
    for reason, places in places_by_reason.items():
        more = f"; and {len(places) - 3} more" if len(places) > 3 else ""
        where = f" ({'; '.join(places[:3])}{more})" if len(places_by_reason) > 1 else ""
        notes.append(f"Undefined{where}: {reason}, so there is nothing to divide by.")
    return tuple(notes)


def _retention_cells(entry: Retention) -> tuple[str, str, str]:
    """The difference of a retention to the reference, its p, and what comes of it."""
    if entry.difference is None:
        return "reference", "", ""
    verdict = entry.verdict
    if verdict == "saturated":
        verdict = "saturated: a ratio is too high"
    if verdict == "not significant":
        verdict += f" (detects {number(entry.detectable, 2)})"
    verdict = with_condition(with_few_seeds(verdict, entry.difference.n), other=entry.other_condition)
    return estimate_text(entry.difference, 2), _p_text(entry.difference.p), verdict


def _p_text(p: float) -> str:
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _retention_text(entry: Retention) -> str:
    """The retention as text."""
    return (
        "undefined"
        if entry.reason or math.isnan(entry.ratio.value)
        else estimate_text(entry.ratio, 2, saturated=entry.saturated)
    )


def _settings_on_other_examples(comparison: Comparison, rows: Sequence[Row]) -> tuple[str, ...]:
    """Which settings are means over other examples than their reference's."""
    names = dict.fromkeys(comparison.labels[row.setting] for row in rows if row.other_examples)
    if not names:
        return ()
    return (
        f"Read over other examples than the reference's: {'; '.join(names)}. An example is read where its owning "
        "client took part, so a difference may be that of the examples.",
    )


def trade_section(comparison: Comparison) -> Section:
    """Utility against each measure of the aggregate, setting by setting; a sweep has no verdicts."""
    is_tested = is_compared(comparison)
    blocks = [
        (
            quantity.name,
            tuple(
                (
                    comparison.labels[trade.setting],
                    str(trade.harm.n),
                    estimate_text(trade.use, 3),
                    estimate_text(trade.harm, quantity.digits, saturated=trade.saturated),
                    _rival_text(comparison, trade)
                    if trade.better < 0
                    else comparison.labels[trade.better] + " (not significant)" * (is_tested and not trade.sure),
                )
                for trade in group
            ),
        )
        for quantity, group in groupby(comparison.trades, key=lambda trade: trade.quantity)
    ]
    return Section(
        title="UTILITY AGAINST MEMORISATION",
        columns=("", "seeds", "test accuracy", "measure", "has less accuracy and more of it than"),
        blocks=tuple(blocks),
    )


def _rival_text(comparison: Comparison, trade: Trade) -> str:
    """The setting than which one on the front may be worse, and whether it learns far less; empty for neither.

    A sweep compares nothing, so that no rival of it is named.
    """
    has_rival = trade.rival >= 0 and is_compared(comparison)
    texts = [f"not significantly ahead of {comparison.labels[trade.rival]} in either"] if has_rival else []
    texts += [f"learns far less: test accuracy {trade.use.value:.2f}"] * trade.learns_less
    return ", ".join(texts)


def best_settings(comparison: Comparison) -> Iterator[str]:
    """For each measure of the aggregate the settings than which none is better in one and no worse in the other."""
    for quantity, group in groupby(comparison.trades, key=lambda trade: trade.quantity):
        trades = list(group)
        front = [
            (comparison.labels[trade.setting], _rival_text(comparison, trade)) for trade in trades if trade.better < 0
        ]
        names = [f"{name} ({rival})" if rival else name for name, rival in front]
        settings = {trade.setting for trade in trades} | set(comparison.settings_without_values)
        missing_labels = [label for setting, label in enumerate(comparison.labels) if setting not in settings]
        note = f" (without a value, so not compared: {'; '.join(missing_labels)})" if missing_labels else ""
        yield f"{quantity.title}, {quantity.kind}: {'; '.join(names)}{note}"


def excluded_note(comparison: Comparison) -> str:
    """Which settings are compared with nothing and on no front, and which pairs are dropped; empty for none."""
    names = "; ".join(comparison.labels[setting] for setting in comparison.settings_without_values)
    texts = [
        f"No run finished, so these settings have no values, and they are on no front: {names}. They count in the "
        "number of tests"
    ] * bool(names)
    if comparison.missing_seeds:
        missing = "; ".join(
            f"{comparison.labels[setting]} (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})"
            for setting, seeds in comparison.missing_seeds.items()
        )
        texts.append(f"Runs failed and are left out, and all pairs with them are dropped: {missing}")
    return ". ".join(texts)


def _heading(quantity: Quantity) -> str:
    return ", ".join(filter(None, (quantity.kind, quantity.level)))


def _row(comparison: Comparison, row: Row) -> tuple[str, ...]:
    """Label, seeds, mean, difference as an effect, p, and what comes of it."""
    quantity, contrast = row.quantity, row.contrast
    mean = estimate_text(row.mean, quantity.digits, saturated=row.saturated)
    cells = (comparison.labels[row.setting], str(row.mean.n), mean)
    if contrast is None:
        return (*cells, "reference", "", "")
    digits = quantity.digits if quantity.scale == 1 else 1
    adjusted_p = math.nan if row.adjusted is None else row.adjusted.p
    p = _p_text(adjusted_p)
    verdict = row.verdict
    if verdict == "saturated":
        verdict = "both saturated: no difference can be seen"
    if verdict == "not significant" and not math.isnan(row.detectable):
        seeds = str(row.seeds) if row.seeds else f"> {MAX_SEEDS}"
        size = number(row.detectable * quantity.scale, digits)
        verdict += (
            f" (detects {size if row.detectable <= quantity.max_difference else 'more than possible'}; seeds {seeds})"
        )
    verdict = with_condition(with_few_seeds(verdict, contrast.n), other=row.other_condition)
    return (*cells, estimate_text(row.adjusted, digits, quantity.scale), p, verdict)


def _finer_row(comparison: Comparison, row: Row) -> tuple[str, ...]:
    """The row of a finer statistic, below a difference that is identical."""
    _, *cells, verdict = _row(comparison, row)
    return f"  by {row.quantity.labels.text('statistic')}", *cells, f"{verdict}; {count(row.tests, 'test')}"


def estimate_text(
    estimate: Mean | Contrast | Ratio | None, digits: int, scale: float = 1.0, *, saturated: bool = False
) -> str:
    """A value over seeds with its interval, times `scale`; empty for none."""
    if estimate is None:
        return ""
    ends = estimate.value * scale, estimate.low * scale, estimate.high * scale
    return Value(value=ends[0], low=ends[1], high=ends[2], n=estimate.n, saturated=saturated).text(digits)


@dataclass(frozen=True)
class Table:
    """The sections of a comparison as lines for a console, to be printed by rich; first these sentences."""

    comparison: Comparison
    sentences: tuple[str, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for text, style in self.lines(options.max_width):
            yield line_text(text, style)

    def lines(self, width: int) -> Iterator[tuple[str, str]]:
        """Lines of at most this width, each with its style."""
        table_sections = [section for section in sections(self.comparison) if any(block for _, block in section.blocks)]
        yield from prose(headline(self.comparison), width, "bold")
        for warning in study_warnings(self.comparison):
            yield from prose(f"WARNING: {warning}", width, "yellow", hang=2)
        for sentence in self.sentences:
            yield from prose(sentence, width, "bold", hang=2)
        yield from prose(reading_notes(self.comparison), width, "dim")
        yield from prose(saturation_note(self.comparison), width, "yellow")
        for section in table_sections:
            yield "", ""
            yield from Grid.of([section], width).lines(section)
            for note in section.notes:
                yield from prose(note, width, "dim")
        yield "", ""
        yield from prose(not_significant_note(self.comparison), width)
        yield from prose(POWER if not_significant_note(self.comparison) else "", width, "dim")
        yield "", ""
        yield from prose(excluded_note(self.comparison), width)
        if len(self.comparison.settings) == 1:
            return  # a front of one setting says nothing
        yield from prose(front_title(self.comparison) if self.comparison.trades else NO_UTILITY, width)
        for line in best_settings(self.comparison):
            yield from prose(f"  {line}", width, hang=4)


_FRONT = (
    "On the front of test accuracy and the measure that each line names, both of the aggregate, {}. A "
    "value below that without memorisation counts as that value. A setting learns far less if its accuracy is "
    "below three quarters of the best one. Accuracy counts above that of the most frequent answer where runs store it. "
    "A model that has learnt little memorises little:"
)


def front_title(comparison: Comparison) -> str:
    """The description of the front, and how to read it."""
    return _FRONT.format(by_means(is_tested=is_compared(comparison)))


ONE_SEED = "With one seed no difference has an interval, whatever the differences: give several, such as --seeds 0:5"
NO_UTILITY = "Utility was not measured; add the probe {kind: utility} to see what less memorisation costs."


def headline(comparison: Comparison) -> str:
    """One line about what was compared."""
    count = len(comparison.settings)
    seeds = f"{len(comparison.seeds)} seed{'s' * (len(comparison.seeds) != 1)}"
    few = "" if len(comparison.seeds) > 1 else f". {ONE_SEED}"
    return f"{count} setting{'s' * (count != 1)} x {seeds}: {'; '.join(comparison.labels)}{few}"
