"""Tests of `fedmem/estimation/density_baselines.py`, and of the check of learning that reads them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Bank, Evidence
from fedmem.estimation.density_baselines import independent_pixels, one_distribution
from fedmem.estimation.learning import Learning, check_learning, learning_warnings


def examples(inputs: Any) -> Examples:
    count = len(inputs)
    return Examples(inputs=np.asarray(inputs), targets=np.zeros(count, np.int64), ids=np.arange(count))


def check(log_p: FloatArray, inputs: Any, *, binary: bool = True) -> Learning:
    """The record of models (R,) of one run each, with these log-densities (R, n) on a test set."""
    runs = len(log_p)
    block = Evidence(
        round=1, level="global", set="test", run=np.arange(runs, dtype=np.int32),
        client=np.full(runs, -1, dtype=np.int32), loss=-log_p, margin=log_p, correct=np.full(log_p.shape, np.nan),
    )  # fmt: skip
    none = examples(np.zeros((0, 2)))
    audit = AuditSet(
        examples=none, kind=np.zeros(0, str), role=np.zeros(0, str), owner=np.zeros(0, np.int32),
        copies=np.zeros(0, np.int32), is_in=np.zeros((runs, 0), dtype=bool),
    )  # fmt: skip
    bank = Bank(audit=audit, evidence=(block,), references=(), participation=(), seed=0)
    (learning,) = check_learning(bank, examples(inputs), none, binary=binary)
    return learning


def test_baselines_are_the_best_of_their_kind() -> None:
    rng = np.random.default_rng(0)
    bits = (rng.random((30, 2, 4)) < [0.1, 0.5, 0.8, 1.0]).astype(np.float32)
    flat = bits.reshape(30, -1)
    share = flat.mean()
    np.testing.assert_allclose(one_distribution(bits, True), stats.bernoulli.logpmf(flat, share).sum(1))
    assert all(
        one_distribution(bits, True).mean() >= stats.bernoulli.logpmf(flat, q).sum(1).mean()
        for q in (share - 0.05, share + 0.05)
    )
    expected = stats.bernoulli.logpmf(flat, flat.mean(0)).sum(1).mean()
    assert independent_pixels(bits, True) == pytest.approx(expected)
    assert independent_pixels(bits, True) > one_distribution(bits, True).mean()
    grey = rng.normal(0.4, 0.2, (30, 8))
    np.testing.assert_allclose(one_distribution(grey, False), stats.norm.logpdf(grey, grey.mean(), grey.std()).sum(1))
    assert math.isnan(independent_pixels(grey, False))
    assert np.isnan(one_distribution(np.ones((3, 2)), True)).all()


@pytest.mark.parametrize("binary", [True, False])
def test_models_at_the_baseline_are_flagged(binary: bool) -> None:
    """Frequencies from other rows are never better; each pixel's own frequency is."""
    rng = np.random.default_rng(1)
    learnt = []
    for _ in range(100):
        rows = (rng.random((40, 6)) < 0.4) * 1.0 if binary else rng.normal(size=(40, 6))
        others = (rng.random((4, 20, 6)) < 0.4) * 1.0 if binary else rng.normal(size=(4, 20, 6))
        law = (
            [stats.bernoulli.logpmf(rows, one.mean()).sum(1) for one in others]
            if binary
            else [stats.norm.logpdf(rows, one.mean(), one.std()).sum(1) for one in others]
        )
        learnt.append(check(np.array(law), rows, binary=binary).verdict == "learnt")
    assert sum(learnt) <= 5
    assert check(one_distribution(rows, binary) + rng.normal(1, 0.5, (4, 40)), rows, binary=binary).verdict == "learnt"


def test_signs_and_numbers_of_the_record() -> None:
    rng = np.random.default_rng(2)
    rows = (rng.random((20, 9)) < 0.3) * 1.0
    baseline = one_distribution(rows, True)
    better = check(baseline + rng.normal(0.5, 0.1, (3, 20)), rows)
    assert (better.verdict, better.densities, better.models, better.examples) == ("learnt", True, 3, 20)
    assert better.constant == pytest.approx(baseline.mean())
    assert better.low < better.accuracy < better.high < 0
    assert not [*learning_warnings([better])]
    worse = check(baseline - rng.normal(0.5, 0.1, (3, 20)), rows)
    assert worse.verdict == "not shown"
    (text,) = learning_warnings([worse], numbers=True)
    assert "Not shown to be better than one distribution for all pixels: the aggregate, over test examples" in text


def test_few_equal_or_diverged_values_show_nothing() -> None:
    rows = (np.random.default_rng(3).random((20, 9)) < 0.3) * 1.0
    lost = check(np.full((2, 20), np.nan), rows)
    assert lost.models == 0
    assert math.isnan(lost.accuracy)
    one_lost = np.concatenate([np.full((1, 20), np.nan), one_distribution(rows, True)[None] + 1])
    assert (check(one_lost, rows).models, check(one_lost, rows).verdict) == (1, "learnt")
    assert check(np.full((2, 1), -1.0), rows[:1]).verdict == "undefined"
    assert check(np.full((2, 20), -1.0), np.zeros((20, 9))).verdict == "undefined"
    assert not [*learning_warnings([replace(lost, verdict="undefined")])]
