"""The cells of a row: a value with its interval, and the count behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fedmem.reporting.cells import Value, rate
from fedmem.reporting.measures import Variant


def value_cell(value: Value | None, measure: Variant | None = None) -> str:
    """A value as text, with its false positive rate where the heading does not have it."""
    if value is None:
        return "–"
    with_rate = measure is not None and math.isnan(measure.null) and not math.isnan(value.fpr)
    if measure is not None and measure.is_rate and value.is_wide:
        text = f"≈{value.text(1)}"
    else:
        text = value.text(measure.digits if measure else 2)
    return text + (f" @ {rate(value.fpr)}" if with_rate else "")


def count_cell(*values: Value | None) -> str:
    """How many stand behind the values of a row: one number, or one for each."""
    counts = [str(value.n) for value in values if value is not None]
    return counts[0] if len(set(counts)) == 1 else "/".join(counts)


def kind_with_count(kind: str, values: Iterable[Value]) -> str:
    """A kind and how many examples stand behind these values of it.

    >>> kind_with_count("typical", [Value(value=0.5, low=0.4, high=0.6, n=n) for n in (9, 7, 9)])
    'typical (n = 7 to 9)'
    """
    counts = sorted({value.n for value in values})
    return f"{kind} (n = {counts[0]})" if len(counts) == 1 else f"{kind} (n = {counts[0]} to {counts[-1]})"
