from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from fedmem.errors import ComponentError
from fedmem.privacy.accounting import Releases, Unit
from fedmem.privacy.epsilon_bounds import (
    AuditedUnit,
    Counts,
    alarm,
    epsilon_by_split,
    epsilon_of_counts,
    epsilon_over_thresholds,
    guess,
    one_run,
    permitted_guarantee,
)
from fedmem.privacy.guarantee import Guarantee
from tests.privacy.epsilon_bounds_helpers import RECORD

PURE: dict[str, Any] = {"audited": RECORD, "delta": 0.0}


@pytest.mark.parametrize(
    ("n", "ceiling"), [(20, 1.60), (50, 2.57), (100, 3.28), (250, 4.21), (500, 4.91), (1000, 5.60), (10_000, 7.90)]
)
def test_ceilings_of_counts(n: int, ceiling: float) -> None:
    found = epsilon_of_counts(Counts(n, n, 0, n), **PURE)
    assert found.epsilon == found.ceiling == pytest.approx(ceiling, abs=0.006)
    assert epsilon_of_counts(Counts(n // 2, n, n // 2, n), **PURE).ceiling == found.ceiling


@pytest.mark.parametrize(("r", "ceiling"), [(10, 1.05), (20, 1.82), (50, 2.78), (100, 3.49), (500, 5.11), (1000, 5.81)])
def test_ceilings_of_one_run(r: int, ceiling: float) -> None:
    found = one_run(r, r, r, **PURE)
    assert found.epsilon == found.ceiling == pytest.approx(ceiling, abs=0.006)
    # by hand: all right has probability (e^epsilon / (1 + e^epsilon))^r
    share = 0.05 ** (1 / r)
    assert found.epsilon == pytest.approx(math.log(share / (1 - share)), abs=1e-6)


def test_counts_are_not_interchangeable() -> None:
    """Ins and outs, hits and false alarms: each has its place, as it has not where they were swapped."""
    found = epsilon_of_counts(Counts(90, 100, 20, 400), **PURE)
    low, high = (0.8238, 0.0762)  # Clopper and Pearson of 90/100 from below, of 20/400 from above
    assert found.epsilon == pytest.approx(max(math.log(low / high), math.log((1 - high) / (1 - low))), abs=2e-3)
    assert epsilon_of_counts(Counts(20, 400, 90, 100), **PURE).epsilon == 0
    assert epsilon_of_counts(Counts(90, 400, 20, 100), **PURE).epsilon != pytest.approx(found.epsilon, abs=0.1)


def test_the_other_tail_counts_too() -> None:
    """A test that never misses a member, but calls half of the others members: only its misses tell."""
    found = epsilon_of_counts(Counts(1000, 1000, 500, 1000), **PURE)
    assert found.epsilon > 4
    assert found.epsilon > math.log(1 / 0.5)


def test_never_negative_and_never_more_than_trials_can_show() -> None:
    assert epsilon_of_counts(Counts(0, 50, 50, 50), **PURE).epsilon == 0
    assert epsilon_of_counts(Counts(0, 0, 0, 0), **PURE).epsilon == 0
    assert epsilon_of_counts(Counts(5, 5, 0, 0), **PURE).epsilon == 0
    assert epsilon_of_counts(Counts(1, 1, 0, 1), **PURE).epsilon == 0
    # epsilon above log n is found, not set to zero
    assert epsilon_of_counts(Counts(50, 50, 0, 50), **PURE).epsilon > 2.5
    assert epsilon_of_counts(Counts(10**6, 10**6, 0, 10**6), **PURE).epsilon < math.log(10**6)


def test_delta_is_taken_off() -> None:
    assert epsilon_of_counts(Counts(100, 100, 0, 100), audited=RECORD, delta=0.5).epsilon < math.log(0.5 / 0.036) + 0.01
    assert epsilon_of_counts(Counts(100, 100, 0, 100), audited=RECORD, delta=1.0).epsilon == 0


def test_more_thresholds_lower_the_bound() -> None:
    inside, outside = np.full(50, 2.0), np.full(50, -2.0)
    one = epsilon_over_thresholds(inside, outside, np.array([0.0]), **PURE)
    many = epsilon_over_thresholds(inside, outside, np.linspace(-1, 1, 10), **PURE)
    assert one == epsilon_of_counts(Counts(50, 50, 0, 50), **PURE)
    assert many.epsilon == epsilon_of_counts(Counts(50, 50, 0, 50), thresholds=10, **PURE).epsilon < one.epsilon
    assert "best of 10 thresholds" in many.method
    with pytest.raises(ComponentError, match="none was declared"):
        epsilon_over_thresholds(inside, outside, np.array([]), **PURE)


def test_scores_that_are_nan_do_not_count_and_ties_are_not_above() -> None:
    inside, outside = np.array([1.0, np.nan, 1.0]), np.array([1.0, np.nan])
    found = epsilon_over_thresholds(inside, outside, np.array([1.0]), **PURE)
    assert (found.trials, found.epsilon) == (3, 0)
    split = epsilon_by_split(inside, outside, np.random.default_rng(0), **PURE)
    assert split.epsilon == 0


def test_a_split_tests_what_the_other_half_chose() -> None:
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(4, 1, 400), rng.normal(0, 1, 400)
    found = epsilon_by_split(inside, outside, np.random.default_rng(1), **PURE)
    assert found.ceiling == epsilon_of_counts(Counts(200, 200, 0, 200), **PURE).ceiling
    assert 2 < found.epsilon <= found.ceiling
    assert found == epsilon_by_split(inside, outside, np.random.default_rng(1), **PURE)
    assert epsilon_by_split(-inside, -outside, np.random.default_rng(1), **PURE).epsilon == 0


def test_pooled_trials_are_an_estimate() -> None:
    pooled = epsilon_of_counts(Counts(50, 50, 0, 50), independent=False, **PURE)
    assert pooled.claim == "estimate"
    assert not alarm(pooled, Guarantee(epsilon=0.1, delta=0.0))
    assert alarm(epsilon_of_counts(Counts(50, 50, 0, 50), **PURE), Guarantee(epsilon=0.1, delta=0.0))


def test_one_run_bound_solves_the_published_formula() -> None:
    """r = 4, v = 3, m = 6, delta = .001: the formula, term by term."""
    found = one_run(95, 100, 200, audited=RECORD, delta=1e-6)
    chance = 1 / (1 + math.exp(-found.epsilon))
    terms = [sum(binom.pmf(95 - j, 100, chance) for j in range(1, i + 1)) / i for i in range(1, 96)]
    assert binom.sf(94, 100, chance) + 2 * 200 * 1e-6 * max(terms) == pytest.approx(0.05, abs=1e-6)
    assert found.epsilon < one_run(95, 100, 200, **PURE).epsilon


def test_one_run_finds_nothing_in_guesses() -> None:
    assert one_run(50, 100, 100, **PURE).epsilon == 0
    assert one_run(0, 100, 100, **PURE).epsilon == 0
    assert one_run(0, 0, 100, **PURE).epsilon == one_run(0, 0, 0, **PURE).epsilon == 0
    assert one_run(100, 100, 100, audited=RECORD, delta=0.05).epsilon == 0
    for right, guesses, canaries in [(3, 2, 5), (2, 6, 5), (-1, 2, 5)]:
        with pytest.raises(ComponentError, match="is impossible"):
            one_run(right, guesses, canaries, **PURE)


def test_guesses_are_the_tails() -> None:
    scores, is_in = np.array([5.0, 4.0, 3.0, 2.0, 1.0]), np.array([True, False, True, True, False])
    rng = np.random.default_rng(0)
    assert [guess(scores, is_in, count, rng) for count in range(6)] == [0, 1, 2, 2, 2, 3]
    assert guess(-scores, is_in, 2, rng) == 0
    # ties are no signal: over many draws half of the guesses are right
    tied = [guess(np.zeros(4), np.array([True, True, False, False]), 2, rng) for _ in range(2000)]
    assert np.mean(tied) == pytest.approx(1.0, abs=0.06)
    with pytest.raises(ComponentError, match="6 guesses on 5 canaries"):
        guess(scores, is_in, 6, rng)


def releases(**fields: Any) -> Releases:
    return Releases(
        **{"noise_multiplier": 1.0, "sampling": "everyone", "count": 1, "delta": 1e-5, "unit": "client", **fields}
    )


def test_permitted_epsilon_uses_the_neighbours_of_the_audit() -> None:
    """One Gaussian release at z = 1 is 4.38 or 10.0, by what the neighbour is."""
    to_clients, to_records = releases(), releases(unit="record")
    gone, other = (AuditedUnit(unit="record", adjacency=adjacency) for adjacency in ("add_remove", "replace"))
    assert permitted_guarantee(gone, to_records).epsilon == pytest.approx(4.38, abs=0.01)
    assert permitted_guarantee(other, to_records).epsilon == pytest.approx(10.0, abs=0.01)
    # a client without one record is another client, not none
    assert permitted_guarantee(gone, to_clients) == permitted_guarantee(other, to_clients)
    assert permitted_guarantee(gone, to_clients).epsilon == pytest.approx(10.0, abs=0.01)
    left_out = AuditedUnit(unit="client", adjacency="zero_out")
    assert permitted_guarantee(left_out, to_clients).epsilon == pytest.approx(4.38, abs=0.01)
    with pytest.raises(ComponentError, match=r"audit.unit: client, .* single records"):
        permitted_guarantee(left_out, to_records)
    fixed = releases(sampling="fixed_size", rate=0.5, adjacency="zero_out")
    with pytest.raises(ComponentError, match="not defined"):
        permitted_guarantee(AuditedUnit(unit="client", adjacency="add_remove"), fixed)


def test_copies_weaken_the_guarantee_of_records_only() -> None:
    thrice = AuditedUnit(unit="record", adjacency="add_remove", copies=3)
    single = permitted_guarantee(RECORD, releases(unit="record"))
    assert permitted_guarantee(thrice, releases(unit="record")) == single.of_group(3)
    assert permitted_guarantee(thrice, releases()) == permitted_guarantee(RECORD, releases())
    wrong: list[tuple[Unit, int]] = [("record", 0), ("client", 2)]
    for unit, copies in wrong:
        with pytest.raises(ComponentError, match=f"{copies} of a {unit}"):
            AuditedUnit(unit=unit, adjacency="add_remove", copies=copies)


def test_an_alarm_needs_the_same_delta() -> None:
    found = one_run(100, 100, 100, audited=RECORD, delta=1e-6)
    assert alarm(found, Guarantee(epsilon=1.0, delta=1e-6))
    assert not alarm(found, Guarantee(epsilon=10.0, delta=1e-6))
    with pytest.raises(ComponentError, match="audit at the same delta"):
        alarm(found, Guarantee(epsilon=1.0, delta=1e-5))
