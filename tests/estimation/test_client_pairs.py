"""Tests of `fedmem/estimation/client_pairs.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.estimation import client_pairs
from fedmem.estimation.client_pairs import client_area, deal_labels, distance_of_deals
from fedmem.estimation.held_out_pairs import PairArea, fit_direction, hull
from fedmem.estimation.update_evidence import halves_of


def area_of(table: FloatArray, labels: BoolArray, seed: int = 0) -> PairArea:
    """The AUC from features (R, N, d)."""
    rng = np.random.default_rng(seed)
    return client_area(lambda _, client: table[:, client], labels, 1.0, halves_of(len(table), 1, rng), rng)


def table_of(labels: BoolArray, shift: float, rng: np.random.Generator, own: float = 1.0, runs: int = 6) -> FloatArray:
    """Features with an offset of each run and of each client, noise, and a shift of positive clients."""
    clients = len(labels)
    table = rng.normal(size=(runs, clients, 5)) * 0.3 + own * rng.normal(size=(clients, 5))
    table += 10 * rng.normal(size=(runs, 1, 5))
    table[:, labels, 0] += shift
    return table


LABELS = np.arange(8) % 2 == 0


def test_an_attribute_that_all_clients_share_is_found() -> None:
    area = area_of(table_of(LABELS, 6.0, np.random.default_rng(0)), LABELS)
    assert area.value > 0.9
    assert area.p <= 2 / 70
    assert (area.n, area.deals) == (8, 69)
    assert area.low < area.value <= area.high


def test_without_an_attribute_auc_is_half_and_p_holds_its_level() -> None:
    """Clients differ strongly and in every run, so that an attack that had trained on them would know them."""
    rng = np.random.default_rng(1)
    areas = [area_of(table_of(LABELS, 0.0, rng, own=5.0, runs=4), LABELS, seed) for seed in range(100)]
    assert np.mean([area.value for area in areas]) == pytest.approx(0.5, abs=0.08)
    assert np.mean([area.p <= 0.05 for area in areas]) < 0.12
    assert np.mean([area.low <= 0.5 <= area.high for area in areas]) > 0.82


def test_the_sign_does_not_count() -> None:
    table = table_of(LABELS, -6.0, np.random.default_rng(2))
    assert area_of(table, LABELS).value > 0.9
    assert area_of(table, ~LABELS).value > 0.9


def test_the_pair_is_never_trained_on() -> None:
    rng = np.random.default_rng(3)
    table, asked = table_of(LABELS, 0.0, rng), []

    def features(pair: tuple[int, int], client: int) -> FloatArray:
        asked.append((pair, client))
        return table[:, client]

    client_area(features, LABELS, 1.0, halves_of(6, 1, rng), rng)
    assert len({pair for pair, _ in asked}) == 28
    # each client is read once for a pair: as a case of the fit, or as one of the pair
    assert len(asked) == len(set(asked)) == 28 * 8


def test_equal_clients_tie() -> None:
    area = area_of(np.ones((6, 8, 3)), LABELS)
    assert (area.value, area.p) == (0.5, 1.0)


def test_one_client_of_a_side_is_undefined() -> None:
    table = table_of(LABELS, 0.0, np.random.default_rng(4))
    for labels in (np.arange(8) == 3, np.arange(8) != 3, np.ones(8, dtype=bool)):
        area = area_of(table, labels)
        assert np.isnan([area.value, area.low, area.high, area.p]).all()
        assert area.n == 8


def test_absent_clients_do_not_count() -> None:
    rng = np.random.default_rng(5)
    table = table_of(LABELS, 6.0, rng)
    table[:3, 2] = np.nan
    table[1] = np.nan
    assert area_of(table, LABELS).value > 0.9
    assert np.isnan(area_of(np.full_like(table, np.nan), LABELS).value)


def test_deals_are_all_ways_or_drawn() -> None:
    rng = np.random.default_rng(6)
    every = deal_labels(LABELS, rng)
    assert len(np.unique(every, axis=0)) == len(every) == 70
    assert (every[0] == LABELS).all()
    drawn = deal_labels(np.arange(20) % 2 == 0, rng)
    assert drawn.shape == (1000, 20)
    assert (drawn.sum(axis=1) == 10).all()


def test_equals_a_loop_over_pairs_runs_and_halves() -> None:
    """And its interval is the widest of a jackknife over clients, of disjoint pairs, and of dealt labels."""
    rng = np.random.default_rng(7)
    table, split = table_of(LABELS, 0.8, rng), halves_of(6, 1, np.random.default_rng(3))
    won = {}
    for i in np.flatnonzero(LABELS):
        for j in np.flatnonzero(~LABELS):
            rest, scores = np.setdiff1d(np.arange(8), [i, j]), []
            for fitted in (split[0], ~split[0]):
                direction = fit_direction([(table[run, rest], LABELS[None, rest]) for run in np.flatnonzero(fitted)], 1)
                assert direction is not None
                scores += ((table[~fitted, i] - table[~fitted, j]) @ direction[:, 0] > 0).tolist()
            won[i, j] = np.mean(scores)
    value = np.mean(list(won.values()))
    without = np.array([np.mean([share for pair, share in won.items() if client not in pair]) for client in range(8)])
    found = client_area(lambda _, client: table[:, client], LABELS, 1.0, split, rng)
    assert found.value == pytest.approx(value)
    low, high = hull(float(value), without, LABELS[None])
    assert found.low <= low + 1e-12
    assert found.high >= high - 1e-12


def test_the_interval_of_a_null_agrees_with_dealt_labels() -> None:
    """Strong clients: a jackknife alone contains ½ in 88 %."""
    rng = np.random.default_rng(8)
    areas = [area_of(table_of(LABELS, 0.0, rng, own=5.0, runs=2), LABELS, seed) for seed in range(60)]
    assert np.mean([area.low <= 0.5 <= area.high for area in areas]) >= 0.95
    deals = np.array([0.9, 0.1, 0.3, 0.5, np.nan])
    assert [distance_of_deals(deals, level) for level in (0.25, 0.5, 1.0)] == pytest.approx([0.0, 0.2, 0.4])


def test_the_jackknife_leaves_out_all_pairs_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs without a run in which both are there do not count for either client."""
    rng, seen = np.random.default_rng(9), list[FloatArray]()
    table, split = table_of(LABELS, 2.0, rng), halves_of(6, 1, np.random.default_rng(3))
    table[:3, 0], table[3:, 1] = np.nan, np.nan

    def ends(value: float, without: FloatArray, labels: BoolArray) -> tuple[float, float]:
        seen.append(without)
        return 0.0, 1.0

    monkeypatch.setattr(client_pairs, "hull", ends)
    value = client_area(lambda _, client: table[:, client], LABELS, 1.0, split, rng).value
    won = {}
    for i, j in ((int(i), int(j)) for i in np.flatnonzero(LABELS) for j in np.flatnonzero(~LABELS)):
        rest, scores = np.setdiff1d(np.arange(8), [i, j]), []
        usable: BoolArray = np.asarray(np.isfinite(table).all(axis=2))
        for fitted in (split[0], ~split[0]):
            chosen = [(run, rest[usable[run, rest]]) for run in np.flatnonzero(fitted).tolist()]
            parts = [(table[run, clients], LABELS[None, clients]) for run, clients in chosen]
            direction = fit_direction(parts, 1)
            assert direction is not None
            tested = np.flatnonzero(~fitted & usable[:, i] & usable[:, j])
            scores += ((table[tested, i] - table[tested, j]) @ direction[:, 0] > 0).tolist()
        if scores:
            won[i, j] = np.mean(scores)
    assert (0, 1) not in won
    assert len(won) == 15
    assert 0.2 < value < 0.95
    assert value == pytest.approx(np.mean(list(won.values())))
    expected = [np.mean([share for pair, share in won.items() if client not in pair]) for client in range(8)]
    assert seen[0] == pytest.approx(expected)
