"""What every sampler promises, for every file in the folder."""

from dataclasses import replace

import numpy as np
import pytest

from fedmem import catalogue
from fedmem.components import History, Sampler
from fedmem.federation import build
from fedmem.roster import Roster
from fedmem.scenario import Scenario
from tests.tiny import tiny

every_sampler = pytest.mark.parametrize("kind", catalogue.kinds("sampler"))


def make(kind: str) -> Sampler:
    component = catalogue.load("sampler", kind)()
    assert isinstance(component, Sampler)
    return component


def history(clients: int) -> History:
    """Nobody has trained yet: the first round has to work like any other."""
    return History.start([30] * clients, atypical=list(range(clients)))


def scenario(kind: str, **changes: object) -> Scenario:
    """Six rounds among five clients, who hold 0 to 4 atypical examples."""
    sampler = {"kind": kind}
    if "size" in catalogue.field_names("sampler", kind):
        sampler |= {"size": 2}
    return tiny(sampler=sampler, rounds=6, **changes)


def cohorts(of: Scenario, federation: object, run: int = 0) -> list[tuple[int, ...]]:
    roster = Roster(of, federation, run)
    return [roster.cohort(round) for round in range(1, 7)]


@every_sampler
@pytest.mark.parametrize("round", [1, 2, 40])
def test_cohorts_are_sorted_distinct_clients(kind: str, round: int) -> None:
    for seed in range(20):
        cohort = make(kind).cohort(round, history(20), np.random.default_rng(seed))
        assert cohort.dtype == np.int64
        assert np.all(np.diff(cohort) > 0)
        assert set(cohort.tolist()) <= set(range(20))


@every_sampler
def test_draws_from_its_generator_alone(kind: str) -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002 (the global generator must stay untouched)
    first, second = (make(kind).cohort(1, history(20), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(before, np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002


@every_sampler
def test_nobody_is_left_out_for_ever(kind: str) -> None:
    seen: set[int] = set()
    for seed in range(200):
        seen |= set(make(kind).cohort(seed + 1, history(20), np.random.default_rng(seed)).tolist())
    assert seen == set(range(20))


@every_sampler
def test_changes_nothing_in_the_history(kind: str) -> None:
    given = history(20)
    arrays = [getattr(given, name) for name in ("sizes", "atypical", "order", "last_round", "last_loss", "last_norm")]
    before = [array.copy() for array in arrays]
    make(kind).cohort(3, given, np.random.default_rng(0))
    for one, other in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(one, other)


@every_sampler
def test_no_coin_changes_a_cohort(kind: str) -> None:
    """The roster of a federation whose coins are all turned over is the same, and so is that of every run."""
    asked = scenario(kind)
    federation = build(asked)
    turned = replace(federation, audit=replace(federation.audit, is_in=~federation.audit.is_in))
    expected = cohorts(asked, federation)
    assert cohorts(asked, turned) == expected
    assert cohorts(asked, federation, run=3) == expected


@every_sampler
@pytest.mark.parametrize("roster", ["shared", "own"])
def test_the_roster_is_a_function_of_seed_and_round(kind: str, roster: str) -> None:
    """Whatever is asked first, and however often."""
    asked = scenario(kind, roster=roster)
    federation = build(asked)
    expected = cohorts(asked, federation, run=1)
    other = Roster(asked, federation, 1)
    assert [other.cohort(round) for round in (6, 2, 2, 1)] == [expected[round - 1] for round in (6, 2, 2, 1)]
