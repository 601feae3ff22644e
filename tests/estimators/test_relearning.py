"""Tests of `fedmem/estimators/relearning.py`: hand-made curves of relearning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import View
from fedmem.contracts.evidence import Bank, Evidence
from fedmem.contracts.measurement import Reading
from fedmem.estimators import relearning
from fedmem.estimators.relearning import Relearning
from tests.banks import coins
from tests.estimators.series_helpers import bank_of_margins, summaries

RUNS, M = 16, 12


def log_odds(p: FloatArray) -> FloatArray:
    return np.log(p) - np.log1p(-p)


def at_round_0(margin: FloatArray, name: str) -> Evidence:
    runs = len(margin)
    return Evidence(
        round=0,
        level="global",
        set=name,
        run=np.arange(runs, dtype=np.int32),
        client=np.full(runs, -1, np.int32),
        loss=np.logaddexp(0, -margin),
        margin=margin,
        correct=margin > 0,
    )


def bank_of(
    inside: Sequence[float],
    outside: Sequence[float],
    *,
    rounds: Sequence[int] = (),
    before: float = 0.6,
    noise: float = 0.002,
    together: bool = False,
    seed: int = 0,
) -> Bank:
    """Probabilities of both sides over rounds 0, 1, …; before forgetting .1, and higher by `before` in in runs."""
    rng = np.random.default_rng(seed)
    is_in = coins(RUNS, M, rng)
    if together:
        is_in = np.repeat(is_in[:, :1], M, axis=1)

    def noisy(p: FloatArray) -> FloatArray:
        return log_odds(np.clip(p + noise * rng.normal(size=p.shape), 1e-6, 1 - 1e-6))

    curves = [noisy(np.where(is_in, a, b)) for a, b in zip(inside, outside, strict=True)]
    bank = bank_of_margins(np.stack(curves[1:]), is_in, rounds=rounds, kind=["forget"] * M)
    start = at_round_0(curves[0], "audit")
    trained = at_round_0(noisy(np.asarray(0.1 + before * is_in, dtype=np.float64)), "audit_trained")
    audit = replace(bank.audit, relearnt=np.ones(M, dtype=bool), coin_group=np.zeros(M, np.int64) if together else None)
    return replace(bank, audit=audit, evidence=(trained, start, *bank.evidence))


def view_of(bank: Bank) -> View:
    return summaries(bank, 200)[""]


def readings(bank: Bank) -> dict[str, Reading]:
    return {
        f"{reading.metric} {reading.labels.get('coin') or ''}".strip(): reading
        for _, reading in Relearning().tests(view_of(bank))
    }


def span(reading: Reading) -> tuple[float, float, float]:
    return reading.value, reading.low, reading.high


SLOW = [0.1, 0.1, 0.2, 0.3, 0.5, 0.7]
FAST = [0.1, 0.2, 0.5, 0.6, 0.7, 0.7]


def test_half_of_the_memory_before_returns_in_its_round() -> None:
    """The level is .1 + .6 / 2 = .4."""
    found = readings(bank_of(FAST, SLOW))
    assert span(found["relearning_time in"]) == (2, 2, 2)
    assert span(found["relearning_time out"]) == (4, 4, 4)
    assert span(found["relearning_lead"]) == (2, 2, 2)


def test_nothing_is_known_between_observed_rounds() -> None:
    found = readings(bank_of(FAST, SLOW, rounds=[3, 6, 9, 12, 15]))
    assert span(found["relearning_time in"]) == (6, 4, 6)
    assert span(found["relearning_lead"]) == (6, 4, 8)


def test_equal_curves_have_no_lead_and_no_gain() -> None:
    bank = bank_of(SLOW, SLOW)
    found = readings(bank)
    assert found["relearning_lead"].value == 0
    assert found["relearning_lead"].low <= 0 <= found["relearning_lead"].high
    (estimate,) = Relearning().estimate(view_of(bank))
    assert estimate.value == pytest.approx(0, abs=0.002)


def test_gain_is_the_area_between_the_curves() -> None:
    bank = bank_of([0.1, 0.5, 0.5], [0.1, 0.1, 0.5], rounds=[1, 4], noise=1e-9)
    (estimate,) = Relearning().estimate(view_of(bank))
    # .4 high at round 1: 1/2 · .4 · 1 + 1/2 · .4 · 3, over 4 rounds
    assert estimate.value == pytest.approx(0.8 / 4, abs=1e-6)
    assert estimate.p < 0.05
    assert estimate.n == M


def test_slower_than_others_is_below_zero() -> None:
    bank = bank_of(SLOW, FAST)
    assert readings(bank)["relearning_lead"].value == -2
    (estimate,) = Relearning().estimate(view_of(bank))
    assert estimate.value < -0.1


def test_what_never_returns_is_not_at_the_last_round() -> None:
    found = readings(bank_of(FAST, [0.1, 0.1, 0.1, 0.2, 0.2, 0.2]))
    assert span(found["relearning_time out"]) == (math.inf, 6, math.inf)
    lead = found["relearning_lead"]
    assert (lead.value, lead.low, lead.high) == (math.inf, 4, math.inf)


def test_what_was_never_forgotten_is_there_at_once() -> None:
    assert span(readings(bank_of([0.6, 0.6, 0.7], [0.1, 0.2, 0.6]))["relearning_time in"]) == (0, 0, 0)


def test_without_memory_before_nothing_can_return() -> None:
    found = readings(bank_of(FAST, SLOW, before=0.0))
    assert all(np.isnan(span(reading)).all() for reading in found.values())


@pytest.mark.parametrize("runs", [slice(0, 1), slice(0, RUNS)])
def test_runs_that_diverge_are_left_out(runs: slice) -> None:
    bank = bank_of(FAST, SLOW)
    broken = [
        replace(one, margin=np.where(np.isin(one.run, np.arange(RUNS)[runs])[:, None], np.nan, one.margin))
        if one.round == 3
        else one
        for one in bank.evidence
    ]
    found = readings(replace(bank, evidence=tuple(broken)))
    assert found["relearning_lead"].value == 2


def test_only_kinds_that_are_learnt_again_have_rows() -> None:
    bank = bank_of(FAST, SLOW)
    other = replace(bank, audit=replace(bank.audit, relearnt=np.arange(M) < 4))
    assert {estimate.n for estimate in Relearning().estimate(view_of(other))} == {4}
    none = replace(bank, audit=replace(bank.audit, relearnt=None))
    assert not Relearning().tests(view_of(none))
    without = replace(bank, evidence=bank.evidence[1:])
    assert not Relearning().tests(view_of(without))


def test_one_draw_has_an_interval_over_runs() -> None:
    together, each = (readings(bank_of(FAST, SLOW, noise=0.08, together=flag)) for flag in (True, False))
    widths = [found["relearning_time in"].high - found["relearning_time in"].low for found in (together, each)]
    assert widths[0] >= widths[1]


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("rising", lambda gaps: np.full(len(gaps), 1.0)),
        ("crossing_span", lambda distances: (len(distances), len(distances))),
        ("_ROUNDING", -0.2),
    ],
)
def test_broken_rule_is_found(name: str, broken: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relearning, name, broken)
    with pytest.raises(AssertionError):
        test_half_of_the_memory_before_returns_in_its_round()


def test_a_broken_sign_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    difference = relearning._Curve.gain

    def turned(curve: relearning._Curve, values: FloatArray) -> float:
        return -difference(curve, values)

    monkeypatch.setattr(relearning._Curve, "gain", turned)
    with pytest.raises(AssertionError):
        test_half_of_the_memory_before_returns_in_its_round()


@pytest.mark.slow
def test_equal_laws_have_no_lead_in_95_of_100_banks() -> None:
    is_zero: list[bool] = []
    for seed in range(100):
        lead = readings(bank_of(SLOW, SLOW, noise=0.25, seed=seed))["relearning_lead"]
        is_zero.append(math.isnan(lead.value) or lead.low <= 0 <= lead.high)
    assert sum(is_zero) >= 95
