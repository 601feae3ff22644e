"""The findings of a comparison or sweep, in short: the record behind its first screen, and its `summary.json`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedmem.contracts.measurement import LabelValue
from fedmem.results.run_summary import FILE, record_bytes, sha256_of
from fedmem.studies.comparison import Comparison, Retention, Row
from fedmem.studies.contrasts import Contrast
from fedmem.studies.finer import finer_rows
from fedmem.studies.quantities import Quantity
from fedmem.studies.within import WithinDifference, differences_within

if TYPE_CHECKING:
    from fedmem.studies.stored import StoredStudy

SCHEMA = 1
"""Version of the file; raised when a field changes its name or its meaning."""

Between = Literal["settings", "kinds", "levels"]
"""The two sides of a difference."""

State = Literal["significant", "not significant", "undefined", "not tested"]
"""The state of the differences of a sentence."""


@dataclass(frozen=True, kw_only=True)
class Tested:
    """One tested difference: a setting minus its reference, or one kind or level minus another.

    Attributes:
        between: What it is between.
        setting: Label of the setting.
        minus: What is subtracted: the label of a setting, a kind or a level.
        metric: Name of the measure.
        title: The same for people.
        labels: The labels that tell variants of the measure apart.
        kind: Kind of audit example; empty for values of whole models.
        level: `local` (the owning client), `global` (the aggregate) or `retention`.
        unit: Unit of `effect`, `low` and `high`; empty for retention.
        effect: The mean difference over seeds.
        low: Lower end of the interval, simultaneous over `tests` differences; NaN if there is none.
        high: Upper end.
        p: The p adjusted for `tests` differences.
        tests: How many differences are adjusted together.
        seeds: How many seeds have both values.
        verdict: `higher`, `lower`, `not significant`, `identical`, `undefined`, `saturated` or `other rates`.
    """

    between: Between
    setting: str
    minus: str
    metric: str
    title: str
    labels: Mapping[str, LabelValue]
    kind: str
    level: str
    unit: str
    effect: float
    low: float
    high: float
    p: float
    tests: int
    seeds: int
    verdict: str

    @property
    def is_significant(self) -> bool:
        """Whether its adjusted interval excludes 0, and neither value is saturated."""
        return self.verdict in ("higher", "lower")

    @property
    def is_undefined(self) -> bool:
        """Whether there is no answer: no interval, both values saturated, or other false positive rates."""
        return self.verdict in ("undefined", "saturated", "other rates")


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A generated sentence.

    Attributes:
        text: The sentence.
        state: What it says about its differences.
        settings: Labels of the settings that it is about.
        differences: The places in `differences` that decide it.
        values: The places in `values` that decide it, where nothing was tested.
    """

    text: str
    state: State
    settings: tuple[str, ...]
    differences: tuple[int, ...] = ()
    values: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SettingValue:
    """The mean of a quantity over the seeds of a setting, or its retention, with its 95 % interval.

    Attributes:
        setting: Label of the setting.
        metric: Name of the measure.
        title: The same for people.
        labels: The labels that tell variants of the measure apart.
        kind: Kind of audit example; empty for values of whole models.
        level: `local`, `global` or `retention`.
        digits: Decimals in tables.
        value: The mean, in the unit of the measure; NaN where it is undefined.
        low: Lower end of the interval; NaN if there is none.
        high: Upper end.
        seeds: How many seeds are behind it.
        saturated: Whether it is too near an end of its measure to be compared.
        is_utility: Whether it is what models are good for, which fronts set against memorisation.
        is_anything: Whether there is no interval, or it is the whole range of the measure, so that it shows nothing.
    """

    setting: str
    metric: str
    title: str
    labels: Mapping[str, LabelValue]
    kind: str
    level: str
    digits: int
    value: float
    low: float
    high: float
    seeds: int
    saturated: bool
    is_utility: bool
    is_anything: bool


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """The findings of a comparison or sweep, in short.

    Attributes:
        schema: Version of this record.
        title: Name of the scenario and of the folder.
        is_sweep: Whether settings are not compared with each other.
        settings: Labels of the settings.
        reference: For each setting, the label of the one that is subtracted; its own for a reference.
        seeds: The seeds.
        measures: The measures that were asked for; empty for those of the report.
        versions: Version of fedmem that wrote this.
        series_sha256: Sha256 of `series.npz`, from which all numbers are.
        failures: Runs that failed and are left out, with their causes.
        warnings: Facts that a reader needs before any number.
        sentences: What the differences show.
        values: The means of all settings.
        differences: All tested differences.
        fronts: For each measure of the aggregate, the settings that no other one dominates.
        limits: What these numbers do not show.
        report: The page, relative to the folder.
    """

    schema: int = SCHEMA
    title: str
    is_sweep: bool
    settings: tuple[str, ...]
    reference: tuple[str, ...]
    seeds: tuple[int, ...]
    measures: tuple[str, ...]
    versions: Mapping[str, str]
    series_sha256: str
    failures: tuple[str, ...]
    warnings: tuple[str, ...]
    sentences: tuple[Sentence, ...]
    values: tuple[SettingValue, ...]
    differences: tuple[Tested, ...]
    fronts: tuple[str, ...]
    limits: tuple[str, ...]
    report: str

    @property
    def is_compared(self) -> bool:
        """Whether some setting is compared with another one."""
        return self.settings != self.reference


