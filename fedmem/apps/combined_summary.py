"""Several runs of an app in sentences, and whether the ranks of its canaries mean what exposure takes them to mean."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.evidence import Bank, ReferenceEvidence
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Labels, Level, Measurement
from fedmem.estimation.statistics import student_mean
from fedmem.estimation.two_way import FEWEST
from fedmem.estimators.exposure import null_mean
from fedmem.reporting.measures import attack_names, shipped_measures
from fedmem.reporting.multiplicity import LEVELS, adjust
from fedmem.reporting.verdict import verdict_of
from fedmem.results.run_summary import Finding, KindSummary, Measured


def high_without_training(bank: Bank) -> dict[str, tuple[float, float]]:
    """Sets whose examples rank significantly too high in models that never trained on them.

    The value of each is the largest mean exposure over the out runs, and the mean that is expected, in bits. Examples
    that are drawn like their references have the expected one. Read at the last observed round, in the owners' models
    and the aggregates, with Student's 95 % interval over examples. Fewer than eight examples show nothing.
    """
    high: dict[str, tuple[float, float]] = {}
    last = max((ranks.round for ranks in bank.references), default=0)
    for ranks in bank.references:
        values = _out_bits(bank, ranks) if ranks.round == last else np.empty(0)
        values = values[~np.isnan(values)]
        expected = null_mean(ranks.count)
        if len(values) >= FEWEST and student_mean(values)[0] > expected:
            high[ranks.family] = max(high.get(ranks.family, (0.0, 0.0)), (float(values.mean()), expected))
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


def summary_text(rows: Sequence[Measurement], kinds: Sequence[str], high: dict[str, tuple[float, float]]) -> str:
    """The summary in sentences: one for the owning client, one for the aggregate, and what limits them.

    As in the verdict of a run, p is adjusted over the measures of a kind at a level.
    """
    summaries = [
        KindSummary(kind=kind, examples=0, findings=tuple(adjust(tuple(_findings(_index(rows, kind), kind, high)))))
        for kind in kinds
    ]
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


_Rows = dict[tuple[str, Level, Labels], Measurement]


def _index(rows: Sequence[Measurement], kind: str) -> _Rows:
    """The rows of the summary about a kind, by metric, level, and labels but for the place of the owner."""
    return {
        (row.reading.metric, row.level, row.reading.labels.without("place")): row
        for row in rows
        if row.scope == "summary" and row.reading.subject == kind and row.reading.labels.get("place") in (None, "owner")
    }


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
                yield _finding(rows, measure, labels)


def _finding(rows: _Rows, measure: Measure, labels: Labels) -> Finding:
    attack = labels.text("attack")
    names = attack_names()
    title = f"{names[attack].title if attack in names else attack} {measure.title}" if attack else measure.title
    local, aggregate = (_value_of(rows, measure, level, labels) for level in LEVELS)
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


def _value_of(rows: _Rows, measure: Measure, level: Level, labels: Labels) -> Measured | None:
    row = rows.get((measure.name, level, labels))
    if row is None:
        return None

    def number_beside(name: str, default: float) -> float:
        other = rows.get((f"{measure.name}.{name}", level, labels))
        return default if other is None else other.reading.value

    reading = row.reading
    return Measured(
        value=reading.value,
        low=reading.low,
        high=reading.high,
        n=reading.n,
        null=number_beside("null", measure.null),
        p=number_beside("p", math.nan),
        keys=(),
    )
