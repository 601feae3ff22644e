"""The measures that have scores of single examples in a run, and which of them suits a choice of examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.measure import Measure, from_json
from fedmem.contracts.measurement import NO_LABELS, Labels, Level, Reading
from fedmem.contracts.needs import measures_of
from fedmem.errors import ComponentError, RunError
from fedmem.estimation.single_examples import RATE, upper_p
from fedmem.estimation.statistics import mean, means_by_coin, newcombe
from fedmem.estimation.twins import average_twins, coins_of_rows
from fedmem.results.read import Run
from fedmem.scenario.catalogue import kinds, load
from fedmem.wording import choices

LEVELS: tuple[Level, ...] = ("global", "local")

_SCORING = ("estimator", "signal")
"""The families whose components score single examples."""

_Scores = Mapping[Level, Mapping[int, Reading]]


@dataclass(frozen=True, kw_only=True)
class ScoredVariant:
    """A measure with its labels, and the scores of single examples by level."""

    metric: str
    labels: Labels
    source: str
    scores: _Scores


def single_measures(run: Run) -> dict[str, ScoredVariant]:
    """The measures that have scores of single examples in the summary, by the name that `--measure` takes."""
    variants: dict[str, ScoredVariant] = {}
    collected: dict[str, dict[Level, dict[int, Reading]]] = {}
    for row in run.rows():
        reading = row.reading
        if row.scope != "summary" or not reading.subject.isdecimal() or "." in reading.metric:
            continue
        place = reading.labels.get("place")
        if row.level not in LEVELS or place not in (None, "owner"):
            continue
        labels = reading.labels.without("place")
        name = "_".join([*labels.words(), reading.metric])
        scores = collected.setdefault(name, {})
        scores.setdefault(row.level, {})[int(reading.subject)] = reading
        variants.setdefault(name, ScoredVariant(metric=reading.metric, labels=labels, source=row.source, scores=scores))
    return variants


def choose_variant(run: Run, name: str | None, audit: AuditSet, is_candidate: BoolArray) -> tuple[str, ScoredVariant]:
    """The measure that is asked for, else the one that suits these examples; see `_default`."""
    variants = single_measures(run)
    if not variants:
        raise RunError(
            f"{run.path} has no scores of single examples; add the estimator memorisation, with at least 2 runs"
        )
    if name is None:
        name = _default(run, variants, audit, is_candidate)
    if name not in variants:
        raise ComponentError("measure", f"{name!r} has no scores of single examples here{choices(name, variants)}")
    return name, variants[name]


def choose_level(variant: ScoredVariant, level: Level | None) -> Level:
    """The level that is asked for, by default global, else local."""
    levels = [one for one in LEVELS if one in variant.scores]
    if level is None:
        return levels[0]
    if level not in levels:
        raise ComponentError("level", f"{level!r} has no scores of single examples here{choices(level, levels)}")
    return level


def _default(run: Run, variants: Mapping[str, ScoredVariant], audit: AuditSet, is_candidate: BoolArray) -> str:
    """The headline measure with scores of most of these examples; of several the first in the order of tables.

    Where the examples are not drawn as their references are, it is the gain of this measure, if it has one.
    """
    declared = {name: declaration_of(run, variant) for name, variant in variants.items()}

    def precedence(name: str) -> tuple[bool, int, int]:
        scored = {subject for scores in variants[name].scores.values() for subject in scores if is_candidate[subject]}
        is_proxy = declared[name].section == "proxies"
        is_headline = declared[name].headline and not is_proxy and variants[name].labels == NO_LABELS
        return not is_headline, -len(scored), declared[name].order

    best = min(variants, key=precedence)
    has_no_null = np.isin(audit.kind[is_candidate], list(audit.not_uniform)).any()
    gain = next((name for name in variants if declared[best].gain and declared[name].name == declared[best].gain), "")
    return gain if gain and has_no_null else best


def declaration_of(run: Run, variant: ScoredVariant) -> Measure:
    """The declaration of the estimator or signal; for those of another package, the declaration stored with the run."""
    stored = [from_json(entry) for entry in run.manifest.get("measures") or ()]
    shipped = (measures_of(load(family, variant.source)) for family in _SCORING if variant.source in kinds(family))
    for measure in (*stored, *chain.from_iterable(shipped)):
        if measure.name == variant.metric:
            return measure
    return Measure(name=variant.metric, title=variant.metric.replace("_", " "), means="")


def evidence_compared(measure: Measure, labels: Labels) -> str:
    """The evidence that in and out runs of one example are compared by; empty where there is no exact test."""
    if labels == NO_LABELS:
        return measure.compares
    is_probability = labels == Labels.of(statistic="probability")
    return "margin" if is_probability and measure.compares == "correct" else ""


def floor_text(smallest_p: float, candidates: int) -> str:
    """How many examples must have the smallest possible p before any is marked; empty where one is enough.

    >>> floor_text(1 / 70, 32)
    ' So none of 32 can be marked unless at least 10 of them have that p. More runs allow smaller p.'
    >>> floor_text(1 / 12870, 32)
    ''
    """
    needed = math.ceil(smallest_p * candidates / RATE - 1e-9)
    if needed <= 1:
        return ""
    text = f" So none of {candidates} can be marked unless at least {needed} of them have that p."
    return f"{text} More runs allow smaller p."


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The evidence of single examples in each run of the summary."""

    values: Mapping[tuple[Level, str], Mapping[str, FloatArray]]
    audit: AuditSet
    compares: str

    def of(self, level: Level) -> FloatArray:
        """(G, m) higher for more memorisation, the means of twins; NaN where there is none."""
        place: tuple[Level, str] = (level, "owner" if level == "local" else "")
        if not self.compares or place not in self.values:
            return np.full(self.is_in.shape, math.nan)
        values = average_twins(mean(self.values[place][self.compares], axis=1), self.audit)
        return -values if self.compares == "rank" else values

    @property
    def is_in(self) -> BoolArray:
        """(G, m) the coins, those of twins once."""
        return coins_of_rows(self.audit)

    def p(self, level: Level) -> FloatArray:
        """(m,) exact p."""
        return upper_p(self.of(level), self.is_in)

    def counts(self, level: Level) -> tuple[IntArray, IntArray]:
        """(m,) in and out runs with a value; twins count once."""
        is_measured = ~np.isnan(self.of(level))
        return (is_measured & self.is_in).sum(0), (is_measured & ~self.is_in).sum(0)

    def interval(self, level: Level, confidence: float) -> tuple[FloatArray, FloatArray]:
        """(m,) Newcombe's interval of a difference of shares; NaN for what is no share."""
        unknown = np.full(len(self.audit), math.nan)
        if self.compares != "correct":
            return unknown, unknown
        weights = np.ones((1, len(self.is_in)))
        inside, outside = (side[0] for side in means_by_coin(self.of(level), self.is_in, weights))
        ins, outs = self.counts(level)
        return newcombe(inside * ins, ins, outside * outs, outs, confidence)

    def largest_error(self, level: Level, subjects: IntArray) -> float:
        """½ √(1/ins + 1/outs), the largest of these examples; NaN without evidence."""
        ins, outs = (side[subjects] for side in self.counts(level))
        if not self.compares or not (ins * outs).all():
            return math.nan
        return float((0.5 * np.sqrt(1 / ins + 1 / outs)).max())
