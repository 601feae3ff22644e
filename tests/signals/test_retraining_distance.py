"""Tests of `fedmem/signals/retraining_distance.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import rel_entr

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.errors import ScenarioError
from fedmem.signals.retraining_distance import kullback_leibler
from tests.signals.signals_helpers import Bench


def bench(**more: Any) -> Bench:
    return Bench([{"kind": "retraining_distance", **more}], observe={"rounds": [0, 2, 4]}, rounds=4)


def distances(lab: Bench, before: Params, now: Params, start: int = 0) -> FloatArray:
    """(n,) of an aggregate, after the reader has seen the model at an earlier round."""
    lab.reader.read([lab.transition(before, round_number=start)])
    (block,) = lab.reader.read([lab.transition(now, round_number=4)])
    return np.asarray(block.values[0])


def test_is_the_divergence_of_now_from_before() -> None:
    lab = bench()
    before, now = lab.params(1, scale=0.3), lab.params(2, scale=0.3)
    p, q = lab.probabilities(before), lab.probabilities(now)
    expected = rel_entr(p, q).sum(axis=1)
    np.testing.assert_allclose(distances(lab, before, now), expected, rtol=1e-9)
    assert not np.allclose(expected, rel_entr(q, p).sum(axis=1), rtol=0.05), "the other direction is another number"


def test_a_model_that_has_not_moved_has_distance_zero() -> None:
    lab = bench()
    np.testing.assert_array_equal(distances(lab, lab.params(1), lab.params(1)), 0.0)


def test_since_chooses_the_model_before() -> None:
    lab = bench(since=2)
    lab.reader.read([lab.transition(lab.params(5), round_number=0)])
    np.testing.assert_array_equal(distances(lab, lab.params(1), lab.params(1), start=2), 0.0)


def test_without_a_model_before_there_is_no_distance() -> None:
    lab = bench()
    lab.reader.read([lab.transition(lab.params(1), round_number=0, run=1)])
    (start,) = lab.reader.read([lab.transition(lab.params(1), round_number=0)])
    assert np.isnan(start.values).all()
    other = bench()
    (block,) = other.reader.read([other.transition(other.params(1), round_number=4)])
    assert np.isnan(block.values).all()


def test_a_model_that_has_diverged_has_none() -> None:
    lab = bench()
    broken = lab.params(2)
    broken["output.bias"][0] = np.nan
    assert np.isnan(distances(lab, lab.params(1), broken)).all()
    assert np.isnan(distances(bench(), broken, lab.params(1))).all()


def test_classes_without_probability_count_nothing() -> None:
    none = -np.inf
    assert kullback_leibler(np.array([0.0, none]), np.log([0.5, 0.5])).item() == pytest.approx(np.log(2))
    assert kullback_leibler(np.array([0.0, none]), np.array([0.0, none])).item() == 0.0
    assert kullback_leibler(np.log([0.5, 0.5]), np.array([0.0, none])).item() == np.inf


def test_the_round_before_must_be_observed() -> None:
    with pytest.raises(ScenarioError, match="needs the models of round 1, which is not observed"):
        bench(since=1)
