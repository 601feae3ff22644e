"""Tests of `fedmem/samplers/availability.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedmem.federation.build import build
from fedmem.federation.roster import Roster, _CohortDraws
from fedmem.samplers.availability import Availability
from tests.narrowing import instance
from tests.samplers.guided_helpers import counts, known
from tests.samplers.samplers_helpers import agree
from tests.tiny import tiny


def chain(rounds: int, **options: Any) -> np.ndarray:
    """(rounds, clients) who is there, as the roster keeps it."""
    asked = tiny(sampler={"kind": "availability", "size": 3, **options}, clients=5)
    roster, seen = Roster(asked, build(asked), 0), []
    for round_number in range(1, rounds + 1):
        cohort = roster.cohort(round_number)
        seen.append(instance(roster._draws, _CohortDraws).history.available.copy())
        assert len(cohort) == min(3, int(seen[-1].sum()))
        assert seen[-1][list(cohort)].all()
    return np.array(seen)


@pytest.mark.parametrize(("arrive", "leave"), [(0.2, 0.1), (0.5, 0.5), (0.9, 0.3)])
def test_availability_is_a_chain_with_these_steps(arrive: float, leave: float) -> None:
    there = chain(3000, arrive=arrive, leave=leave)
    before, after = there[:-1].ravel(), there[1:].ravel()
    for state, truth in ((True, 1 - leave), (False, arrive)):
        moved = after[before == state]
        assert agree([int(moved.sum())], len(moved), [truth])
        assert not agree([int(moved.sum())], len(moved), [truth - 0.05])
    # five chains whose draws hang together for about 2 / (a + b) rounds
    assert there.mean() == pytest.approx(arrive / (arrive + leave), abs=0.04)


def test_availability_starts_as_it_goes_on() -> None:
    first = [
        Availability(arrive=0.2, leave=0.6).reachable_clients(1, known([5] * 2000), np.random.default_rng(0)).sum()
    ]
    assert agree([int(first[0])], 2000, [0.25])
    assert chain(5, arrive=1.0, leave=0.0).all()


@pytest.mark.parametrize(("arrive", "leave"), [(0.02, 0.08), (0.08, 0.02)])
def test_slow_chains_are_as_full_in_the_first_rounds_as_ever(arrive: float, leave: float) -> None:
    """Chains that began with everybody, nobody or one half would need some 20 rounds to get to their law."""
    sampler, history = Availability(arrive=arrive, leave=leave), known([5] * 4000)
    rng = np.random.default_rng(1)
    for round_number in range(1, 6):
        there = sampler.reachable_clients(round_number, history, rng)
        history.available[:] = there
        assert agree([int(there.sum())], 4000, [arrive / (arrive + leave)])


def test_availability_probabilities_count_available_clients() -> None:
    there = np.array([True, False, True, True, False])
    history = replace(known([5] * 5), available=there)
    for size, chance in ((1, 1 / 3), (2, 2 / 3), (3, 1.0), (4, 1.0)):
        sampler = Availability(size=size)
        stated = sampler.probabilities(2, history)
        assert stated.tolist() == pytest.approx(np.where(there, chance, 0.0).tolist())
        assert agree(counts(sampler, history), 4000, stated.tolist())
