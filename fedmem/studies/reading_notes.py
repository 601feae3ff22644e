"""Notes for a reader of a comparison's numbers: how few seeds there are, nulls, and false positive rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.events import count
from fedmem.reporting.cells import number, rate
from fedmem.reporting.verdict import list_text
from fedmem.studies.comparison import Comparison
from fedmem.studies.contrasts import ENOUGH_SEEDS
from fedmem.studies.quantities import Series

FEW_SEEDS = "few seeds"
"""The mark of a verdict from fewer than `ENOUGH_SEEDS` seeds."""


def few_seeds_warning(seeds: int) -> str:
    """A warning about intervals, verdicts and detectable differences of so few seeds; empty for one, or for enough.

    With one seed there is no interval to warn of.

    >>> few_seeds_warning(2).partition(".")[0]
    'few seeds: with 2 seeds, intervals and p have 1 degree of freedom'
    >>> few_seeds_warning(1), few_seeds_warning(5)
    ('', '')
    """
    if not 1 < seeds < ENOUGH_SEEDS:
        return ""
    return (
        f"{FEW_SEEDS}: with {seeds} seeds, intervals and p have {count(seeds - 1, 'degree')} of freedom. They assume "
        "that values and differences of seeds are normally distributed, which so few seeds cannot show. Take at least "
        f"{ENOUGH_SEEDS} seeds before you rely on a verdict."
    )


def with_few_seeds(verdict: str, seeds: int) -> str:
    """A verdict, marked if it comes from too few seeds; one that no interval stands behind stays as it is.

    >>> with_few_seeds("lower", 3), with_few_seeds("not significant (detects 4.1)", 2), with_few_seeds("lower", 5)
    ('lower (few seeds)', 'not significant (detects 4.1; few seeds)', 'lower')
    >>> with_few_seeds("identical", 2)
    'identical'
    """
    if seeds >= ENOUGH_SEEDS or not verdict.startswith(("higher", "lower", "not significant")):
        return verdict
    return f"{verdict[:-1]}; {FEW_SEEDS})" if verdict.endswith(")") else f"{verdict} ({FEW_SEEDS})"


OTHER_CONDITION = "other condition"
"""The mark of a difference between values of which only one is conditional."""


def condition_warning(comparison: Comparison) -> str:
    """A warning where values of some settings alone are conditional on something that all their runs share."""
    settings = comparison.settings_with_values
    conditional = [comparison.labels[setting] for setting in settings if comparison.condition(setting)]
    others = [comparison.labels[setting] for setting in settings if not comparison.condition(setting)]
    if not conditional or not others:
        return ""
    return (
        f"{OTHER_CONDITION}: values of {list_text(conditional)} are conditional on the batches that all runs share, "
        f"and those of {list_text(others)} are not. A difference between them may be that of the batches alone. Set "
        "the key batches alike in all settings before you rely on it."
    )


def with_condition(verdict: str, *, other: bool) -> str:
    """A verdict, marked if only one of the two values is conditional.

    >>> with_condition("lower", other=True), with_condition("lower (few seeds)", other=True)
    ('lower (other condition)', 'lower (few seeds; other condition)')
    >>> with_condition("lower", other=False)
    'lower'
    """
    if not other or not verdict:
        return verdict
    return f"{verdict[:-1]}; {OTHER_CONDITION})" if verdict.endswith(")") else f"{verdict} ({OTHER_CONDITION})"


def notes_of_measure(comparison: Comparison, title: str) -> Iterator[str]:
    """The value of a measure without memorisation, and the false positive rate at which it is read, if it has them."""
    series = [one for one in comparison.tested_series if one.quantity.title == title]
    if text := _nulls_text(series):
        yield f"Without memorisation: {text}."
    rates = [one.fpr for one in series]
    if text := " to ".join(dict.fromkeys(map(rate, _ends(rates)))):
        same = (
            "in every run" if text in map(rate, _ends(rates)) else "by run; values at different rates are not compared"
        )
        yield f"False positive rate: {text} {same}."


def _nulls_text(series: Sequence[Series]) -> str:
    """The smallest and the largest null with the digits of the measure; one number where they are equal so."""
    digits = series[0].quantity.digits if series else 0
    ends = _ends([one.null for one in series])
    texts = [number(end, digits) for end in ends]
    return " to ".join(dict.fromkeys(text.rstrip("0").rstrip(".") if "." in text else text for text in texts))


def _ends(arrays: Sequence[FloatArray]) -> tuple[float, ...]:
    """The smallest and the largest finite value; none where there is none."""
    values = np.concatenate([array.ravel() for array in arrays]) if arrays else np.zeros(0)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else ()
