"""The quantities of a comparison: which measures of runs are set side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Labels
from fedmem.estimation.learning import learning_of_stored, learning_warnings
from fedmem.estimation.saturation import NOWHERE, SaturationZone
from fedmem.reporting.cells import Value
from fedmem.reporting.measures import Variant, label_title, measure_of
from fedmem.reporting.sections import warnings
from fedmem.reporting.summary import Summary
from fedmem.results.conditions import condition_of
from fedmem.results.read import Run
from fedmem.studies.contrasts import (
    Contrast,
    contrast,
    mean_of,
)


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One number that every run gives: of a measure, for a kind of audit example (empty: none), at a level.

    `labels` tell variants of a measure apart; they are without the place and the false positive rate. A difference
    times `scale` is in `unit`. `range` are its smallest and largest value. `useful` says that it is what models are
    good for, on the other side of every trade.
    """

    metric: str
    labels: Labels
    kind: str
    level: str
    title: str
    unit: str = ""
    scale: float = 1.0
    digits: int = 3
    headline: bool = False
    range: tuple[float, float] = (-math.inf, math.inf)
    useful: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """The labels in short words."""
        return self.labels.words()

    @property
    def max_difference(self) -> float:
        """The largest difference that two values can have."""
        low, high = self.range
        return high - low

    @property
    def name(self) -> str:
        """The measure, kind and level in words."""
        return f"{self.title}, {self.kind}, {self.level}" if self.kind else f"{self.title}, {self.level}"


@dataclass(frozen=True, kw_only=True)
class Series:
    """The values of a quantity (settings, seeds), the value that no memorisation gives, and n; NaN where a run failed.

    `paired` is the value at the aggregate over just those examples that the owner's value is about. It exists for local
    quantities of which runs have a retention. `paired_null` is what no memorisation gives there. `fpr` is the false
    positive rate at which a value was taken, NaN where there is none. `rounds` are the values at each observed round
    that has any. `intervals` are (settings, seeds, 3) low, high and n of each run at each round; under None they are
    those of its summary. `zone` holds the values that are saturated, by the fewest references of any run.
    """

    quantity: Quantity
    values: FloatArray
    null: FloatArray
    n: FloatArray
    paired: FloatArray
    paired_null: FloatArray
    fpr: FloatArray
    rounds: Mapping[int, FloatArray]
    zone: SaturationZone = NOWHERE
    intervals: Mapping[int | None, FloatArray] = field(default_factory=dict)

    def same_rate(self, setting: int, other: int) -> BoolArray:
        """(seeds,) whether both settings have this quantity at one false positive rate: other rates are other tests."""
        rates, other_rates = self.fpr[setting], self.fpr[other]
        return np.asarray(~(np.abs(rates - other_rates) > 1e-12))

    def other_examples(self, setting: int, other: int) -> bool:
        """Whether in some seed the two are means over different numbers of examples."""
        return bool((np.abs(self.n[setting] - self.n[other]) > 0).any())

    def is_saturated(self, setting: int) -> bool:
        """Whether the mean of a setting over its seeds is too near an end of the measure to be compared."""
        return self.zone.holds(mean_of(self.values[setting]).value)

    def contrast_with(self, setting: int, other: int) -> Contrast:
        """The difference of a setting from another, over the seeds in which the two can be compared."""
        return contrast(np.where(self.same_rate(setting, other), self.values[setting], math.nan), self.values[other])


def gather(runs: Mapping[tuple[int, int], Run], shape: tuple[int, int]) -> tuple[Series, ...]:
    """Every quantity of finished runs, by setting and place of the seed.

    Errors: those of reading a run.
    """
    arrays_by_quantity: dict[Quantity, dict[str, FloatArray]] = {}
    rounds: dict[Quantity, dict[int, FloatArray]] = {}
    intervals: dict[Quantity, dict[int | None, FloatArray]] = {}
    zones: dict[Quantity, SaturationZone] = {}
    for place, run in sorted(runs.items()):
        summary = Summary(run)
        for quantity, total, numbers in _quantities(summary):
            arrays = arrays_by_quantity.setdefault(quantity, {name: np.full(shape, np.nan) for name in numbers})
            for name, number in numbers.items():
                arrays[name][place] = number
            zone = summary.saturation_zone(quantity.metric, quantity.kind)
            zones[quantity] = zones.get(quantity, zone).union(zone)
            over, stored = rounds.setdefault(quantity, {}), intervals.setdefault(quantity, {})
            for round_number, value in ((None, total), *_over_rounds(summary, quantity)):
                ends = stored.setdefault(round_number, np.full((*shape, 3), np.nan))
                ends[place] = value.low, value.high, value.n
                if round_number is not None:
                    over.setdefault(round_number, np.full(shape, np.nan))[place] = value.value
    return tuple(
        Series(
            quantity=quantity,
            rounds=dict(sorted(rounds[quantity].items())),
            zone=zones[quantity],
            intervals=intervals[quantity],
            **arrays,
        )
        for quantity, arrays in arrays_by_quantity.items()
    )


