"""Tables from gradients: rows that a table could hold, pooled over restarts, better than guesses that saw nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedmem.attacks.tabular import Tabular, _pool_restarts
from fedmem.contracts.data import Examples
from fedmem.errors import ComponentError
from fedmem.modalities.tables import modal_row, tolerances
from tests.attacks.tabular_helpers import BLOCKS, QUICK, attacked, rows, table_target
from tests.lab import digits, network, parameters, target_of
from tests.recovered import independent_rows, right_cells


def accuracy(found: NDArray[np.float32], table: Examples) -> float:
    return float(right_cells(found, table.inputs, BLOCKS, tolerances(rows(500).inputs, BLOCKS)).mean())


@pytest.mark.parametrize("embedded", [True, False])
def test_one_row_is_recovered_but_not_from_the_wrong_sign(embedded: bool) -> None:
    right, wrong = [], []
    for seed in range(2):
        table = rows(1, seed)
        target = table_target(table, embedded)
        found = attacked(target)
        right.append(accuracy(found.inputs, table))
        assert found.labels.tolist() == table.targets.tolist()
        assert found.distance < 0.01
        # of two classes the gradient of one label points against that of the other: the sign is known by the label
        flipped = {name: -value for name, value in target.gradient.items()}
        known = replace(target, gradient=flipped, labels=table.targets)
        wrong.append(accuracy(attacked(known).inputs, table))
    assert np.mean(right) == 1.0
    assert np.mean(wrong) < 0.9


def test_tabular_recovers_more_than_guesses_of_several_rows() -> None:
    population, rng = rows(500, seed=9).inputs, np.random.default_rng(0)
    own, usual, drawn = [], [], []
    for seed in range(3):
        table = rows(4, seed)
        own.append(accuracy(attacked(table_target(table)).inputs, table))
        usual.append(accuracy(np.repeat(modal_row(population, BLOCKS), 4, axis=0), table))
        drawn.append(accuracy(independent_rows(population, BLOCKS, 4, rng), table))
    assert np.mean(own) > max(np.mean(usual), np.mean(drawn)) + 0.1


def test_every_row_is_one_that_the_table_could_hold() -> None:
    found = attacked(table_target(rows(5)), Tabular(steps=3, restarts=2)).inputs
    assert found.shape == (5, sum(BLOCKS))
    start = 0
    for width in BLOCKS:
        part = found[:, start : start + width]
        assert ((part >= 0) & (part <= 1)).all()
        if width > 1:
            np.testing.assert_array_equal(np.sort(part, axis=1)[:, -1], 1.0)
            np.testing.assert_array_equal(part.sum(1), 1.0)
        start += width


def test_pooling_pairs_equal_labels_and_takes_medians_and_means() -> None:
    blocks, labels = (1, 2), np.array([0, 0, 1])
    best = np.array([[0.1, 0.9, 0.1], [0.5, 0.2, 0.8], [0.9, 0.6, 0.4]], np.float32)
    second = np.array([[0.6, 0.1, 0.9], [0.2, 0.7, 0.3], [0.8, 0.1, 0.9]], np.float32)  # first two in the other order
    third = np.array([[0.15, 0.8, 0.2], [0.4, 0.3, 0.7], [0.85, 0.3, 0.7]], np.float32)
    pooled = _pool_restarts(np.stack([best, second, third]), labels, blocks)
    # by hand: medians of .1 .2 .15, of .5 .6 .4, of .9 .8 .85; the shares of the last row are .33 against .67
    np.testing.assert_allclose(pooled, [[0.15, 1, 0], [0.5, 0, 1], [0.85, 0, 1]])
    np.testing.assert_allclose(_pool_restarts(best[None], labels, blocks), [[0.1, 1, 0], [0.5, 0, 1], [0.9, 1, 0]])
    # rows of another label are never taken, however near they are
    other = np.array([[0.5, 0.2, 0.8], [0.9, 0.6, 0.4], [0.1, 0.9, 0.1]], np.float32)
    assert _pool_restarts(np.stack([best, other]), labels, blocks)[2, 0] == pytest.approx(0.5)


def test_best_restarts_are_pooled_and_distance_is_of_the_answer() -> None:
    table = rows(3, seed=2)
    target = table_target(table)
    one = attacked(target, Tabular(steps=60, restarts=1))
    best_of = attacked(target, Tabular(steps=60, restarts=6, pooled=0.01))
    assert best_of.distance <= one.distance, "the first start is among the six"
    half, everything = (attacked(target, Tabular(steps=60, restarts=6, pooled=share)) for share in (0.5, 1.0))
    assert len({found.inputs.tobytes() for found in (best_of, half, everything)}) > 1


def test_tabular_rows_do_not_depend_on_other_targets() -> None:
    first, second = table_target(rows(3, seed=1)), table_target(rows(1, seed=4))
    beside = QUICK.reconstruct([first, second], [np.random.default_rng(i) for i in (0, 1)])
    for target, found, seed in ((first, beside[0], 0), (second, beside[1], 1)):
        alone = attacked(target, seed=seed)
        np.testing.assert_allclose(found.inputs, alone.inputs, atol=1e-3)
    assert QUICK.reconstruct([], []) == []


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_an_empty_gradient_gives_a_table_and_no_distance(value: float) -> None:
    target = table_target(rows(2))
    blank = replace(target, gradient={name: torch.full_like(g, value) for name, g in target.gradient.items()})
    found, beside = QUICK.reconstruct([blank, target], [np.random.default_rng(i) for i in (0, 1)])
    assert math.isnan(found.distance)
    assert np.isfinite(found.inputs).all()
    assert not math.isnan(beside.distance)


def test_tabular_refuses_images_and_uses_known_labels() -> None:
    net = network()
    with pytest.raises(ComponentError, match="these data are none"):
        attacked(target_of(net, parameters(net), digits().take(np.arange(1))))
    assert Tabular().knows == ()
    known = replace(table_target(rows(2)), labels=np.array([0, 1])).grant(("labels",))
    assert Tabular(labels="known").knows == ("labels",)
    assert attacked(known, Tabular(steps=1, labels="known")).labels.tolist() == [0, 1]
