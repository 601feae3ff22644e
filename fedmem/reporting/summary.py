"""What a finished run says, as sections of a table: text cells from stored rows, not yet drawn on any medium.

Local beside global, measure by measure; what aggregation retains; differences in words; utility. A value that the
data do not resolve is called so, and every value stands with its interval and its n.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

from fedmem.contracts.measurement import EVERYWHERE, FINAL
from fedmem.estimation.roc import USUAL
from fedmem.estimation.saturation import RANKED, Zone, zone_of
from fedmem.reporting.cells import Value, rate
from fedmem.reporting.measures import _AT_CHANCE, _ATTACKS, _RATE, GAINS, Measure
from fedmem.results.read import Run


class Summary:
    """The rows of a run that belong to no single run or client, found by what they are about."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.kinds: tuple[str, ...] = tuple(dict.fromkeys(run.audit["kind"].tolist()))
        self.rows = [row for row in run.rows() if row.run == row.client == EVERYWHERE]
        self.leaks = tuple(dict.fromkeys(row.source for row in self.rows if row.reading.metric in GAINS))
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
        return zone_of(metric, self.run.reference_counts.get(kind, ()) if metric in RANKED else ())

    @cached_property
    def last_round(self) -> int:
        """The last observed round, whose aggregate is released; 0 where nothing was observed."""
        return max((key[0] for key in self._values), default=0)

    def value(self, metric: str, level: str, subject: str, *words: str, round: int = FINAL) -> Value | None:
        """The row with exactly these words in its setting; of several false positive rates the smallest.

        With `fpr=…` among the words it is the row at that rate.
        """
        return self._values.get((round, metric, level, subject, frozenset(words)))

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

    @property
    def gain(self) -> str:
        """The metric of what a reconstruction has over the best prior: that of texts only where there is no other."""
        there = {row.reading.metric for row in self.rows}
        return next((gain for gain in GAINS if gain in there), GAINS[0])

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

    def examples(self, measure: Measure) -> dict[str, tuple[list[float], list[float]]]:
        """For each kind the local and the global values of the examples that have both."""
        pairs: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in self.kinds}
        for subject, kind in zip(self.run.audit["subject"].tolist(), self.run.audit["kind"].tolist(), strict=True):
            local = self.value(measure.metric, "local", str(subject), *measure.parts, "owner")
            everywhere = self.value(measure.metric, "global", str(subject), *measure.parts)
            if local and everywhere and math.isfinite(local.value) and math.isfinite(everywhere.value):
                pairs[kind][0].append(local.value)
                pairs[kind][1].append(everywhere.value)
        return pairs

    def _null(self, metric: str, *words: str) -> float:
        """The value without memorisation, NaN where it is not the same for all kinds."""
        nulls = self._nulls(metric, *words)
        return nulls[0] if len(nulls) == 1 else math.nan

    def _nulls(self, metric: str, *words: str) -> tuple[float, ...]:
        return tuple(sorted({value.value for _, _, _, value in self.settings(f"{metric}.null", *words)}))

    def null_of(self, measure: Measure, level: str, kind: str) -> float:
        """The value without memorisation of one kind at one level, as it was found."""
        place = ("owner",) if level == "local" else ()
        found = self.value(f"{measure.metric}.null", level, kind, *measure.parts, *place)
        return measure.null if found is None else found.value

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """The measures that this run has, in the order in which they are told."""
        found = []
        if self.settings("exposure"):
            # kinds that are ranked among more have another null
            null, nulls = self._null("exposure"), self._nulls("exposure")
            found.append(Measure(metric="exposure", title="exposure", unit="bits", digits=2, null=null, nulls=nulls))
        extrapolated = [parts - {"owner", "others"} for _, _, parts, _ in self.settings("exposure_extrapolated.null")]
        for parts in dict.fromkeys(extrapolated):
            title = " ".join(["exposure, extrapolated", *(f"from {part}s" for part in parts)])
            null = self._null("exposure_extrapolated", *parts)
            metric = "exposure_extrapolated"
            found.append(Measure(metric=metric, title=title, unit="bits", digits=2, null=null, parts=parts))
        if self.settings("memorisation"):
            found.append(Measure(metric="memorisation", title="memorisation (self-influence, −1 to 1)", null=0.0))
        attacks = {min(parts) for level, _, parts, _ in self.settings("auc") if level == "global"}
        chance = {attack: self._nulls("auc", attack) for attack in attacks}
        for attack in sorted(attacks, key=lambda attack: (attack != "lira", attack)):
            parts, first = frozenset({attack}), attack == "lira" or "lira" not in attacks
            kind, _, changed = attack.partition(" ")
            name = f"{_ATTACKS.get(kind, kind)} {changed}".strip()
            # an attack that reads coins has a null of its own in each place
            nulls = tuple(null for null in chance[attack] if abs(null - 0.5) >= _AT_CHANCE)
            found.append(Measure(metric="auc", title=f"{name} AUC", null=0.5, parts=parts, headline=first, nulls=nulls))
            if self.settings("tpr", attack):
                null = self._null("tpr", attack)
                rates = {value.fpr for _, _, _, value in self.settings("tpr", attack)}
                one = len(rates) == 1 and not math.isnan(null)
                where = f"FPR {rate(min(rates))}" if one else "the smallest FPR that the data support"
                title = f"{name} TPR at {where}"
                found.append(Measure(metric="tpr", title=title, null=null, parts=parts, headline=first))
                found += self._usual_rates(name, attack, first)
        return tuple(found)

    def _usual_rates(self, name: str, attack: str, headline: bool) -> Iterator[Measure]:
        """True positive rates at the usual false positive rates, where these are not the smallest of all kinds."""
        smallest = {value.fpr for _, _, _, value in self.settings("tpr", attack)}
        for usual in USUAL:
            word = f"{_RATE}{usual:.4g}"
            if self.settings("tpr", attack, word) and smallest != {usual}:
                nulls = self._nulls("tpr", attack, word)
                yield Measure(
                    metric="tpr",
                    title=f"{name} TPR at FPR {usual:.4g}",
                    null=nulls[0] if len(nulls) == 1 else math.nan,
                    parts=frozenset({attack, word}),
                    headline=headline,
                )


def _of(source: str) -> str:
    """The word that keeps the rows of a further probe of the same kind apart."""
    return f"source={source}"