def warned_settings(runs: Mapping[tuple[int, int], Run]) -> dict[str, tuple[int, ...]]:
    """The warnings of runs -> the settings that have them; those of models that learnt nothing are first."""
    settings: dict[str, dict[int, None]] = {}
    serious: set[str] = set()
    for (setting, _), run in sorted(runs.items()):
        records = [learning_of_stored(entry) for entry in run.manifest.get("learning") or ()]
        serious |= {f"WARNING: {text}" for text in learning_warnings(records)}
        for text in warnings(run):
            settings.setdefault(text, {})[setting] = None
    return {text: tuple(settings[text]) for text in sorted(settings, key=lambda text: text not in serious)}


def conditions_of_settings(runs: Mapping[tuple[int, int], Run], settings: int) -> tuple[str, ...]:
    """The condition of the values of each setting, empty text without one; nothing where no setting has one."""
    conditions = dict.fromkeys(range(settings), "")
    for (setting, _), run in sorted(runs.items()):
        conditions[setting] = conditions[setting] or condition_of(run.scenario)
    return tuple(conditions.values()) if any(conditions.values()) else ()


def constant_accuracies(runs: Mapping[tuple[int, int], Run], shape: tuple[int, int]) -> FloatArray:
    """(settings, seeds) the test accuracy of always giving the most frequent answer; NaN where it is not stored."""
    constant = np.full(shape, np.nan)
    for place, run in runs.items():
        records = [learning_of_stored(entry) for entry in run.manifest.get("learning") or ()]
        shares = (record.constant for record in records if record.on == "test" and not record.densities)
        constant[place] = next(shares, math.nan)
    return constant


def _quantities(summary: Summary) -> Iterator[tuple[Quantity, Value, dict[str, float]]]:
    """Every summary of a run that is about a kind or about all, with its value and its numbers."""
    variants = {(variant.metric, variant.labels): variant for variant in summary.measures}
    about = {"", *summary.kinds}
    for metric in dict.fromkeys(row.reading.metric for row in summary.rows):
        if metric.endswith((".null", ".guess", ".p", ".permitted")) or metric == "retention":
            continue
        measure = measure_of(metric, summary.known_measures)
        against_held_out = metric.endswith(".difference")
        if against_held_out and not (measure.difference and measure.headline):
            continue
        for level, kind, row_labels, value in summary.entries(metric):
            if kind not in about or row_labels.get("coin") == "out":
                continue
            labels = row_labels.without("place")
            place = _PLACES.get(row_labels.text("place"), level)
            null = summary.value(f"{metric}.null", level, kind, row_labels)
            whole = summary.value(f"{metric}.null", "global", kind, labels)
            between = labels.plus(contrast="levels", minus="global")
            difference = summary.value(f"{metric}.difference", "global", kind, between)
            # a run has no retention of sums whose effects cancel
            has_retention = any(
                about == kind for _, about, _, _ in summary.entries("retention", labels.plus(of=metric))
            )
            variant = variants.get((metric, labels))
            headline = variant.headline if variant else measure.headline and not kind and not labels
            yield (
                Quantity(
                    metric=metric,
                    labels=labels,
                    kind=kind,
                    level=place,
                    title=_short_title(variant) if variant else _title(summary, measure, metric, labels),
                    unit=measure.unit_text if against_held_out else measure.difference_unit,
                    scale=1.0 if against_held_out else measure.scale,
                    digits=measure.digits,
                    headline=labels.get("view") in _REAL if against_held_out else headline,
                    range=measure.range_of(metric),
                    useful=measure.direction == "higher is better" and measure.headline,
                ),
                value,
                {
                    "values": value.value,
                    "null": math.nan if null is None else null.value,
                    "n": value.n,
                    "fpr": value.fpr,
                    "paired_null": math.nan if (other := null if whole is None else whole) is None else other.value,
                    "paired": value.value - difference.value
                    if difference and has_retention and place == "local"
                    else math.nan,
                },
            )


def _short_title(variant: Variant) -> str:
    """The title of a variant; a true positive rate with the rate at which it is taken.

    The smallest false positive rate differs between runs, and is a column of `values.csv`.
    """
    title, at, _ = variant.title.partition(" at ")
    if not at:
        return title
    fpr = variant.labels.get("fpr")
    return f"{title} at FPR {fpr:.4g}" if fpr else f"{title} at the smallest FPR"


def _over_rounds(summary: Summary, quantity: Quantity) -> Iterator[tuple[int, Value]]:
    """The values of a quantity at each observed round."""
    level = quantity.level.partition(",")[0]
    places = [place_label for place_label, place in _PLACES.items() if place == quantity.level and quantity.kind]
    for labels in (quantity.labels.plus(place=places[0] if places else None), quantity.labels):
        if series := summary.series(quantity.metric, level, quantity.kind, labels):
            yield from series
            return


_PLACES = {"owner": "local", "others": "local, others"}
"""The label `place` -> the level of a quantity."""

_REAL = ("message", "aggregate")
"""The views of an update that a server has."""


def _title(summary: Summary, measure: Measure, metric: str, labels: Labels) -> str:
    """The title of what is no measure of a kind at a place, with its labels."""
    if metric.endswith(".difference"):
        view = labels.text("view")
        return f"reconstruction from {label_title('view', view)}, in − held out"
    name = measure.title if measure.headline else metric.replace("_", " ")
    return " ".join([name, *summary.words(labels)])
