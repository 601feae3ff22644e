"""Tests of `fedmem/estimation/series.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.estimator import View
from fedmem.contracts.evidence import Bank, Evidence
from fedmem.contracts.series import Series
from fedmem.estimation.estimates import hide_examples
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.series import series_of
from fedmem.estimation.views import views
from tests.banks import make_bank


def all_views(bank: Bank) -> dict[tuple[int | None, str, str], View]:
    sample = permute_coins(bank.audit, 5, np.random.default_rng(0))
    return {(v.round, v.level, v.place): v for v in views(bank, sample)}


def series(view: View) -> Series:
    assert view.series is not None
    return view.series


def only(part: Evidence, rows: Any) -> Evidence:
    names = ("run", "client", "loss", "margin", "correct")
    return replace(part, **{name: getattr(part, name)[rows] for name in names})


@pytest.mark.parametrize("place", [("global", ""), ("local", "owner")])
def test_series_is_the_views_of_all_rounds(place: tuple[str, str]) -> None:
    bank = make_bank(runs=4, cohort=2, rounds=(0, 1, 2, 3, 4))
    shown = all_views(bank)
    found = series(shown[None, *place])
    assert (found.rounds.tolist(), found.size, found.step) == ([1, 2, 3, 4], 1, 1)
    for name in ("loss", "margin", "correct"):
        expected = np.stack([getattr(shown[r, *place], name)[:, 0] for r in (1, 2, 3, 4)])
        np.testing.assert_array_equal(getattr(found, name)(), expected)
    assert np.isnan(found.margin()).any() == (place[0] == "local")


def test_each_other_client_has_its_own_sequence() -> None:
    bank = make_bank(runs=4, cohort=2, rounds=(0, 1, 2, 3))
    found = series(all_views(bank)[None, "local", "others"])
    blocks = {e.round: e for e in bank.evidence if (e.level, e.set) == ("local", "audit")}
    clients = sorted({c for e in blocks.values() for c in e.client.tolist()})
    assert found.client[:, 0].tolist() == clients
    for q, client in enumerate(clients):
        expected = np.full((3, 4, len(bank.audit)), np.nan)
        for position, e in enumerate(blocks[r] for r in (1, 2, 3)):
            for t in np.flatnonzero(e.client == client):
                expected[position, e.run[t]] = np.where(bank.audit.owner == client, np.nan, e.margin[t])
        np.testing.assert_array_equal(found.margin(q), expected)


@pytest.mark.parametrize("personal", [False, True])
def test_received_is_the_aggregate_of_the_round_before(personal: bool) -> None:
    bank = replace(make_bank(runs=4, cohort=3, rounds=(0, 1, 2, 4, 5)), references=())
    if personal:  # an aggregate for each owner, completed by its layers: here, with other answers in each

        def completed(e: Evidence) -> Evidence:
            if (e.level, e.set) != ("global", "audit"):
                return e
            rows = np.repeat(np.arange(len(e.run)), 6)
            client = np.tile(np.arange(6, dtype=np.int32), len(e.run))
            return replace(only(e, rows), client=client, correct=e.correct[rows] ^ (client[:, None] % 2 == 1))

        bank = replace(bank, evidence=tuple(map(completed, bank.evidence)))
    shown = all_views(bank)
    found = series(shown[None, "local", "owner"])
    assert found.participated is not None
    for position, round_number in enumerate((1, 2, 4, 5)):
        took_part = np.broadcast_to(found.participated[position], (4, len(bank.audit)))
        expected = np.full(took_part.shape, np.nan)
        if round_number in (2, 5):  # not the initial model, and not a round that was not observed
            expected = np.where(took_part, shown[round_number - 1, "global", ""].correct[:, 0], np.nan)
        np.testing.assert_array_equal(found.correct_before()[position], expected)
    np.testing.assert_array_equal(found.participated, ~np.isnan(found.margin()).all(1))


def test_no_sequence_where_a_client_is_missing_in_one_run() -> None:
    bank = make_bank(runs=4, rounds=(0, 1, 2))
    first = next(e for e in bank.evidence if (e.level, e.round, e.set) == ("local", 1, "audit"))
    client = int(first.client[0])
    gone = tuple(
        only(e, ~((e.client == client) & (e.run == 2))) if (e.level, e.round) == ("local", 1) else e
        for e in bank.evidence
    )
    found = series(all_views(replace(bank, evidence=gone))[None, "local", "owner"])
    mine = bank.audit.owner == client
    assert found.participated is not None
    assert not found.participated[0, mine].any()
    assert np.isnan(found.margin()[0][:, mine]).all()


def test_left_out_owner_hides_its_examples_in_that_run() -> None:
    bank = make_bank(runs=4, clients=3, cohort=3, rounds=(0, 1))
    client_in = np.ones((4, 3), dtype=bool)
    client_in[1, 2] = False
    local = tuple(only(e, ~((e.client == 2) & (e.run == 1))) for e in bank.evidence)
    shown = all_views(replace(bank, evidence=local, audit=replace(bank.audit, client_in=client_in)))
    for place in (("global", ""), ("local", "owner")):
        expected = np.broadcast_to((np.arange(4) == 1)[:, None] & (bank.audit.owner == 2), (4, len(bank.audit)))
        np.testing.assert_array_equal(np.isnan(series(shown[None, *place]).margin()[0]), expected)


def test_clocks_of_a_roster_of_each_run_are_not_comparable() -> None:
    shown = all_views(make_bank(roster="per_run"))
    assert {place for _, _, place in shown} == {""}
    assert series(shown[None, "global", ""]).participated is None


def test_a_bank_of_the_initial_model_has_no_series() -> None:
    assert series_of(make_bank(rounds=(0,))) == {}


def test_examples_that_a_view_hides_are_hidden_in_its_series() -> None:
    view = all_views(make_bank(runs=4, rounds=(0, 1, 2)))[None, "global", ""]
    hidden = np.arange(len(view.audit)) < 2
    shown = hide_examples(view, hidden)
    np.testing.assert_array_equal(np.isnan(series(shown).loss()).all((0, 1)), hidden)
