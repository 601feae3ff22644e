"""Cells of tables: counted by hand, paired whatever the order, and guessed by somebody who saw nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmem.modalities.tables import SHARE, is_right_cell, modal_row, to_one_hot, tolerances

BLOCKS = (1, 3, 1, 2)


def table(count: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    rows = np.zeros((count, 7), dtype=np.float32)
    rows[:, 0], rows[:, 4] = rng.random(count), rng.random(count)
    rows[np.arange(count), 1 + rng.integers(3, size=count)] = 1
    rows[np.arange(count), 5 + rng.integers(2, size=count)] = 1
    return rows


def test_right_cells_equal_hand_counts() -> None:
    truth = np.array([[0.5, 0, 1, 0, 0.2, 1, 0]], np.float32)
    found = np.array([[0.55, 0.2, 0.5, 0.3, 0.31, 0.4, 0.6]], np.float32)  # number, category, number, category
    assert is_right_cell(found, truth, BLOCKS, np.array([0.1, 0, 0.1, 0])).tolist() == [[[True, True, False, False]]]
    assert is_right_cell(found, truth, BLOCKS, np.array([0.1, 0, 0.2, 0])).tolist() == [[[True, True, True, False]]]


@given(st.permutations(range(6)))
def test_every_row_is_compared_with_every_other(order: list[int]) -> None:
    rows = table(6)
    hit = is_right_cell(rows[order], rows, BLOCKS, tolerances(rows, BLOCKS)).all(axis=2)
    assert np.argwhere(hit).tolist() == [[i, j] for i, j in enumerate(order)]


def test_tolerance_is_a_share_of_the_spread_edge_included() -> None:
    rows = table(500)
    allowed = tolerances(rows, BLOCKS)
    assert allowed.tolist() == pytest.approx(
        [SHARE * rows[:, 0].astype(float).std(), 0, SHARE * rows[:, 4].astype(float).std(), 0]
    )
    truth = rows[:1].copy()
    for distance, is_right in ((0.999, True), (1.001, False)):
        moved = truth.copy()
        moved[0, 0] = truth[0, 0] + distance * allowed[0]
        assert is_right_cell(moved, truth, BLOCKS, allowed)[0, 0, 0] == is_right
    assert not is_right_cell(truth, np.roll(truth, 1, axis=1), BLOCKS, allowed)[0, 0].all()


def test_constant_column_has_tolerance_zero() -> None:
    rows = np.full((4, 1), 0.3, np.float32)
    allowed = tolerances(rows, (1,))
    assert allowed.tolist() == [0.0]
    assert is_right_cell(rows[:1], rows[:1], (1,), allowed).all()
    assert not is_right_cell(rows[:1] + 0.01, rows[:1], (1,), allowed).any()


def test_equal_shares_are_the_first_category_and_nan_is_wrong() -> None:
    truth = np.array([[0.5, 1, 0]], np.float32)
    assert is_right_cell(np.array([[0.5, 0.5, 0.5]], np.float32), truth, (1, 2), np.zeros(2))[0, 0, 1]
    for broken in ([np.nan, 1, 0], [np.inf, 1, 0]):
        assert not is_right_cell(np.array([broken], np.float32), truth, (1, 2), np.array([np.inf, 0]))[0, 0, 0]
    assert not is_right_cell(np.array([[0.5, np.nan, 0]], np.float32), truth, (1, 2), np.zeros(2))[0, 0, 1]


def test_modal_row_is_mode_and_mean_and_beats_other_constants() -> None:
    rows = table(301)
    usual = modal_row(rows, BLOCKS)
    assert usual[0, 0] == pytest.approx(rows[:, 0].mean())
    assert usual[0, 1:4].tolist() == np.eye(3)[rows[:, 1:4].sum(0).argmax()].tolist()
    allowed, shares = tolerances(rows, BLOCKS), []
    for choice in range(3):
        guess = usual.copy()
        guess[0, 1:4] = np.eye(3)[choice]
        shares.append(is_right_cell(guess, rows, BLOCKS, allowed)[..., 1].mean())
    own = is_right_cell(usual, rows, BLOCKS, allowed)[..., 1].mean()
    assert own == max(shares) > min(shares)


def test_hardened_rows_could_be_in_the_table_and_real_rows_stay() -> None:
    rows = table(50)
    np.testing.assert_array_equal(to_one_hot(rows, BLOCKS), rows)
    soft = to_one_hot(np.float32(0.6) * rows + np.float32(0.4) * table(50, seed=1), BLOCKS)
    assert (soft[:, 1:4].sum(1) == 1).all()
    assert set(np.unique(soft[:, 5:])) == {0.0, 1.0}