def summarise_study(study: StoredStudy, folder: Path | str) -> StudySummary:
    """The summary of a comparison or sweep whose numbers are in this folder."""
    from fedmem import __version__
    from fedmem.studies.report import best_settings, saturation_note, study_warnings
    from fedmem.studies.study_sentences import sentences_of

    comparison = study.comparison
    differences, values = collect_differences(comparison), values_of(comparison)
    labels = comparison.labels
    has_front = bool(comparison.trades) and len(labels) > 1
    return StudySummary(
        title=study.title,
        is_sweep=study.is_sweep,
        settings=labels,
        reference=tuple(labels[place] for place in comparison.reference),
        seeds=comparison.seeds,
        measures=comparison.measures,
        versions={"fedmem": __version__},
        series_sha256=sha256_of(Path(folder) / "series.npz"),
        failures=study.failures,
        warnings=study_warnings(comparison),
        sentences=tuple(sentences_of(comparison, differences, values)),
        values=values,
        differences=differences,
        fronts=tuple(best_settings(comparison)) if has_front else (),
        limits=tuple(filter(None, (_limit_of_tests(differences), saturation_note(comparison)))),
        report="sweep.html" if study.is_sweep else "comparison.html",
    )


def sentence_texts(comparison: Comparison) -> list[str]:
    """The sentences of a study alone, in their order."""
    from fedmem.studies.study_sentences import sentences_of

    differences, values = collect_differences(comparison), values_of(comparison)
    return [sentence.text for sentence in sentences_of(comparison, differences, values)]


def study_summary_bytes(summary: StudySummary) -> bytes:
    """The record as the bytes of `summary.json`."""
    return record_bytes(summary)


def write_study_summary(folder: Path, study: StoredStudy) -> StudySummary:
    """Writes `summary.json` into the folder of a comparison or sweep, if it is missing or differs."""
    from fedmem.results.folder import put

    summary = summarise_study(study, folder)
    data, file = study_summary_bytes(summary), folder / FILE
    if not file.is_file() or file.read_bytes() != data:
        put(file, data)
    return summary


def _limit_of_tests(differences: tuple[Tested, ...]) -> str:
    if not differences:
        return "Nothing is compared: fedmem compare tests differences of settings, kinds and levels."
    return (
        "Not significant does not mean equal: the report has the smallest difference that these seeds detect with 80 % "
        "probability."
    )


