"""Tests of `fedmem/estimation/attack_series.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import Signals
from fedmem.contracts.estimator import View
from fedmem.contracts.evidence import SignalEvidence
from fedmem.estimation.attack_series import others_until, series_until
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.views import views
from fedmem.estimators.membership import Membership
from tests.banks import coins
from tests.estimators.series_helpers import bank_of_margins

RUNS, M = 4, 3
OWNER = [0, 1, 0]
COHORTS = {1: (0, 1, 2), 2: (1, 2, 3), 3: (0, 2, 3)}


def margin_of(round_number: int, client: int) -> FloatArray:
    """A number that says where it is from: round, client, run and example."""
    run, example = np.arange(RUNS)[:, None], np.arange(M)
    return np.asarray(1.0 * (1000 * round_number + 100 * client + 10 * run + example))


def every_view() -> list[View]:
    whole = np.stack([margin_of(round_number, 9) for round_number in COHORTS])
    local = {r: {client: margin_of(r, client) for client in cohort} for r, cohort in COHORTS.items()}
    bank = bank_of_margins(whole, coins(RUNS, M, np.random.default_rng(0)), local=local, owner=OWNER)
    return list(views(bank, permute_coins(bank.audit, 3, np.random.default_rng(1))))


def view_at(round_number: int | None, place: str) -> View:
    return next(view for view in every_view() if (view.round, view.place) == (round_number, place))


def test_the_series_of_owners_ends_at_the_round_of_the_view() -> None:
    rows = np.array([1, 2])
    first = series_until(view_at(1, "owner"), rows, ("margin",))["margin"]
    np.testing.assert_array_equal(first, [np.stack([margin_of(1, 1)[:, 1], margin_of(1, 0)[:, 2]], axis=1)])
    last = series_until(view_at(None, "owner"), rows, ("margin",))["margin"]
    assert last.shape == (3, RUNS, 2)
    np.testing.assert_array_equal(last[:, 0, 0], [1101, 2101, np.nan])  # client 1 took part in rounds 1 and 2
    np.testing.assert_array_equal(last[:, 0, 1], [1002, np.nan, 3002])


def test_the_summary_shows_nothing_after_the_round_of_an_example() -> None:
    rows = np.arange(M)
    aggregate = series_until(view_at(None, ""), rows, ("margin",))["margin"]
    np.testing.assert_array_equal(aggregate[:, 2, 1], [1921, 2921, np.nan])  # its owner is away in round 3
    np.testing.assert_array_equal(aggregate[:, 2, 0], [1920, 2920, 3920])
    others = others_until(view_at(None, "owner"), rows, ("margin",))["margin"]
    assert np.isnan(others[2][:, :, 1]).all()
    assert not np.isnan(others[2][1:, :, 0]).any()


def test_others_are_those_of_the_round_without_holders() -> None:
    rows = np.array([0, 1])
    others = others_until(view_at(2, "owner"), rows, ("margin", "loss", "unknown"))
    assert set(others) == {"margin", "loss"}
    first, second = others["margin"]
    np.testing.assert_array_equal(first[:, 3, 0], [np.nan, 1130, 1230])  # clients 0, 1, 2; client 0 holds it
    np.testing.assert_array_equal(first[:, 3, 1], [1031, np.nan, 1231])
    np.testing.assert_array_equal(second[:, 0, 1], [np.nan, 2201, 2301])
    np.testing.assert_array_equal(others["margin"][:1][0], first)
    np.testing.assert_allclose(others["loss"][0][2], np.logaddexp(0, -first[2]))


def test_signals_are_found_by_the_name_of_their_measure() -> None:
    whole = np.stack([margin_of(round_number, 9) for round_number in COHORTS])
    local = {r: {client: margin_of(r, client) for client in cohort} for r, cohort in COHORTS.items()}
    bank = bank_of_margins(whole, coins(RUNS, M, np.random.default_rng(0)), local=local, owner=OWNER)
    blocks = tuple(
        SignalEvidence(
            round=2,
            level="local",
            name="cosine",
            run=np.arange(RUNS, dtype=np.int32),
            client=np.full(RUNS, client, np.int32),
            values=-margin_of(2, client),
        )
        for client in (1, 2, 3)
    )
    bank = replace(bank, signals=blocks)
    every = views(bank, permute_coins(bank.audit, 3, np.random.default_rng(1)))
    view = next(view for view in every if (view.round, view.place) == (2, "owner"))
    rows = np.array([1])
    own = series_until(view, rows, ("cosine",))["cosine"]
    np.testing.assert_array_equal(own[:, 1, 0], [np.nan, -2111])
    first, second = others_until(view, rows, ("cosine",))["cosine"]
    assert np.isnan(first).all()
    np.testing.assert_array_equal(second[:, 1, 0], [np.nan, -2211, -2311])


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Remembers what it was given."""

    knows: ClassVar[str] = "series"
    reads_coins: ClassVar[bool] = False
    given: list[Signals]
    reads_series: tuple[str, ...] = ()
    reads_others: tuple[str, ...] = ()

    def scores(self, signals: Signals) -> FloatArray:
        self.given.append(signals)
        return signals.margin


@pytest.mark.parametrize(
    ("declared", "places"),
    [
        ({}, {"", "owner", "others"}),
        ({"reads_series": ("margin",)}, {"", "owner"}),
        ({"reads_others": ("margin",)}, {"owner"}),
    ],
)
def test_attacks_get_what_they_declare_where_it_is(declared: dict[str, Sequence[str]], places: set[str]) -> None:
    for view in every_view():
        attack = Reader(given=[], **{name: tuple(names) for name, names in declared.items()})
        scored = Membership(attack=attack).membership_scores(view)
        assert bool(scored) == (view.place in places)
        for signals in attack.given:
            assert set(signals.series) == set(attack.reads_series)
            assert set(signals.others) == set(attack.reads_others)
