"""The results of a finished run, as sections of a table: text cells from stored rows, not yet drawn on any medium.

The sections are local and global values, measure by measure, retention, differences in words, and utility. A value that
the data do not make significant is called so, and every value stands with its interval and its n.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, NO_LABELS, Labels, Level, Measurement
from fedmem.estimation.learning import METRIC, Learning, learning_of_stored
from fedmem.estimation.roc import DEFAULT_RATES
from fedmem.estimation.saturation import NOWHERE, SaturationZone, zone_of
from fedmem.estimation.two_way import MIN_LOWER_END
from fedmem.estimation.views import p_of_single_ranks
from fedmem.reporting.cells import Value, rate
from fedmem.reporting.measures import AttackName, Variant, attack_names, label_title, measure_of, measures_of_run
from fedmem.results.examples import class_labels
from fedmem.results.read import Run, read_bank
from fedmem.wording import class_text, client_text

_AT_NULL = 0.005
"""A null that is so near to the one that the measure declares is called that."""


class Summary:
    """The rows of a run that belong to no single run or client, found by what they are about."""

    def __init__(self, run: Run, stored_rows: Sequence[Measurement] | None = None) -> None:
        self.run = run
        self.known_measures = measures_of_run(run)
        self.kinds: tuple[str, ...] = tuple(dict.fromkeys(run.audit["kind"].tolist()))
        all_rows = run.rows() if stored_rows is None else stored_rows
        self.rows = [row for row in all_rows if row.run is None and row.client == NO_CLIENT]
        self.leaks = tuple(dict.fromkeys(row.source for row in self.rows if row.reading.metric in self.gains))
        self._attacked: dict[tuple[str, str, str, str], list[Measurement]] = {}
        for row in all_rows:
            if row.run is not None and row.source in self.leaks:
                about = (row.source, row.reading.metric, row.level, row.reading.labels.text("kind"))
                self._attacked.setdefault(about, []).append(row)
        self._values: dict[tuple[int | None, str, str, str, Labels], Value] = {}
        for row in self.rows:
            reading = row.reading
            labels = reading.labels
            if row.source in self.leaks[1:]:
                labels = labels.plus(source=row.source)
            place = (row.round, reading.metric, row.level, reading.subject)
            fpr = labels.number("fpr", math.nan)
            value = Value(value=reading.value, low=reading.low, high=reading.high, n=reading.n, fpr=fpr)
            value = replace(value, saturated=self.saturation_zone(reading.metric, reading.subject).holds(reading.value))
            smallest = (*place, labels.without("fpr"))
            if smallest not in self._values or fpr < self._values[smallest].fpr:
                self._values[smallest] = value
            if "fpr" in labels:
                self._values[*place, labels] = value
        for (when, metric, *where), value in list(self._values.items()):
            p_value = self._values.get((when, f"{metric}.p", *where))  # type: ignore[arg-type]
            if p_value is not None:
                self._values[when, metric, *where] = replace(  # type: ignore[index]
                    value, p=p_value.value, smallest_p=2 / (p_value.n + 1) if where[1] in self.kinds else 0.0
                )

        self.stored_metrics = frozenset(row.reading.metric for row in self.rows)
        for learning in self.learnings:
            key = (None, METRIC, learning.level, "", NO_LABELS)
            if learning.on == "test" and not learning.densities and key not in self._values:
                low, high = learning.low, learning.high
                self._values[key] = Value(value=learning.accuracy, low=low, high=high, n=learning.models)

    @cached_property
    def learnings(self) -> tuple[Learning, ...]:
        """The utility of models at each level, as the run stores it; empty for runs of older versions."""
        return tuple(learning_of_stored(entry) for entry in self.run.manifest.get("learning") or ())

    @property
    def num_coin_rows(self) -> int:
        """How many runs, the first ones, have different coins: all without twins."""
        return int(self.run.scenario.get("runs", 1)) // int(self.run.scenario.get("twins", 1))

    @cached_property
    def draws(self) -> Mapping[str, int]:
        """In how many draws examples are in or out together, by kind; without kinds whose examples are drawn alone."""
        if "draw" not in self.run.audit:
            return {}
        by_kind = self.run.audit.groupby("kind", sort=False)["draw"]
        counts = {str(kind): (draws.nunique(), len(draws)) for kind, draws in by_kind}
        return {kind: number for kind, (number, examples) in counts.items() if number < examples}

    def subject_text(self, subject: str) -> str:
        """The subject of a row in words: clients by their names."""
        number = subject.removeprefix("client ")
        is_client = subject.startswith("client ") and number.isdecimal()
        return client_text(int(number), self.run.client_names) if is_client else subject

    def class_text(self, labels: Labels) -> str:
        """The classes in these labels, by their names; empty where there are none."""
        numbers = [labels.integer(name) for name in self._class_labels if name in labels]
        return ", ".join(f"class {class_text(number, self.run.class_names)}" for number in numbers)

    def words(self, labels: Labels) -> tuple[str, ...]:
        """Short words for titles, as `Labels.words`, with classes by their names."""
        about_class = self.class_text(labels)
        return (*labels.without(*self._class_labels).words(), *([about_class] if about_class else []))

    @cached_property
    def _class_labels(self) -> tuple[str, ...]:
        return class_labels(dict.fromkeys(row.source for row in self.rows))

    def saturation_zone(self, metric: str, kind: str) -> SaturationZone:
        """Which values of a measure of this kind are saturated; of exposure by the stored number of references."""
        measure = measure_of(metric, self.known_measures)
        if metric != measure.name:
            return NOWHERE
        return zone_of(measure, self.run.reference_counts.get(kind, ()) if measure.ranked else ())

    @property
    def gains(self) -> tuple[str, ...]:
        """The measures of what a reconstruction has over the baseline guess: of images and tables, and of texts."""
        return tuple(m.name for m in self.known_measures.values() if m.section == "reconstruction" and m.headline)

    @cached_property
    def observed_rounds(self) -> tuple[int, ...]:
        """The rounds that have rows, ascending; the summary is none of them."""
        return tuple(sorted({key[0] for key in self._values if key[0] is not None}))

    @property
    def last_round(self) -> int:
        """The last observed round, whose aggregate is released; 0 where nothing was observed."""
        return max(self.observed_rounds, default=0)

    def value(
        self, metric: str, level: str, subject: str, labels: Labels = NO_LABELS, *, round_number: int | None = None
    ) -> Value | None:
        """The row with exactly these labels; without `fpr` that at the smallest of several false positive rates."""
        return self._values.get((round_number, metric, level, subject, labels))

    def local_values(self, measure: Variant, kind: str, round_number: int | None = None) -> Value | None:
        """The value at the owning client, or the local value of a measure without owning and other clients."""
        owner = self.value(measure.metric, "local", kind, measure.labels.plus(place="owner"), round_number=round_number)
        return owner or self.value(measure.metric, "local", kind, measure.labels, round_number=round_number)

    def retention(self, measure: Variant, kind: str) -> tuple[Labels, Value] | None:
        """The retention of a measure, with its labels; of several false positive rates that at the smallest.

        NaN where it is undefined, or where the interval of the local effect comes near the null.
        """
        metric_labels = measure.labels.plus(of=measure.metric)
        # an undefined ratio has one label more, so that each of two rates may stand as the smallest of its labels
        ratios = [
            (labels, value)
            for _, about, labels, value in self.entries("retention", metric_labels)
            if about == kind and labels.without("resolved") == metric_labels
        ]
        if not ratios:
            return None
        labels, value = min(ratios, key=lambda ratio: ratio[1].fpr)
        is_shown = self._is_divisible(measure, kind, value.fpr)
        return labels, value if is_shown else replace(value, value=math.nan, low=math.nan, high=math.nan)

    def _is_divisible(self, measure: Variant, kind: str, fpr: float) -> bool:
        """Whether the interval of the local effect ends above a tenth of the effect; a ratio to others is unbounded."""
        local = self.local_values(measure, kind)
        null = self.null_of(measure, "local", kind)
        null = fpr if math.isnan(null) else null
        return local is None or not local.low - null < MIN_LOWER_END * (local.value - null)

    def entries(
        self, metric: str, labels: Labels = NO_LABELS, *, round_number: int | None = None
    ) -> list[tuple[str, str, Labels, Value]]:
        """Level, subject, labels and value of every row of a metric that has these labels among others.

        As for `value`, a row at one of several false positive rates counts if its rate is asked for.
        """
        return [
            (level, subject, row_labels, value)
            for (when, name, level, subject, row_labels), value in self._values.items()
            if when == round_number
            and name == metric
            and row_labels.has(labels)
            and row_labels.get("fpr") == labels.get("fpr")
        ]

    def series(self, metric: str, level: str, subject: str, labels: Labels = NO_LABELS) -> list[tuple[int, Value]]:
        """A value over the observed rounds."""
        values = [
            (round_number, self.value(metric, level, subject, labels, round_number=round_number))
            for round_number in self.observed_rounds
        ]
        return [(round_number, value) for round_number, value in values if value is not None]

    def local_series(self, measure: Variant, kind: str) -> list[tuple[int, Value]]:
        """The value at the owning client over the observed rounds."""
        values = [
            (round_number, self.local_values(measure, kind, round_number)) for round_number in self.observed_rounds
        ]
        return [(round_number, value) for round_number, value in values if value is not None]

    def clusters(self, source: str, metric: str, level: str, kind: str, labels: Labels) -> int:
        """How many owners or runs, whichever are fewer, an attack's mean or difference is over; at least 2.

        One owner or one run alone has no spread, so that the interval is that of the other way. 2 without stored rows.
        """
        names = ["view", "clients"]
        is_difference = metric.endswith(".difference")
        found = [
            row
            for row in self._attacked.get((source, metric.removesuffix(".difference"), level, kind), ())
            if row.reading.labels.only(names) == labels.only(names)
            and (is_difference or "coin" not in row.reading.labels)
            and not math.isnan(row.reading.value)
        ]
        owners = {row.reading.labels.integer("owner", row.client) for row in found}
        counts = (len(owners), len({row.run for row in found}))
        return min((count for count in counts if count > 1), default=2)

    @property
    def gain(self) -> str:
        """The metric of the gain over the baseline guess; that of texts only where there is no other."""
        metrics = {row.reading.metric for row in self.rows}
        return next((gain for gain in self.gains if gain in metrics), "")

    def leakage_by_round(self, view: str, kind: str) -> list[tuple[int, Value]]:
        """By how much ins are reconstructed better than outs, in each attacked round, by the first probe of this kind.

        In dB, for texts in similarity: see `gain`.
        """
        points = []
        for round_number in self.observed_rounds:
            rows = self.entries(f"{self.gain}.difference", Labels.of(view=view), round_number=round_number)
            values = [value for _, about, labels, value in rows if about == kind and "source" not in labels]
            points += [(round_number, value) for value in values[:1]]
        return points

    def examples(self, measure: Variant) -> dict[str, tuple[list[float], list[float]]]:
        """For each kind the local and the global values of the examples that have both."""
        pairs: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in self.kinds}
        for subject, kind in zip(self.run.audit["subject"].tolist(), self.run.audit["kind"].tolist(), strict=True):
            local = self.value(measure.metric, "local", str(subject), measure.labels.plus(place="owner"))
            everywhere = self.value(measure.metric, "global", str(subject), measure.labels)
            if local and everywhere and math.isfinite(local.value) and math.isfinite(everywhere.value):
                pairs[kind][0].append(local.value)
                pairs[kind][1].append(everywhere.value)
        return pairs

    def _nulls(self, metric: str, labels: Labels) -> tuple[float, ...]:
        return tuple(sorted({value.value for _, _, _, value in self.entries(f"{metric}.null", labels)}))

    def null_of(self, measure: Variant, level: str, kind: str) -> float:
        """The value without memorisation of one kind at one level, as it was found."""
        labels = measure.labels.plus(place="owner" if level == "local" else None)
        value = self.value(f"{measure.metric}.null", level, kind, labels)
        return measure.null if value is None else value.value

    @cached_property
    def p_of_ranks(self) -> dict[Level, FloatArray]:
        """By level the p of the rank of each audit example (m,), NaN where it has none; reads the evidence."""
        bank = read_bank(self.run.path)
        levels: tuple[Level, ...] = ("local", "global")
        return {level: p_of_single_ranks(bank, level) for level in levels}

    @cached_property
    def measures(self) -> tuple[Variant, ...]:
        """The measures of kinds of audit examples that this run has, with their variants, in the order of the table."""
        keyed_variants: list[tuple[tuple[Any, ...], Variant]] = []
        for place, measure in enumerate(self.known_measures.values()):
            if measure.section:
                continue
            variants = self._variants(measure)
            attacks = {_attack_of(labels) for labels in variants}
            first = min((name.precedence for name in attacks if name), default=1)
            for labels in variants:
                attack = _attack_of(labels)
                headline = measure.headline and (attack is None or attack.precedence == first)
                rank = (attack.precedence, attack.title) if attack else (-1, "")
                variant = self._variant(measure, labels, attack, headline)
                key = (measure.order, *rank, _order_of(labels), place)
                keyed_variants.append((key, variant))
                keyed_variants += [(key, rate_variant) for rate_variant in self._default_rates(variant)]
        return tuple(variant for _, variant in sorted(keyed_variants, key=lambda pair: pair[0]))

    def _variants(self, measure: Measure) -> list[Labels]:
        """The labels, apart from the place, that tell the variants of a measure of kinds apart."""
        label_sets = [
            labels.without("place") for _, about, labels, _ in self.entries(measure.name) if about in self.kinds
        ]
        return [labels for labels in dict.fromkeys(label_sets) if "statistic" not in labels and "fit" not in labels]

    def _variant(self, measure: Measure, labels: Labels, attack: AttackName | None, headline: bool) -> Variant:
        """One variant with its title and its value without memorisation."""
        metric = measure.name
        rates = {value.fpr for _, _, _, value in self.entries(metric, labels) if not math.isnan(value.fpr)}
        nulls = self._nulls(metric, labels)
        if math.isnan(measure.null):
            null = nulls[0] if len(nulls) == 1 else math.nan
        else:
            # an attack that reads coins has a null of its own in each place
            null, nulls = (
                measure.null,
                tuple(other_null for other_null in nulls if abs(other_null - measure.null) >= _AT_NULL),
            )
        title_parts = [attack.title] if attack else []
        further = labels.without("attack", "options").items if attack else labels.items
        title_parts += [measure.title, *(label_title(name, value) for name, value in further)]
        if rates:
            single_rate = len(rates) == 1 and not math.isnan(null)
            title_parts.append(
                f"at {f'FPR {rate(min(rates))}' if single_rate else 'the smallest FPR that the data support'}"
            )
        return Variant(
            measure=measure, title=" ".join(title_parts), null=null, labels=labels, nulls=nulls, headline=headline
        )

    def _default_rates(self, variant: Variant) -> Iterator[Variant]:
        """The same at the usual false positive rates, where these are not the smallest of all kinds."""
        smallest = {value.fpr for _, _, _, value in self.entries(variant.metric, variant.labels)}
        for fpr in DEFAULT_RATES:
            labels = variant.labels.plus(fpr=fpr)
            if self.entries(variant.metric, labels) and smallest != {fpr}:
                nulls = self._nulls(variant.metric, labels)
                yield replace(
                    variant,
                    title=f"{variant.title.partition(' at ')[0]} at FPR {fpr:.4g}",
                    null=nulls[0] if len(nulls) == 1 else math.nan,
                    labels=labels,
                )


def _order_of(labels: Labels) -> tuple[tuple[str, float], ...]:
    """A key that sorts labels by their words, and numbers of one label by their size."""
    return tuple((value, 0.0) if isinstance(value, str) else (name, float(value)) for name, value in labels.items)


def _attack_of(labels: Labels) -> AttackName | None:
    """The attack of a variant, with the fields that are not at their default in its title."""
    name = attack_names().get(labels.text("attack"))
    return name and replace(name, title=" ".join(filter(None, (name.title, labels.text("options")))))
