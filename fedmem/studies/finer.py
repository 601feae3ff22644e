"""Finer statistics of differences that are identical: equal answers may hide different probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fedmem.studies.comparison import Comparison, Row
from fedmem.studies.quantities import Quantity, Series


def finer_rows(comparison: Comparison) -> Mapping[tuple[Quantity, int], tuple[Row, ...]]:
    """The same by finer statistics, for each difference whose verdict is `identical`, by its quantity and setting.

    Memorisation by right and wrong answers is 0 in every seed where no answer changes. The probabilities may still
    differ. Each finer statistic is a family of its own. Its differences are adjusted over all kinds, levels and pairs
    of settings, also over those that are not shown.
    """
    identical = [row for row in comparison.rows if row.verdict == "identical"]
    if not identical:
        return {}
    finer = tuple(_as_tested(series) for series in comparison.series if "statistic" in series.quantity.labels)
    rows = replace(comparison, series=finer, measures=()).rows
    return {
        (row.quantity, row.setting): tuple(
            other for other in rows if other.setting == row.setting and _is_finer(other.quantity, row.quantity)
        )
        for row in identical
    }


def _is_finer(finer: Quantity, quantity: Quantity) -> bool:
    return (finer.metric, finer.kind, finer.level, finer.labels.without("statistic")) == (
        quantity.metric,
        quantity.kind,
        quantity.level,
        quantity.labels,
    )


def _as_tested(series: Series) -> Series:
    """The same, titled by its statistic, as one that is tested."""
    quantity = series.quantity
    base = quantity.title.removesuffix(f" {quantity.labels.text('statistic')}")
    title = f"{base} by {quantity.labels.text('statistic')}"
    return replace(series, quantity=replace(quantity, title=title, headline=True))
