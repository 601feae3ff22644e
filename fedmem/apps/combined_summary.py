"""Several runs of an app in sentences, and whether the ranks of its canaries mean what exposure takes them to mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.evidence import Bank, ReferenceEvidence
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Labels, Level, Measurement
from fedmem.estimation.single_examples import smallest_p
from fedmem.estimation.statistics import holm, student_mean
from fedmem.estimation.two_way import FEWEST
from fedmem.estimators.exposure import null_mean
from fedmem.reporting.measures import attack_names, shipped_measures
from fedmem.reporting.multiplicity import LEVELS, adjust
from fedmem.reporting.verdict import verdict_of
from fedmem.results.run_summary import ALPHA, Finding, Key, KindSummary, Measured


def high_without_training(bank: Bank) -> dict[str, tuple[float, float]]:
    """Sets whose examples rank significantly too high in models that never trained on them.

    The value of each is the largest mean exposure over the out runs, and the mean that is expected, in bits. Examples
    that are drawn like their references have the expected one. Read at the last observed round, in the owners' models
    and the aggregates, with Student's 95 % interval over examples. All m examples are ranked among the same N
    references, whose luck they share, so that the interval is √(1 + m/N) times as wide. Fewer than eight examples show
    nothing.
    """
    high: dict[str, tuple[float, float]] = {}
    last = max((ranks.round for ranks in bank.references), default=0)
    for ranks in bank.references:
        values = _out_bits(bank, ranks) if ranks.round == last else np.empty(0)
        values = values[~np.isnan(values)]
        expected = null_mean(ranks.count)
        if len(values) < FEWEST:
            continue
        middle = float(values.mean())
        half = (middle - student_mean(values)[0]) * math.sqrt(1 + len(values) / ranks.count)
        if middle - half > expected:
            high[ranks.family] = max(high.get(ranks.family, (0.0, 0.0)), (middle, expected))
    return high


def _out_bits(bank: Bank, ranks: ReferenceEvidence) -> FloatArray:
    """The mean exposure of each example over the out runs; NaN without any."""
    audit, subjects = bank.audit, ranks.subjects
    bits = np.log2((ranks.count + 1) / (1 + np.maximum(ranks.less, 0) + ranks.ties / 2))
    is_read = (ranks.less >= 0) & ~audit.is_in[ranks.run][:, subjects] & (audit.owner[subjects] >= 0)
    if ranks.level == "local":
        is_read &= ranks.client[:, None] == audit.owner[subjects][None, :]
    count = is_read.sum(axis=0)
    total = np.where(is_read, bits, 0.0).sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), math.nan), dtype=np.float64)


def summary_text(rows: Sequence[Measurement], audit: AuditSet, high: dict[str, tuple[float, float]]) -> str:
    """The summary in sentences: one for the owning client, one for the aggregate, and what limits them.

    As in the verdict of a run, p is adjusted over the measures of a kind at a level. A set of fewer than eight examples
    has no interval, and its examples are tested one by one.
    """
    summaries = []
    for kind in audit.kinds:
        few = np.flatnonzero(audit.kind == kind)
        few = few if len(few) < FEWEST else few[:0]
        findings = tuple(_findings(_index(rows, [kind, *map(str, few.tolist())]), kind, high))
        smallest = smallest_p(audit.is_in[:, audit.kind == kind])
        summaries.append(KindSummary(kind=kind, examples=0, findings=tuple(adjust(findings, smallest))))
    sentences = [verdict_of(level, summaries).text for level in LEVELS]
    sentences += [high_text(name, *values) for name, values in high.items()]
    return " ".join(sentences)


def high_text(name: str, out: float, expected: float) -> str:
    """Why plain exposure of a set is not judged."""
    return (
        f"Examples of {name!r} rank high without training on them: their exposure over the out runs is {out:.2f} bits, "
        f"where {expected:.2f} are expected. So plain exposure has no null, verdict and retention here; read "
        "exposure_gain."
    )


_Rows = dict[tuple[str, Level, Labels], dict[str, Measurement]]


def _index(rows: Sequence[Measurement], subjects: Sequence[str]) -> _Rows:
    """The rows of the summary about a kind and examples of it, in this order, by metric, level and labels but place."""
    found: _Rows = {}
    for subject in subjects:
        for row in rows:
            reading = row.reading
            is_here = row.scope == "summary" and reading.labels.get("place") in (None, "owner")
            if is_here and reading.subject == subject:
                found.setdefault((reading.metric, row.level, reading.labels.without("place")), {})[subject] = row
    return found


def _findings(rows: _Rows, kind: str, high: dict[str, tuple[float, float]]) -> Iterator[Finding]:
    measures = shipped_measures()
    for declared in measures.values():
        if not (declared.headline and declared.shows):
            continue
        measure = declared
        if kind in high and declared.gain in measures:
            measure = replace(measures[declared.gain], shows=declared.shows)
        variants = dict.fromkeys(labels for metric, _, labels in rows if metric == measure.name)
        for labels in variants:
            if {name for name, _ in labels.items} <= {"attack"}:
                yield _finding(rows, kind, measure, labels)


def _finding(rows: _Rows, kind: str, measure: Measure, labels: Labels) -> Finding:
    attack = labels.text("attack")
    names = attack_names()
    title = f"{names[attack].title if attack in names else attack} {measure.title}" if attack else measure.title
    local, aggregate = (_value_of(rows, kind, measure, level, labels) for level in LEVELS)
    return Finding(
        shows=measure.shows,
        metric=measure.name,
        title=title,
        unit=measure.unit_text,
        digits=measure.digits,
        labels=dict(labels.items),
        local=local,
        aggregate=aggregate,
        retention=None,
    )


def _value_of(rows: _Rows, kind: str, measure: Measure, level: Level, labels: Labels) -> Measured | None:
    row = rows.get((measure.name, level, labels), {}).get(kind)
    if row is None:
        return None

    def numbers_beside(name: str) -> dict[str, float]:
        beside = rows.get((f"{measure.name}.{name}", level, labels), {})
        return {subject: other.reading.value for subject, other in beside.items()}

    reading = row.reading
    p = numbers_beside("p")
    of_kind = p.pop(kind, math.nan)
    of_examples = tuple(value for value in p.values() if not math.isnan(value))
    adjusted = holm(of_examples).tolist()
    return Measured(
        value=reading.value,
        low=reading.low,
        high=reading.high,
        n=reading.n,
        null=numbers_beside("null").get(kind, measure.null),
        p=min(adjusted, default=of_kind),
        examples=sum(each <= ALPHA for each in adjusted) if adjusted else None,
        p_of_examples=of_examples,
        keys=_keys_of(measure, level, kind, p),
    )


def _keys_of(measure: Measure, level: Level, kind: str, examples: Iterable[str]) -> tuple[Key, ...]:
    """The rows of a kind and of examples that were tested one by one, which are counted by them."""
    return tuple(Key(metric=measure.name, level=level, subject=subject, labels={}) for subject in (kind, *examples))
