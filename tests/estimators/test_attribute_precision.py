"""Tests of `fedmem/estimators/attribute_precision.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Estimate
from fedmem.errors import FedmemError
from fedmem.estimation.estimates import interval_of
from fedmem.estimation.statistics import wilson
from fedmem.estimators.attribute_precision import AttributePrecision, precision_gap, surest
from tests.banks import coins, make_view
from tests.tiny import tiny

RUNS, EXAMPLES = 8, 20


def estimates(
    right: FloatArray, confidence: FloatArray, is_in: BoolArray, *, top: float = 0.1, round_number: int | None = None
) -> Mapping[tuple[str, str], Estimate]:
    signals = {
        "attribute_weighted": right[:, None],
        "attribute_mode": np.full((RUNS, 1, EXAMPLES), 0.25),
        "attribute_confidence.weighted": confidence[:, None],
    }
    view = make_view(np.zeros((RUNS, EXAMPLES)), is_in, round_number=round_number, draws=100)
    found = AttributePrecision(top=top).estimate(replace(view, signals=signals))
    return {
        (one.metric, " ".join(filter(None, (one.labels.text("guess"), one.labels.text("statistic"))))): one
        for one in found
    }


def test_the_surest_guesses_are_counted_on_each_side() -> None:
    rng = np.random.default_rng(0)
    is_in = coins(RUNS, EXAMPLES, rng)
    confidence = rng.random((RUNS, EXAMPLES))
    right = (rng.random((RUNS, EXAMPLES)) < 0.5).astype(np.float64)
    found = estimates(right, confidence, is_in, top=0.25)
    for side, name in ((is_in, "weighted"), (~is_in, "weighted out")):
        order = np.argsort(-confidence[side])[:20]
        assert found["attribute_precision", name].value == pytest.approx(right[side][order].mean())
    gap = found["attribute_precision", "weighted"].value - found["attribute_precision", "weighted out"].value
    assert found["attribute_precision_gain", "weighted"].value == pytest.approx(gap)
    assert found["attribute_precision", "mode"].value == 0.25
    assert found["attribute_precision_gain", "mode"].value == 0.0
    assert math.isnan(found["attribute_precision", "weighted"].null)


def test_sure_and_right_only_in_runs_with_the_example() -> None:
    rng = np.random.default_rng(1)
    is_in = coins(RUNS, EXAMPLES, rng)
    found = estimates(is_in.astype(np.float64), rng.random((RUNS, EXAMPLES)), is_in)
    gain = found["attribute_precision_gain", "weighted"]
    assert (gain.value, gain.null) == (1.0, 0.0)
    assert gain.p < 0.03
    assert math.isnan(
        estimates(is_in.astype(np.float64), rng.random((RUNS, EXAMPLES)), is_in, round_number=1)[
            "attribute_precision_gain", "weighted"
        ].p
    )


def test_wrong_guesses_of_little_confidence_do_not_count() -> None:
    rng = np.random.default_rng(2)
    confidence = rng.random((RUNS, EXAMPLES))
    right = (confidence > 0.7).astype(np.float64)
    found = estimates(right, confidence, coins(RUNS, EXAMPLES, rng))
    assert found["attribute_precision", "weighted"].value == 1.0
    turned = estimates(right, -confidence, coins(RUNS, EXAMPLES, rng))
    assert turned["attribute_precision", "weighted"].value == 0.0


def test_guesses_that_ignore_the_coins_have_no_gain() -> None:
    rng, p = np.random.default_rng(3), []
    for _ in range(40):
        confidence, right = rng.random((2, RUNS, EXAMPLES))
        found = estimates(right, confidence, coins(RUNS, EXAMPLES, rng))
        p.append(found["attribute_precision_gain", "weighted"].p)
    assert np.mean(np.array(p) <= 0.05) <= 0.15
    assert abs(np.mean(p) - 0.5) < 0.2


def test_equal_confidences_have_no_gain_and_no_p() -> None:
    rng = np.random.default_rng(5)
    right = np.tile(rng.random(EXAMPLES), (RUNS, 1))
    gain = estimates(right, np.ones((RUNS, EXAMPLES)), coins(RUNS, EXAMPLES, rng))[
        "attribute_precision_gain", "weighted"
    ]
    assert gain.value == pytest.approx(0.0, abs=1e-12)
    assert gain.p == 1.0


def test_ties_count_in_part() -> None:
    everywhere = np.ones((1, 4), dtype=bool)
    assert surest(np.full((1, 4), 0.3), everywhere, 0.25).tolist() == [[0.25] * 4]
    assert surest(np.array([[0.9, 0.1, 0.2, 0.3]]), everywhere, 0.01).tolist() == [[1, 0, 0, 0]]
    assert surest(np.array([[0.9, 0.1, 0.2, 0.3]]), everywhere, 1.0).tolist() == [[1, 1, 1, 1]]
    assert surest(np.array([[0.9, 0.1, 0.2, 0.3]]), everywhere, 0.375).tolist() == [[1, 0, 0, 0.5]]


def test_pairs_without_a_value_do_not_count() -> None:
    rng = np.random.default_rng(4)
    is_in = coins(RUNS, EXAMPLES, rng)
    right, confidence = np.ones((RUNS, EXAMPLES)), rng.random((RUNS, EXAMPLES))
    right[0], confidence[0] = np.nan, 9.0
    assert estimates(right, confidence, is_in)["attribute_precision", "weighted"].value == 1.0
    right[:] = np.nan
    assert ("attribute_precision", "weighted") not in estimates(right, confidence, is_in)


def test_a_side_without_pairs_has_no_gap() -> None:
    one, nowhere = np.ones((1, 1)), np.zeros((1, 1), dtype=bool)
    assert math.isnan(precision_gap(one, one, ~nowhere, ~nowhere, 0.1))
    assert not surest(one, nowhere, 0.1).any()


def test_it_needs_the_signal() -> None:
    with pytest.raises(FedmemError, match="attribute_inference"):
        tiny(estimators=[{"kind": "attribute_precision"}])


def test_the_interval_of_a_gain_is_that_of_both_sides() -> None:
    """Contributions of in and out guesses are apart, so that those of the gain are their difference."""
    rng = np.random.default_rng(6)
    is_in, confidence = coins(RUNS, EXAMPLES, rng), rng.random((RUNS, EXAMPLES))
    right = (rng.random((RUNS, EXAMPLES)) < 0.5).astype(np.float64)
    found = estimates(right, confidence, is_in, top=0.4)
    inside, outside = (found["attribute_precision", f"weighted{side}"] for side in ("", " out"))
    gain = found["attribute_precision_gain", "weighted"]
    assert gain.influence.cells == pytest.approx(inside.influence.cells - outside.influence.cells)
    assert not inside.influence.cells[~is_in].any()
    assert not outside.influence.cells[is_in].any()
    chosen = [surest(confidence, side, 0.4) > 0 for side in (is_in, ~is_in)]
    assert [inside.n, outside.n] == [int(one.any(axis=0).sum()) for one in chosen]


def test_n_counts_the_examples_that_are_selected() -> None:
    is_in = coins(RUNS, EXAMPLES, np.random.default_rng(7))
    confidence = np.zeros((RUNS, EXAMPLES))
    confidence[:, :2] = 1.0
    found = estimates(np.ones((RUNS, EXAMPLES)), confidence, is_in)
    assert found["attribute_precision", "weighted"].n == 2


def test_runs_without_the_owner_do_not_count() -> None:
    """Guesses in runs in which the owning client has no part are surest and wrong."""
    rng = np.random.default_rng(8)
    is_in, confidence = coins(RUNS, EXAMPLES, rng), rng.random((RUNS, EXAMPLES))
    client_in = np.ones((RUNS, 2), dtype=bool)
    client_in[:3, 1] = False
    view = make_view(np.zeros((RUNS, EXAMPLES)), is_in, client_in=client_in)
    owner = np.arange(EXAMPLES) % 2
    is_there = client_in[:, owner]
    signals = {
        "attribute_weighted": is_there[:, None].astype(np.float64),
        "attribute_confidence.weighted": np.where(is_there, confidence, 9.0)[:, None],
    }
    view = replace(view, audit=replace(view.audit, owner=owner.astype(np.int32)), signals=signals)
    found = [one for one in AttributePrecision().estimate(view) if one.metric == "attribute_precision"]
    assert [one.value for one in found] == [1.0, 1.0]
    assert all(not one.influence.cells[~is_there].any() for one in found)
    assert AttributePrecision(top=1.0).estimate(view)[0].value == 1.0


@pytest.mark.parametrize("example", [0.0, 0.8])
def test_intervals_cover_a_precision_near_one(example: float) -> None:
    """38 guesses are selected on each side. A share `example` of the variance is that of the example in all runs."""
    truth = 0.9348  # the mean of Φ(.5 + .6 c) over the tenth of standard normal c that is largest
    rng, covered, at_one = np.random.default_rng(9), [], 0
    for _ in range(120):
        own, rest = np.sqrt([example, 1 - example])
        confidence, latent = own * rng.normal(size=(2, 1, 96)) + rest * rng.normal(size=(2, RUNS, 96))
        right = (0.5 + 0.6 * confidence + latent > 0).astype(np.float64)
        view = make_view(np.zeros((RUNS, 96)), coins(RUNS, 96, rng))
        signals = {"attribute_weighted": right[:, None], "attribute_confidence.weighted": confidence[:, None]}
        view = replace(view, signals=signals)
        for e in AttributePrecision().estimate(view)[:2]:
            low, high = interval_of(view, e)
            covered.append(low <= truth <= high)
            at_one += e.value == 1.0
            assert e.value < 1.0 or low < high == 1.0
    assert at_one > 10
    assert np.mean(covered) >= 0.93


def test_a_precision_of_one_has_an_interval_and_a_gain_has_none() -> None:
    is_in = coins(RUNS, EXAMPLES, np.random.default_rng(10))
    view = make_view(np.zeros((RUNS, EXAMPLES)), is_in)
    ones = np.ones((RUNS, 1, EXAMPLES))
    view = replace(view, signals={"attribute_weighted": ones, "attribute_confidence.weighted": ones})
    inside, outside, gain = AttributePrecision().estimate(view)
    expected = tuple(float(end) for end in wilson(RUNS, RUNS))
    assert interval_of(view, inside) == interval_of(view, outside) == expected
    assert np.isnan(interval_of(view, gain)).all()
    wrong = replace(view, signals={"attribute_weighted": 0 * ones, "attribute_confidence.weighted": ones})
    assert interval_of(wrong, AttributePrecision().estimate(wrong)[0])[0] == 0.0
