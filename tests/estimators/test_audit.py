"""Tests of `fedmem/estimators/audit.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fedmem.estimators.audit import Audit
from fedmem.privacy.epsilon_bounds import AuditedUnit, Counts, epsilon_of_counts, one_run
from tests.banks import coins, make_view
from tests.labelling import labels

RECORD = AuditedUnit(unit="record", adjacency="replace")


def readings(audit: Audit, margin: Any, is_in: Any, **changes: Any) -> dict[tuple[str, str], Any]:
    view = make_view(margin, is_in, kind=["canary"] * is_in.shape[1])
    found = [(reading.metric, reading.subject, reading) for _, reading in audit.tests(replace(view, **changes))]
    return {(metric, subject): reading for metric, subject, reading in found}


def test_one_run_counts_right_guesses_at_both_ends() -> None:
    rng = np.random.default_rng(0)
    is_in = coins(2, 40, rng)
    margin = 3.0 * is_in + rng.normal(size=is_in.shape)
    order = np.argsort(-margin[1])
    right = int(is_in[1, order[:10]].sum() + (~is_in[1, order[-10:]]).sum())
    found = readings(Audit(run=1), margin, is_in)
    expected = one_run(right, 20, 40, audited=RECORD, delta=1e-5)
    hat, ceiling = found["epsilon_hat", "canary"], found["epsilon_hat.ceiling", "canary"]
    assert (hat.value, hat.n, ceiling.value) == (expected.epsilon, 20, expected.ceiling)
    assert 0.5 < hat.value <= ceiling.value
    assert hat.labels == labels(
        "claim=bound method=one_run guesses=0.5 unit=record adjacency=replace copies=1 delta=1e-05"
    )
    # who scores the wrong way round proves nothing, and neither does a score that says nothing
    assert readings(Audit(run=1), -margin, is_in)["epsilon_hat", "canary"].value == 0
    assert readings(Audit(run=1), np.zeros_like(margin), is_in)["epsilon_hat", "canary"].value == 0


def test_diverged_and_missing_scores_are_skipped_by_the_audit() -> None:
    is_in = coins(2, 40, np.random.default_rng(1))
    margin = np.where(is_in, 1.0, -1.0)
    margin[:, :10] = np.nan
    found = readings(Audit(guesses=0.4), margin, is_in)
    assert found["epsilon_hat", "canary"].n == 12
    margin = 10.0 * is_in + np.random.default_rng(2).normal(size=is_in.shape)
    margin[0, :4] = np.nan
    found = readings(Audit(guesses=0.4), margin, is_in)
    assert found["epsilon_hat", "canary"].value == one_run(16, 16, 40, audited=RECORD, delta=1e-5).epsilon
    margin[0] = np.nan
    assert readings(Audit(), margin, is_in)["epsilon_hat", "canary"].value == 0
    # too few for a single guess, another kind, another round, another place
    assert not readings(Audit(guesses=0.01), np.where(is_in, 1.0, -1.0), is_in)
    assert not readings(Audit(example_kind="other"), margin, is_in)
    assert not readings(Audit(), margin, is_in, round=None)
    assert not readings(Audit(), margin, is_in, level="local", place="owner")
    assert readings(Audit(level="local"), margin, is_in, level="local", place="owner")


def test_over_runs_each_example_has_trials_of_its_own() -> None:
    rng = np.random.default_rng(2)
    is_in = coins(200, 3, rng)
    # the first example is told without fail, the others not at all
    margin = rng.normal(size=is_in.shape)
    margin[:, 0] = np.where(is_in[:, 0], 5.0, -5.0)
    found = readings(Audit(method="over_runs", thresholds=(0.0, 1.0)), margin, is_in)
    single = epsilon_of_counts(Counts(100, 100, 0, 100), audited=RECORD, delta=1e-5, thresholds=2)
    assert found["epsilon_hat", "0"].value == single.epsilon
    assert found["epsilon_hat", "1"].value < 0.5
    # the best of three needs three times the confidence
    best = epsilon_of_counts(
        Counts(100, 100, 0, 100), audited=RECORD, delta=1e-5, thresholds=2, confidence=1 - 0.05 / 3
    )
    assert found["epsilon_hat", "canary"].value == best.epsilon < single.epsilon
    split = readings(Audit(method="over_runs"), margin, is_in)
    half = epsilon_of_counts(Counts(50, 50, 0, 50), audited=RECORD, delta=1e-5)
    assert split["epsilon_hat", "0"].value == half.epsilon
    assert split["epsilon_hat", "0"].labels.has(labels("claim=bound method=over_runs unit=record"))
    gdp = split["epsilon_gdp", "canary"]
    assert gdp.labels.has(labels("claim=estimate method=over_runs"))
    assert gdp.low <= gdp.value <= gdp.high
    wrong = readings(Audit(method="over_runs"), -margin, is_in)
    # by the other tail: a test that is always wrong tells as much, turned round
    assert wrong["epsilon_hat", "1"].value < 0.5


def test_over_runs_without_trials_on_both_sides_there_is_nothing() -> None:
    is_in = np.array([[True, False], [False, True]])
    margin = np.where(is_in, 1.0, -1.0)
    margin[0] = np.nan
    assert not readings(Audit(method="over_runs"), margin, is_in)
    few = readings(Audit(method="over_runs"), np.where(is_in, 1.0, -1.0), is_in)
    assert few["epsilon_hat", "canary"].value == few["epsilon_hat.ceiling", "canary"].value == 0
