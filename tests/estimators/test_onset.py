"""Tests of `fedmem/estimators/onset.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import View
from fedmem.contracts.evidence import Bank
from fedmem.contracts.measurement import Reading
from fedmem.estimation.estimates import estimate
from fedmem.estimators import onset
from fedmem.estimators.onset import Onset
from tests.banks import coins
from tests.estimators.series_helpers import bank_of_margins, summaries

RUNS, M = 16, 12


def log_odds(p: FloatArray) -> FloatArray:
    return np.log(p) - np.log1p(-p)


def rise(
    curve: Sequence[float], is_in: BoolArray, rng: np.random.Generator, noise: float = 0.03, spread: float = 0.05
) -> FloatArray:
    """Margins (S, R, m) whose probability is .1 and, over in runs, higher by the curve; with noise of all kinds."""
    shape = (len(curve), *is_in.shape)
    height = 1 + spread * rng.normal(size=is_in.shape[1]) / max(max(curve), 0.1)
    p = 0.2 + np.array(curve)[:, None, None] * is_in * height + noise * rng.normal(size=shape)
    p += noise * rng.normal(size=is_in.shape)  # of a run, in all rounds
    return log_odds(np.clip(p, 1e-6, 1 - 1e-6))


def bank_of(curve: Sequence[float], rounds: Sequence[int] = (), seed: int = 0, **options: float) -> Bank:
    rng = np.random.default_rng(seed)
    is_in = coins(RUNS, M, rng)
    return bank_of_margins(rise(curve, is_in, rng, **options), is_in, rounds=rounds)


def found(view: View, metric: str = "onset", clock: str = "rounds") -> dict[str, Reading]:
    """Readings of kinds and examples by subject, without differences."""
    return {
        reading.subject: reading
        for _, reading in Onset().tests(view)
        if reading.metric == metric and reading.labels.get("clock") == clock
    }


def of_kind(bank: Bank, clock: str = "rounds", place: str = "") -> tuple[float, float, float]:
    reading = found(summaries(bank, 200)[place], clock=clock)["typical"]
    return reading.value, reading.low, reading.high


def test_step_begins_in_its_round() -> None:
    assert of_kind(bank_of([0, 0, 0, 0.5, 0.5, 0.5])) == (4, 4, 4)
    assert of_kind(bank_of([0, 0, 0.5, 0.5], rounds=[5, 10, 15, 20])) == (15, 11, 15), "nothing is known in between"


def test_ramp_begins_at_half_of_its_end() -> None:
    value, low, high = of_kind(bank_of([0.1 * step for step in range(1, 6)], noise=0.01))
    assert value == 3
    assert low <= 3 <= high <= 4


def test_falling_curve_begins_at_the_first_round() -> None:
    assert of_kind(bank_of([0.6, 0.5, 0.4, 0.3])) == (1, 1, 1)


def test_one_observed_round_begins_in_or_before_it() -> None:
    assert of_kind(bank_of([0.5], rounds=[7])) == (7, 1, 7)


def test_no_memory_never_begins() -> None:
    values = [of_kind(bank_of([0.0] * 5, seed=seed))[0] for seed in range(20)]
    assert sum(value == math.inf for value in values) >= 18


@pytest.mark.slow
def test_no_memory_never_begins_in_95_of_100_banks() -> None:
    values = [of_kind(bank_of([0.0] * 4, seed=seed))[0] for seed in range(300)]
    assert sum(value == math.inf for value in values) >= 285


def test_lower_probability_over_in_runs_never_begins() -> None:
    assert of_kind(bank_of([-0.1] * 4))[0] == math.inf


def check_coverage(count: int, least: int) -> None:
    """Half of the final value is reached between the fourth and the fifth round."""
    curve = [0.0, 0.03, 0.06, 0.09, 0.12, 0.15, 0.2]
    spans = [of_kind(bank_of(curve, seed=seed, noise=0.1)) for seed in range(count)]
    seen = [(low, high) for value, low, high in spans if math.isfinite(value)]
    assert sum(low <= 5 <= high for low, high in seen) >= least
    assert len({low for low, _ in seen} | {high for _, high in seen}) > 2, "the noise is large enough to matter"


def test_interval_contains_the_onset_in_nineteen_of_twenty() -> None:
    check_coverage(30, 27)


@pytest.mark.slow
def test_interval_contains_the_onset_in_many_more_banks() -> None:
    check_coverage(300, 282)


@pytest.mark.slow
def test_interval_holds_where_neighbours_are_nearly_at_half() -> None:
    curve = [0.0, 0.09, 0.098, 0.102, 0.12, 0.2]
    spans = [of_kind(bank_of(curve, seed=seed, noise=0.05)) for seed in range(300)]
    assert np.mean([low <= 4 <= high for _, low, high in spans]) >= 0.93


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("first_at_half", lambda curve: len(curve) - 1),  # never is the last point
        ("crossing_span", lambda distances: (len(distances), len(distances))),
        ("_after_previous", lambda curve, position: float(curve.points[position])),
    ],
)
def test_broken_rule_is_found(name: str, broken: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onset, name, broken)
    with pytest.raises(AssertionError):
        test_step_begins_in_its_round()


def at_owner(*, absent: bool = True) -> Bank:
    """Owner 0 takes part in rounds 2, 3 and 5 and has memory from its second time on, the aggregate from the third."""
    rng = np.random.default_rng(3)
    is_in = coins(RUNS, M, rng)
    whole = rise([0.0, 0.0, 0.0, 0.0, 0.6], is_in, rng)
    own = rise([0.0, 0.6, 0.6], is_in, rng)
    local = {2: {0: own[0]}, 3: {0: own[1]}, 5: {0: own[2]}, 1: {1: own[0]}, 4: {1: own[0]}}
    return bank_of_margins(whole, is_in, local=local if absent else {})


def test_participations_skip_rounds_without_the_owner() -> None:
    views = summaries(at_owner(), 200)
    assert (found(views["owner"], clock="participations")["typical"].value) == 2
    assert (found(views[""], clock="participations")["typical"].value) == 3
    assert found(views[""])["typical"].value == 5, "by rounds"
    assert not Onset().tests(views["others"])
    assert not found(views["owner"]), "rounds at which it was away are no zeros"


def test_levels_and_kinds_are_compared() -> None:
    rows = [row for row in estimate(at_owner(), [Onset()], 200) if row.reading.metric == "onset.difference"]
    assert [(row.level, row.reading.value, str(row.reading.labels)) for row in rows] == [
        ("global", -1, "clock=participations, contrast=levels, minus=global")
    ]
    rng = np.random.default_rng(4)
    is_in = coins(RUNS, 2 * M, rng)
    early, late = rise([0.5, 0.5, 0.5], is_in[:, :M], rng), rise([0.0, 0.0, 0.5], is_in[:, M:], rng)
    bank = bank_of_margins(np.concatenate([early, late], axis=2), is_in, kind=["early"] * M + ["late"] * M)
    (row,) = (row.reading for row in estimate(bank, [Onset()], 200) if row.reading.metric == "onset.difference")
    assert (row.subject, row.labels.get("minus"), row.value, row.low, row.high) == ("early", "late", -2, -2, -2)


def test_participations_keep_the_same_examples() -> None:
    bank = at_owner()
    owner = np.array([0] * (M // 2) + [1] * (M // 2), dtype=np.int32)
    reading = found(
        summaries(replace(bank, audit=replace(bank.audit, owner=owner)), 200)["owner"], clock="participations"
    )
    assert reading["typical"].n == M // 2, "those with three participations; the others have two"


def test_participations_before_the_window_do_not_count() -> None:
    bank = at_owner()
    late = replace(bank.audit, start=np.full(M, 3, dtype=np.int32))
    views = summaries(replace(bank, audit=late), 200)
    assert found(views["owner"], clock="participations")["typical"].value == 1


def test_learning_begins_without_memorisation() -> None:
    rng = np.random.default_rng(5)
    is_in = coins(RUNS, M, rng)
    learnt = rise([0.0, 0.0, 0.6, 0.6, 0.6], np.ones_like(is_in), rng)
    bank = bank_of_margins(learnt, is_in, rounds=range(5))
    view = summaries(bank, 200)[""]
    assert found(view)["typical"].value == math.inf
    assert found(view, "learning_onset")["typical"].value == 2
    assert not found(summaries(bank_of_margins(learnt, is_in), 50)[""], "learning_onset"), "no initial model"


def test_single_examples_with_memory_have_an_onset() -> None:
    bank = bank_of([0, 0, 0, 0.5, 0.5])
    view = summaries(bank, 50)[""]
    assert found(view, "onset_share")["typical"].value == 1
    rows = {subject: reading for subject, reading in found(view).items() if subject.isdigit()}
    assert len(rows) == M
    assert all((reading.value, reading.low, reading.high, reading.n) == (4, 4, 4, RUNS) for reading in rows.values())
    null = summaries(bank_of([0.0] * 5), 50)[""]
    assert found(null, "onset_share")["typical"].value <= 2 / M
    assert len(found(null)) <= 3


def test_too_few_deals_leave_it_undefined() -> None:
    reading = found(summaries(bank_of([0.5, 0.5]), 10)[""])["typical"]
    assert math.isnan(reading.value), "no p of eleven is below one in twenty"
