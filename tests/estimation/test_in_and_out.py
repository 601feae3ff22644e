"""Tests of `fedmem/estimation/in_and_out.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.contracts.estimator import Estimate, ExampleValues
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Labels
from fedmem.estimation.in_and_out import Side, estimate_in_and_out
from fedmem.estimation.statistics import student, student_mean
from tests.banks import coins, make_view
from tests.narrowing import present

SCORE = Measure(name="score", title="score", means="A score.", range=(-4.0, 4.0))


def estimates(main: Side = "in") -> tuple[dict[tuple[str, str], Estimate], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    is_in, values = coins(8, 6, rng), rng.normal(size=(8, 6)).clip(-4, 4)
    values[0, 0] = np.nan
    values[is_in[:, 5], 5] = np.nan  # never seen in
    view = make_view(np.zeros((8, 6)), is_in, kind=["a"] * 2 + ["b"] * 4, round_number=None)
    quantity = ExampleValues(metric="score", labels=Labels.of(clock="rounds"), values=values)
    found = estimate_in_and_out(view, quantity, SCORE, main=main)
    return {(e.metric, str(e.labels.without("clock"))): e for e in found if e.kind == "b"}, values, is_in


@pytest.mark.parametrize(("main", "other"), [("in", "out"), ("out", "in")])
def test_values_and_intervals_of_examples_by_side(main: Side, other: str) -> None:
    found, values, is_in = estimates(main)
    assert set(found) == {("score", ""), ("score", f"statistic={other}"), ("score_gain", "")}
    for j in (2, 3, 4):
        sides = {"in": values[is_in[:, j], j], "out": values[~is_in[:, j], j]}
        expected = {
            ("score", ""): (sides[main].mean(), *student_mean(sides[main])),
            ("score", f"statistic={other}"): (sides[other].mean(), *student_mean(sides[other])),
            ("score_gain", ""): student(sides["in"], sides["out"]),
        }
        for key, (value, low, high) in expected.items():
            e = found[key]
            assert present(e.examples).tolist() == [2, 3, 4]
            bounds = (-8, 8) if key[0] == "score_gain" else (-4, 4)
            shown = [present(part)[j - 2] for part in (e.per_example, e.per_example_low, e.per_example_high)]
            np.testing.assert_allclose(shown, [value, *np.clip([low, high], *bounds)])


def test_only_the_difference_has_a_null_and_p() -> None:
    found, _, _ = estimates()
    for (metric, _), e in found.items():
        is_gain = metric == "score_gain"
        assert (e.null == 0, not np.isnan(e.p), e.signed) == (is_gain, is_gain, is_gain)
        assert e.value == pytest.approx(present(e.per_example).mean())