def collect_differences(comparison: Comparison) -> tuple[Tested, ...]:
    """The differences of settings; of one setting alone, those of its kinds and levels."""
    return tuple(_differences(comparison))


def values_of(comparison: Comparison) -> tuple[SettingValue, ...]:
    """The means of all settings in all tested quantities, then what aggregation retains of them."""
    return tuple(_values(comparison))


def _differences(comparison: Comparison) -> Iterator[Tested]:
    finer = finer_rows(comparison)
    for row in comparison.rows:
        if row.contrast is not None:
            yield _of_row(comparison, row)
            for other in finer.get((row.quantity, row.setting), ()):
                yield _of_row(comparison, other)
    for entry in comparison.retention:
        if entry.contrast is not None:
            yield _of_retention(comparison, entry)
    if len(comparison.settings) == 1:
        for difference in differences_within(comparison):
            yield _of_within(comparison, difference)


def _of_row(comparison: Comparison, row: Row) -> Tested:
    contrast, quantity = row.adjusted, row.quantity
    assert contrast is not None, "only differences are asked for"
    minus = comparison.labels[comparison.reference[row.setting]]
    return _make_tested(comparison, row, contrast, "settings", minus, (quantity.level, quantity.unit, quantity.scale))


def _of_retention(comparison: Comparison, entry: Retention) -> Tested:
    assert entry.difference is not None, "only differences are asked for"
    minus = comparison.labels[comparison.reference[entry.setting]]
    return _make_tested(comparison, entry, entry.difference, "settings", minus, ("retention", "", 1.0))


def _of_within(comparison: Comparison, entry: WithinDifference) -> Tested:
    quantity = entry.quantity
    shown = (quantity.level, quantity.unit, quantity.scale)
    return _make_tested(comparison, entry, entry.adjusted, entry.between, entry.minus, shown)


def _make_tested(
    comparison: Comparison,
    entry: Row | Retention | WithinDifference,
    contrast: Contrast,
    between: Between,
    minus: str,
    shown: tuple[str, str, float],
) -> Tested:
    """The record of a difference; `shown` are its level, its unit, and the factor for that unit."""
    (level, unit, scale), quantity = shown, entry.quantity
    return Tested(
        between=between,
        setting=comparison.labels[entry.setting],
        minus=minus,
        metric=quantity.metric,
        title=quantity.title,
        labels=dict(quantity.labels.items),
        kind=quantity.kind,
        level=level,
        unit=unit,
        effect=contrast.value * scale,
        low=contrast.low * scale,
        high=contrast.high * scale,
        p=contrast.p,
        tests=entry.tests,
        seeds=contrast.n,
        verdict=entry.verdict,
    )


def _values(comparison: Comparison) -> Iterator[SettingValue]:
    for row in comparison.rows:
        yield _value(comparison, row.quantity, row.setting, row.quantity.level, row)
    for entry in comparison.retention:
        yield _value(comparison, entry.quantity, entry.setting, "retention", entry)


def _value(
    comparison: Comparison, quantity: Quantity, setting: int, level: str, entry: Row | Retention
) -> SettingValue:
    estimate = entry.mean if isinstance(entry, Row) else entry.ratio
    is_undefined = isinstance(entry, Retention) and bool(entry.reason)
    ends = (estimate.low, estimate.high)
    return SettingValue(
        setting=comparison.labels[setting],
        metric=quantity.metric,
        title=quantity.title,
        labels=dict(quantity.labels.items),
        kind=quantity.kind,
        level=level,
        digits=2 if level == "retention" else max(quantity.digits - 1, 1),
        value=math.nan if is_undefined else estimate.value,
        low=math.nan if is_undefined else estimate.low,
        high=math.nan if is_undefined else estimate.high,
        seeds=estimate.n,
        saturated=entry.saturated,
        is_utility=quantity.useful,
        is_anything=is_undefined or math.isnan(estimate.low) or (level != "retention" and ends == quantity.range),
    )
