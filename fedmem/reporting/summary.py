"""What a finished run says, as sections of a table: text cells from stored rows, not yet drawn on any medium.

Local beside global, measure by measure; what aggregation retains; differences in words; utility. A value that the
data do not resolve is called so, and every value stands with its interval and its n.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import EVERYWHERE, FINAL
from fedmem.estimation.roc import USUAL
from fedmem.estimation.saturation import NOWHERE, Zone, zone_of
from fedmem.reporting.cells import Value, rate
from fedmem.reporting.measures import AttackName, Variant, attack_names, measure_of, measures_of_run
from fedmem.results.read import Run

_RATE = "fpr="
"""How the word of a setting begins that says at which false positive rate a true positive rate is."""

_AT_NULL = 0.005
"""A null that is so near to the one that the measure declares is called that."""


class Summary:
    """The rows of a run that belong to no single run or client, found by what they are about."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.known = measures_of_run(run)
        self.kinds: tuple[str, ...] = tuple(dict.fromkeys(run.audit["kind"].tolist()))
        self.rows = [row for row in run.rows() if row.run == row.client == EVERYWHERE]
        self.leaks = tuple(dict.fromkeys(row.source for row in self.rows if row.reading.metric in self.gains))
        self._values: dict[tuple[int, str, str, str, frozenset[str]], Value] = {}
        for row in self.rows:
            reading = row.reading
            words = frozenset(filter(None, reading.setting.split(",")))
            if row.source in self.leaks[1:]:
                words |= {_of(row.source)}
            rates = [float(word.removeprefix(_RATE)) for word in words if word.startswith(_RATE)]
            parts = frozenset(word for word in words if not word.startswith(_RATE))
            place = (row.round, reading.metric, row.level, reading.subject)
            fpr = min(rates, default=math.nan)
            value = Value(value=reading.value, low=reading.low, high=reading.high, n=reading.n, fpr=fpr)
            value = replace(value, saturated=self.zone(reading.metric, reading.subject).holds(reading.value))
            if (*place, parts) not in self._values or fpr < self._values[*place, parts].fpr:
                self._values[*place, parts] = value
            if rates:
                self._values[*place, words] = value
        for (when, metric, *where), value in list(self._values.items()):
            chance = self._values.get((when, f"{metric}.p", *where))  # type: ignore[arg-type]
            if chance is not None:
                self._values[when, metric, *where] = replace(value, p=chance.value)  # type: ignore[index]

    def zone(self, metric: str, kind: str) -> Zone:
        """Which values of a measure of this kind are saturated; of exposure by the stored number of references."""
        measure = measure_of(metric, self.known)
        if metric != measure.name:
            return NOWHERE
        return zone_of(measure, self.run.reference_counts.get(kind, ()) if measure.ranked else ())

    @property
    def gains(self) -> tuple[str, ...]:
        """The measures of what a reconstruction has over the best prior: of pictures and tables, and of texts."""
        return tuple(m.name for m in self.known.values() if m.section == "reconstruction" and m.headline)

    @cached_property
    def last_round(self) -> int:
        """The last observed round, whose aggregate is released; 0 where nothing was observed."""
        return max((key[0] for key in self._values), default=0)

    def value(self, metric: str, level: str, subject: str, *words: str, round: int = FINAL) -> Value | None:
        """The row with exactly these words in its setting; of several false positive rates the smallest.

        With `fpr=…` among the words it is the row at that rate.
        """
        return self._values.get((round, metric, level, subject, frozenset(words)))

    def local(self, measure: Variant, kind: str, round: int = FINAL) -> Value | None:
        """The value at the owning client; of a measure that tells no owning client from others the local one."""
        owner = self.value(measure.metric, "local", kind, *measure.parts, "owner", round=round)
        return owner or self.value(measure.metric, "local", kind, *measure.parts, round=round)

    def settings(self, metric: str, *words: str, round: int = FINAL) -> list[tuple[str, str, frozenset[str], Value]]:
        """Level, subject, setting and value of every row of a metric whose setting has these words among others.

        As for `value`, a row at one of several false positive rates counts if its rate is asked for.
        """
        rates = {word for word in words if word.startswith(_RATE)}
        return [
            (level, subject, parts, value)
            for (when, name, level, subject, parts), value in self._values.items()
            if when == round
            and name == metric
            and parts.issuperset(words)
            and {word for word in parts if word.startswith(_RATE)} == rates
        ]

    def series(self, metric: str, level: str, subject: str, *words: str) -> list[tuple[int, Value]]:
        """A value over the observed rounds."""
        rounds = sorted({key[0] for key in self._values} - {FINAL})
        found = [(round, self.value(metric, level, subject, *words, round=round)) for round in rounds]
        return [(round, value) for round, value in found if value is not None]

    def local_series(self, measure: Variant, kind: str) -> list[tuple[int, Value]]:
        """The value at the owning client over the observed rounds."""
        rounds = sorted({key[0] for key in self._values} - {FINAL})
        found = [(round, self.local(measure, kind, round)) for round in rounds]
        return [(round, value) for round, value in found if value is not None]

    @property
    def gain(self) -> str:
        """The metric of what a reconstruction has over the best prior: that of texts only where there is no other."""
        there = {row.reading.metric for row in self.rows}
        return next((gain for gain in self.gains if gain in there), "")

    def leaked(self, view: str, kind: str) -> list[tuple[int, Value]]:
        """Over the attacked rounds: by how much ins are better rebuilt than outs, by the first probe of this kind.

        In dB, of texts in likeness: `gain` says which.
        """
        rounds = sorted({key[0] for key in self._values} - {FINAL})
        found = []
        for round in rounds:
            rows = self.settings(f"{self.gain}.difference", f"view={view}", round=round)
            further = {_of(source) for source in self.leaks}
            own = [value for _, about, parts, value in rows if about == kind and parts.isdisjoint(further)]
            found += [(round, value) for value in own[:1]]
        return found

    def examples(self, measure: Variant) -> dict[str, tuple[list[float], list[float]]]:
        """For each kind the local and the global values of the examples that have both."""
        pairs: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in self.kinds}
        for subject, kind in zip(self.run.audit["subject"].tolist(), self.run.audit["kind"].tolist(), strict=True):
            local = self.value(measure.metric, "local", str(subject), *measure.parts, "owner")
            everywhere = self.value(measure.metric, "global", str(subject), *measure.parts)
            if local and everywhere and math.isfinite(local.value) and math.isfinite(everywhere.value):
                pairs[kind][0].append(local.value)
                pairs[kind][1].append(everywhere.value)
        return pairs

    def _nulls(self, metric: str, *words: str) -> tuple[float, ...]:
        return tuple(sorted({value.value for _, _, _, value in self.settings(f"{metric}.null", *words)}))

    def null_of(self, measure: Variant, level: str, kind: str) -> float:
        """The value without memorisation of one kind at one level, as it was found."""
        place = ("owner",) if level == "local" else ()
        found = self.value(f"{measure.metric}.null", level, kind, *measure.parts, *place)
        return measure.null if found is None else found.value

    @cached_property
    def measures(self) -> tuple[Variant, ...]:
        """The measures of kinds of audit examples that this run has, with their variants, in the order of the table."""
        found: list[tuple[tuple[Any, ...], Variant]] = []
        for place, measure in enumerate(self.known.values()):
            if measure.section:
                continue
            variants = self._variants(measure)
            attacks = {self._attack_of(parts) for parts in variants}
            first = min((name.precedence for name in attacks if name), default=1)
            for parts in variants:
                attack = self._attack_of(parts)
                headline = measure.headline and (attack is None or attack.precedence == first)
                key = (
                    measure.order,
                    *((attack.precedence, attack.title) if attack else (-1, "")),
                    sorted(parts),
                    place,
                )
                variant = self._variant(measure, parts, attack, headline)
                found.append((key, variant))
                found += [(key, one) for one in self._usual_rates(variant)]
        return tuple(variant for _, variant in sorted(found, key=lambda pair: pair[0]))

    def _variants(self, measure: Measure) -> list[frozenset[str]]:
        """The words, apart from the place, that tell the variants of a measure of kinds apart."""
        found = [
            parts - {"owner", "others"} for _, about, parts, _ in self.settings(measure.name) if about in self.kinds
        ]
        return [parts for parts in dict.fromkeys(found) if not parts & {"probability", "poor fit"}]

    @staticmethod
    def _attack_of(parts: frozenset[str]) -> AttackName | None:
        """The attack among the words of a variant, with the fields that are not at their default."""
        for part in parts:
            kind, _, changed = part.partition(" ")
            if (name := attack_names().get(kind)) is not None:
                return replace(name, title=f"{name.title} {changed}".strip())
        return None

    def _variant(self, measure: Measure, parts: frozenset[str], attack: AttackName | None, headline: bool) -> Variant:
        """One variant with its title and its value without memorisation."""
        metric = measure.name
        rates = {value.fpr for _, _, _, value in self.settings(metric, *parts)} - {math.nan}
        rates = {one for one in rates if not math.isnan(one)}
        nulls = self._nulls(metric, *parts)
        if math.isnan(measure.null):
            null = nulls[0] if len(nulls) == 1 else math.nan
        else:
            # an attack that reads coins has a null of its own in each place
            null, nulls = measure.null, tuple(one for one in nulls if abs(one - measure.null) >= _AT_NULL)
        words = [attack.title] if attack else []
        words += [measure.title, *(f"from {part}s" for part in sorted(parts) if not attack)]
        if rates:
            one = len(rates) == 1 and not math.isnan(null)
            words.append(f"at {f'FPR {rate(min(rates))}' if one else 'the smallest FPR that the data support'}")
        return Variant(measure=measure, title=" ".join(words), null=null, parts=parts, nulls=nulls, headline=headline)

    def _usual_rates(self, variant: Variant) -> Iterator[Variant]:
        """The same at the usual false positive rates, where these are not the smallest of all kinds."""
        smallest = {value.fpr for _, _, _, value in self.settings(variant.metric, *variant.parts)}
        for usual in USUAL:
            word = f"{_RATE}{usual:.4g}"
            if self.settings(variant.metric, *variant.parts, word) and smallest != {usual}:
                nulls = self._nulls(variant.metric, *variant.parts, word)
                yield replace(
                    variant,
                    title=f"{variant.title.partition(' at ')[0]} at FPR {usual:.4g}",
                    null=nulls[0] if len(nulls) == 1 else math.nan,
                    parts=variant.parts | {word},
                )


def _of(source: str) -> str:
    """The word that keeps the rows of a further probe of the same kind apart."""
    return f"source={source}"
