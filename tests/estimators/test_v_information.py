"""Tests of `fedmem/estimators/v_information.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.estimators import v_information
from fedmem.estimators.v_information import VInformation
from tests.banks import coins, make_view
from tests.narrowing import present

COUNTS = np.array([[3, 1, 0], [0, 9, 5]])
LABELS, OWNER = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 0, 0, 1, 1, -1])
PRIOR = {
    "owner": [4 / 7, 2 / 7, 1 / 7, 1 / 17, 10 / 17, 6 / 21],  # without an owner, that of the federation
    "federation": [4 / 21, 11 / 21, 6 / 21, 4 / 21, 11 / 21, 6 / 21],
}


def labelled(margin: FloatArray, seed: int = 0) -> View:
    view = make_view(margin, coins(len(margin), 6, np.random.default_rng(seed)), round_number=None)
    examples = replace(view.audit.examples, targets=LABELS)
    audit = replace(view.audit, examples=examples, owner=OWNER.astype(np.int32))
    return replace(view, audit=audit, label_counts=COUNTS)


def estimates(view: View, prior: Literal["owner", "federation"] = "owner") -> dict[str, Estimate]:
    """Out, in and gain."""
    found = VInformation(prior=prior).estimate(view)
    return {"gain" if e.metric.endswith("_gain") else e.labels.text("statistic", "out"): e for e in found}


@pytest.mark.parametrize("prior", ["owner", "federation"])
def test_a_known_conditional_gives_its_log_ratio(prior: Literal["owner", "federation"]) -> None:
    p = np.array([0.5, 0.25, 0.9, 0.1, 0.99, 0.4])
    view = labelled(np.tile(np.log(p / (1 - p)), (8, 1)))
    for side in ("out", "in"):
        e = estimates(view, prior)[side]
        np.testing.assert_allclose(present(e.per_example), np.log2(p / PRIOR[prior]))
        assert e.value == pytest.approx(np.log2(p / PRIOR[prior]).mean())
        assert e.labels.get("prior") == prior


def test_perfect_models_give_the_bits_of_the_prior() -> None:
    found = estimates(labelled(np.full((8, 6), 40.0)))
    np.testing.assert_allclose(present(found["out"].per_example), np.log2(1 / np.array(PRIOR["owner"])))


@pytest.mark.parametrize(
    "broken",
    [
        lambda view, whose: view.label_counts.sum(0)[LABELS] / view.label_counts.sum(),  # without adding one
        lambda view, whose: np.full(6, 1 / 3),
        lambda view, whose: 1 / np.array(PRIOR[whose]),  # the sign
    ],
)
def test_broken_prior_is_found(broken: Callable[[View, str], FloatArray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v_information, "_prior", broken)
    with pytest.raises(AssertionError):
        test_a_known_conditional_gives_its_log_ratio("owner")


def test_nats_in_place_of_bits_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmem.estimators.v_information.math.log", lambda value: 1.0)
    with pytest.raises(AssertionError):
        test_a_known_conditional_gives_its_log_ratio("owner")


def test_in_minus_out_is_memorisation_in_bits_and_has_no_prior() -> None:
    margin = np.random.default_rng(1).normal(size=(8, 6))
    view = labelled(margin)
    bits = np.log2(1 / (1 + np.exp(-margin)))
    is_in = view.audit.is_in
    expected = [bits[c, j].mean() - bits[~c, j].mean() for j, c in enumerate(is_in.T)]
    for prior in ("owner", "federation"):
        found = estimates(view, prior)
        np.testing.assert_allclose(present(found["gain"].per_example), expected)
        sides = present(found["in"].per_example) - present(found["out"].per_example)
        np.testing.assert_allclose(sides, present(found["gain"].per_example), atol=1e-12)
        assert (found["gain"].null, found["gain"].signed) == (0, False)


def test_texts_have_the_difference_alone() -> None:
    view = replace(labelled(np.random.default_rng(1).normal(size=(8, 6))), label_counts=None)
    assert list(estimates(view)) == ["gain"]


def test_shuffled_coins_give_no_bits() -> None:
    margin = np.random.default_rng(3).normal(size=(8, 6))
    gains = [estimates(labelled(margin, seed))["gain"] for seed in range(60)]
    assert abs(np.mean([e.value for e in gains])) < 3 * np.std([e.value for e in gains]) / np.sqrt(60)
    assert np.mean([e.p <= 0.1 for e in gains]) <= 0.2
