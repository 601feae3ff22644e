"""Tests of `fedmem/studies/reading_notes.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.measurement import Labels
from fedmem.studies.comparison import Comparison
from fedmem.studies.quantities import Quantity, Series
from fedmem.studies.reading_notes import notes_of_measure
from fedmem.studies.report import Table
from fedmem.studies.study_page import page


def series(seeds: int, metric: str, *, null: float = np.nan, fpr: float = np.nan) -> Series:
    """A quantity of three settings: the second differs clearly from the first, the third not significantly."""
    rng = np.random.default_rng(0)
    values = 0.4 + 0.001 * rng.standard_normal((3, seeds))
    values[1] += 0.3
    filled = [np.full((3, seeds), value) for value in (null, 20.0, np.nan, np.nan, fpr)]
    return Series(
        quantity=Quantity(
            metric=metric, labels=Labels(), kind="secret", level="local", title=metric, digits=2, headline=True
        ),
        values=values,
        rounds={},
        null=filled[0],
        n=filled[1],
        paired=filled[2],
        paired_null=filled[3],
        fpr=filled[4],
    )


def comparison(seeds: int) -> Comparison:
    return Comparison(
        settings=tuple((("strategy.kind", name),) for name in ("fedavg", "krum", "fedmedian")),
        reference=(0, 0, 0),
        seeds=tuple(range(seeds)),
        series=(series(seeds, "exposure", null=1.436),),
    )


def text_of(made: Comparison) -> str:
    return " ".join(" ".join(line for line, _ in Table(made).lines(400)).split())


@pytest.mark.parametrize("seeds", [2, 3, 4])
@pytest.mark.usefixtures("undrawn")
def test_few_seeds_are_warned_of_at_each_verdict(seeds: int) -> None:
    made = comparison(seeds)
    warning = f"few seeds: with {seeds} seeds, intervals and p have {seeds - 1} degree"
    text = text_of(made)
    assert warning in text
    assert warning in page(made, "few", ())[0]
    # one row for each setting that is compared, whatever its verdict
    assert text.count("few seeds)") == 2
    one = replace(made, settings=made.settings[:1], reference=(0,), series=tuple(two_kinds(seeds)))
    assert text_of(one).count("few seeds)") == 1


def two_kinds(seeds: int) -> list[Series]:
    """One setting whose two kinds differ."""
    both = series(seeds, "exposure")
    arrays = {name: getattr(both, name) for name in ("values", "null", "n", "paired", "paired_null", "fpr")}
    return [
        replace(both, quantity=replace(both.quantity, kind=kind), **{k: v[i : i + 1] for k, v in arrays.items()})
        for i, kind in enumerate(("secret", "typical"))
    ]


@pytest.mark.parametrize("seeds", [1, 5, 8])
@pytest.mark.usefixtures("undrawn")
def test_enough_seeds_are_not_warned_of(seeds: int) -> None:
    assert "few seeds" not in text_of(comparison(seeds)) + page(comparison(seeds), "enough", ())[0]


def test_the_setting_with_the_fewest_seeds_is_warned_of() -> None:
    """Of six seeds three failed in the last setting."""
    made = comparison(6)
    (one,) = made.series
    one.values[-1, 3:] = one.n[-1, 3:] = np.nan
    text = text_of(made)
    assert "few seeds: with 3 seeds" in text
    assert text.count("few seeds)") == 1


def test_tables_name_nulls_and_false_positive_rates() -> None:
    made = comparison(3)
    rated, without = series(3, "tpr", null=0.25, fpr=0.125), series(3, "accuracy")
    made = replace(made, series=(*made.series, rated, without))
    assert list(notes_of_measure(made, "exposure")) == ["Without memorisation: 1.44."]
    assert list(notes_of_measure(made, "accuracy")) == []
    assert list(notes_of_measure(made, "tpr")) == [
        "Without memorisation: 0.25.",
        "False positive rate: 0.12 in every run.",
    ]
    rated.fpr[0, 0], rated.null[0, 0] = 0.25, 0.5
    assert list(notes_of_measure(made, "tpr")) == [
        "Without memorisation: 0.25 to 0.5.",
        "False positive rate: 0.12 to 0.25 by run; values at different rates are not compared.",
    ]
    assert "Without memorisation: 1.44." in text_of(made)
