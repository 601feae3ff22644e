"""Comparisons made of plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measurement import Labels
from fedmem.studies.comparison import Comparison
from fedmem.studies.quantities import Quantity, Series
from fedmem.studies.study_sentences import sentences_of
from fedmem.studies.study_summary import Sentence, StudySummary, collect_differences, values_of

Values = Sequence[Sequence[float]]
"""(settings, seeds)."""

FIRM = (0.50, 0.52, 0.49, 0.51, 0.50)
"""Five seeds that hardly differ."""

MORE = (0.70, 0.73, 0.68, 0.72, 0.70)
"""The same, clearly higher."""

LIKE = (0.51, 0.51, 0.50, 0.50, 0.49)
"""The same, not significantly other."""


def series_of(kind: str, level: str, values: Values, *, metric: str = "memorisation", statistic: str = "") -> Series:
    """A tested series; one with a statistic is not tested."""
    numbers: FloatArray = np.array(values)
    nothing = np.full(numbers.shape, np.nan)
    title = metric.replace("_", " ")
    return Series(
        quantity=Quantity(
            metric=metric,
            labels=Labels.of(statistic=statistic) if statistic else Labels(),
            kind=kind,
            level=level,
            title=f"{title} {statistic}".strip(),
            unit="points",
            scale=100.0,
            headline=not statistic,
            useful=metric == "test_accuracy",
        ),
        values=numbers,
        null=np.zeros_like(numbers) if kind else nothing,
        n=np.where(np.isnan(numbers), np.nan, 1.0),
        paired=nothing,
        paired_null=nothing,
        fpr=nothing,
        rounds={},
    )


def study_of(series: Sequence[Series], names: Sequence[str] = ("fedavg", "krum", "bulyan")) -> Comparison:
    """These series by setting, all compared with the first one."""
    num_settings, num_seeds = series[0].values.shape
    return Comparison(
        settings=tuple((("strategy.kind", name),) for name in names[:num_settings]) if num_settings > 1 else ((),),
        reference=(0,) * num_settings,
        seeds=tuple(range(num_seeds)),
        series=tuple(series),
    )


def as_sweep(comparison: Comparison) -> Comparison:
    """The same, in which no setting is compared."""
    return replace(comparison, reference=tuple(range(len(comparison.settings))))


def sentences(comparison: Comparison) -> list[Sentence]:
    """The sentences of a comparison."""
    return list(sentences_of(comparison, collect_differences(comparison), values_of(comparison)))


def texts(comparison: Comparison) -> list[str]:
    """Their texts."""
    return [sentence.text for sentence in sentences(comparison)]


def summary_of(comparison: Comparison, **facts: object) -> StudySummary:
    """The record of a comparison that no folder holds."""
    labels = comparison.labels
    plain: Mapping[str, object] = {
        "title": "digits · compare-01",
        "is_sweep": labels == tuple(labels[place] for place in comparison.reference),
        "settings": labels,
        "reference": tuple(labels[place] for place in comparison.reference),
        "seeds": comparison.seeds,
        "measures": (),
        "versions": {},
        "series_sha256": "",
        "failures": (),
        "warnings": (),
        "sentences": tuple(sentences(comparison)),
        "values": values_of(comparison),
        "differences": collect_differences(comparison),
        "fronts": (),
        "limits": (),
        "report": "comparison.html",
    }
    return StudySummary(**{**plain, **facts})  # type: ignore[arg-type]
