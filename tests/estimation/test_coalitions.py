"""Tests of `fedmem/estimation/coalitions.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from math import factorial
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.estimation import coalitions
from fedmem.estimation.coalitions import complete, guided_orders, leave_one_out, shapley, truncated_shapley


def game(players: int, rows: int = 3, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(1 << players, rows))


def worth_of(table: FloatArray, asked: list[int] | None = None) -> Callable[[Sequence[int]], FloatArray]:
    def worth(numbers: Sequence[int]) -> FloatArray:
        if asked is not None:
            asked.extend(numbers)
        return table[list(numbers)]

    return worth


def by_orders(table: FloatArray) -> FloatArray:
    """Shapley values by their definition: the mean over all orders of what a player adds."""
    players = len(table).bit_length() - 1
    values = np.zeros((players, table.shape[1]))
    for order in permutations(range(players)):
        members = 0
        for player in order:
            values[player] += table[members | 1 << player] - table[members]
            members |= 1 << player
    return values / factorial(players)


def check_shapley() -> None:
    for players in (1, 2, 4, 5):
        table = game(players)
        np.testing.assert_allclose(shapley(table), by_orders(table), atol=1e-12)
        np.testing.assert_allclose(shapley(table).sum(axis=0), table[-1] - table[0], atol=1e-10)


def test_values_are_means_over_orders_and_sum_to_the_whole() -> None:
    check_shapley()


@pytest.mark.parametrize("broken", ["sign", "sizes"])
def test_broken_weights_fail(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    right = coalitions._shapley_weights
    monkeypatch.setattr(
        coalitions, "_shapley_weights", lambda n: -right(n) if broken == "sign" else np.sign(right(n)) / 2 ** (n - 1)
    )
    with pytest.raises(AssertionError):
        check_shapley()


def test_dummies_have_no_value_and_equal_players_are_equal() -> None:
    table = game(4)
    members = np.arange(16)
    ignoring = table[members & ~4]  # no coalition changes by player 2
    assert (np.abs(shapley(ignoring)[2]) < 1e-15).all()
    swapped = (members & ~3) | (members & 1) << 1 | (members & 2) >> 1
    alike = table + table[swapped]
    values = shapley(alike)
    np.testing.assert_allclose(values[0], values[1], atol=1e-12)
    assert not np.allclose(values[0], values[2])


def test_leave_one_out_is_the_whole_minus_all_others() -> None:
    table = game(4)
    np.testing.assert_array_equal(leave_one_out(worth_of(table), 4)[1], table[15] - table[13])
    np.testing.assert_array_equal(leave_one_out(worth_of(table[:2]), 1)[0], table[1] - table[0])


def test_all_orders_without_truncation_are_exact() -> None:
    table = game(4)
    orders = np.array(list(permutations(range(4))))
    np.testing.assert_allclose(truncated_shapley(worth_of(table), orders), shapley(table), atol=1e-12)


def test_any_orders_without_truncation_sum_to_the_whole() -> None:
    table = game(5)
    table[3] = table[31]  # a prefix that is worth as much as all ends no order, where nothing is truncated
    orders = guided_orders(5, 2, np.random.default_rng(0))
    values = truncated_shapley(worth_of(table), orders)
    np.testing.assert_allclose(values.sum(axis=0), table[-1] - table[0], atol=1e-10)
    many = guided_orders(5, 4000, np.random.default_rng(0))
    assert np.abs(truncated_shapley(worth_of(table), many) - shapley(table)).max() < 0.05


def test_rounds_that_change_little_count_as_zero() -> None:
    table, asked = np.arange(8.0)[:, None] * np.ones(2), list[int]()
    orders = guided_orders(3, 1, np.random.default_rng(0))
    assert not truncated_shapley(worth_of(table, asked), orders, between=7.01).any()
    assert sorted(asked) == [0, 7]
    assert truncated_shapley(worth_of(table), orders, between=7.0).any(), "at the threshold it counts"


def test_orders_end_where_the_rest_changes_little() -> None:
    # worth 0, 0.9 with player 0 alone, 1 with all: after player 0 the rest is worth 0.1
    table = np.zeros((8, 1))
    table[[1, 3, 5]], table[7] = 0.9, 1.0
    orders, asked = np.array([[0, 1, 2], [1, 2, 0]]), list[int]()
    values = truncated_shapley(worth_of(table, asked), orders, within=0.11)[:, 0]
    np.testing.assert_allclose(values, [(0.9 + 1.0) / 2, 0.0, 0.0])
    assert 3 not in asked
    whole = truncated_shapley(worth_of(table), orders, within=0.09)[:, 0]
    np.testing.assert_allclose(whole, [(0.9 + 1.0) / 2, 0.0, 0.05])


def test_truncation_compares_means_over_rows() -> None:
    table = np.stack([np.zeros(2), np.array([1.0, -1.0])])  # large on each row, zero on average
    orders = np.array([[0]])
    assert truncated_shapley(worth_of(table), orders, within=0.0)[0].tolist() == [1.0, -1.0]
    assert truncated_shapley(worth_of(table), orders, between=1e-9)[0].tolist() == [0.0, 0.0]


def test_what_has_diverged_is_nan() -> None:
    table = game(3)
    table[5] = np.nan
    assert np.isnan(shapley(table)).any()
    every = np.array(list(permutations(range(3))))
    assert np.isnan(truncated_shapley(worth_of(table), every, between=0.1, within=0.1)).any()
    table[:] = np.nan
    assert np.isnan(truncated_shapley(worth_of(table), every, between=0.1, within=0.1)).all()


def test_every_player_leads_equally_often() -> None:
    orders = guided_orders(4, 3, np.random.default_rng(1))
    assert np.bincount(orders[:, 0]).tolist() == [3, 3, 3, 3]
    assert (np.sort(orders, axis=1) == np.arange(4)).all()
    assert len({tuple(order) for order in orders.tolist()}) > 4
    assert guided_orders(1, 2, np.random.default_rng(1)).tolist() == [[0], [0]]


def low_rank(rank: int, rows: int = 12, columns: int = 16) -> FloatArray:
    rng = np.random.default_rng(rank)
    return rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))


@pytest.mark.parametrize("rank", [1, 2])
def test_a_matrix_of_low_rank_is_found_again(rank: int) -> None:
    matrix = low_rank(rank)
    is_seen = np.random.default_rng(0).random(matrix.shape) < 0.7
    filled = complete(np.where(is_seen, matrix, np.nan), rank)
    np.testing.assert_array_equal(filled[is_seen], matrix[is_seen])
    np.testing.assert_allclose(filled, matrix, atol=0.02)


def test_what_is_seen_nowhere_is_unknown() -> None:
    matrix = low_rank(1)
    matrix[:, 3], matrix[5], matrix[0, 1] = np.nan, np.nan, np.nan
    filled = complete(matrix, 1)
    assert np.isnan(filled[:, 3]).all()
    assert np.isnan(filled[5]).all()
    assert np.isfinite(np.delete(np.delete(filled, 3, axis=1), 5, axis=0)).all()
    assert np.isnan(complete(np.full((2, 2), np.nan), 1)).all()


def test_a_whole_matrix_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix: Any = low_rank(3)
    np.testing.assert_array_equal(complete(matrix, 1), matrix)
    zeros = np.array([[0.0, np.nan], [0.0, 0.0]])
    np.testing.assert_array_equal(complete(zeros, 1), np.zeros((2, 2)))
