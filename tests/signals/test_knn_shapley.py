"""Tests of `fedmem/signals/knn_shapley.py`."""

from __future__ import annotations

from itertools import permutations
from math import factorial

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.errors import ScenarioError
from fedmem.federation.build import build
from fedmem.signals import knn_shapley
from fedmem.signals.knn_shapley import KnnShapley, values_among
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny

NOBODY = np.zeros((1, 0), dtype=bool)


def utility(rows: list[int], points: FloatArray, labels: IntArray, test: FloatArray, truth: IntArray, k: int) -> float:
    """By the definition: the share of K neighbours with the right label, the mean over test rows."""
    total = 0.0
    for point, label in zip(test, truth, strict=True):
        order = sorted(rows, key=lambda row: (np.abs(points[row] - point).sum(), row))
        total += sum(labels[row] == label for row in order[:k]) / k
    return total / len(test)


def by_orders(points: FloatArray, labels: IntArray, test: FloatArray, truth: IntArray, k: int) -> FloatArray:
    """The Shapley values of all rows, over all orders."""
    n = len(points)
    total = np.zeros(n)
    memory: dict[frozenset[int], float] = {}

    def value(rows: list[int]) -> float:
        key = frozenset(rows)
        if key not in memory:
            memory[key] = utility(rows, points, labels, test, truth, k)
        return memory[key]

    for order in permutations(range(n)):
        worth = [value(list(order[:size])) for size in range(n + 1)]
        total[list(order)] += np.diff(worth)
    return total / factorial(n)


def closed(points: FloatArray, labels: IntArray, test: FloatArray, truth: IntArray, k: int) -> FloatArray:
    """Each row in turn as the example, among the others."""
    found = []
    for row in range(len(points)):
        rest = np.arange(len(points)) != row
        parts = [points[row : row + 1, None], points[rest, None], test[:, None]]
        none = np.zeros((1, int(rest.sum())), dtype=bool)
        found.append(values_among(parts, (labels[row : row + 1], labels[rest], truth), none, k)[0])
    return np.array(found)


def table(n: int, seed: int) -> tuple[FloatArray, IntArray, FloatArray, IntArray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=n), rng.integers(0, 2, n), rng.normal(size=3), rng.integers(0, 2, 3)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [4, 7])
def test_the_closed_form_is_the_mean_over_orders(n: int, k: int) -> None:
    rows = table(n, seed=10 * n + k)
    np.testing.assert_allclose(closed(*rows, k), by_orders(*rows, k), atol=1e-12)


def test_values_sum_to_the_utility_of_all() -> None:
    for k in (1, 5, 20):
        rows = table(12, seed=k)
        assert closed(*rows, k).sum() == pytest.approx(utility(list(range(12)), *rows, k), abs=1e-12)


@pytest.mark.parametrize("broken", ["sign", "place"])
def test_a_broken_step_is_no_value(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, inserted = table(4, seed=1), knn_shapley._value_at
    if broken == "sign":
        monkeypatch.setattr(knn_shapley, "_value_at", lambda *a: -inserted(*a))
    else:
        monkeypatch.setattr(knn_shapley, "_value_at", lambda hit, place, *a: inserted(hit, place * 0, *a))
    assert np.abs(closed(*rows, 2) - by_orders(*rows, 2)).max() > 0.01


def test_test_rows_do_not_depend_on_each_other() -> None:
    """A mean over test rows that is formed within the recursion would make them."""
    points, labels, test, truth = table(6, seed=3)
    alone = [closed(points, labels, test[i : i + 1], truth[i : i + 1], 3) for i in range(3)]
    np.testing.assert_allclose(closed(points, labels, test, truth, 3), np.mean(alone, axis=0), atol=1e-14)


def test_own_rows_are_no_neighbours() -> None:
    points, labels, test, truth = table(6, seed=4)
    copies = np.concatenate([points, points[[0, 0]]])
    parts = [points[:1, None], copies[:, None], test[:, None]]
    own = np.array([[True, *[False] * 5, True, True]])
    found = values_among(parts, (labels[:1], np.concatenate([labels, labels[[0, 0]]]), truth), own, 2)
    assert found[0] == pytest.approx(closed(points, labels, test, truth, 2)[0], abs=1e-14)


def test_an_example_comes_after_rows_as_near() -> None:
    parts = [np.zeros((1, 1)), np.zeros((1, 1)), np.ones((1, 1))]
    found = values_among(parts, (np.array([1]), np.array([0]), np.array([1])), np.zeros((1, 1), dtype=bool), 1)
    # orders: alone it gets 1, after the other row nothing
    assert found[0] == pytest.approx(1 / 2)
    both = values_among(parts, (np.array([1]), np.array([1]), np.array([1])), np.zeros((1, 1), dtype=bool), 1)
    assert both[0] == pytest.approx(1 / 2)


def test_no_other_rows_and_features_that_are_not_finite() -> None:
    parts = [np.zeros((1, 2)), np.zeros((0, 2)), np.ones((2, 2))]
    empty = np.empty(0, dtype=np.int64)
    found = values_among(parts, (np.array([1]), empty, np.array([1, 0])), NOBODY, 5)
    assert found[0] == pytest.approx(0.5 / 5)
    lost = values_among(
        [np.array([[np.nan], [0.0]]), np.ones((1, 1)), np.ones((1, 1))],
        (np.array([1, 1]), np.array([1]), np.array([1])),
        np.zeros((2, 1), dtype=bool),
        5,
    )
    assert np.isnan(lost).tolist() == [True, False]


def test_a_run_reads_owners_and_the_aggregate() -> None:
    bench = Bench()
    audit, params = bench.federation.audit, bench.params()
    owner = int(audit.owner[0])
    found = KnnShapley().values(bench.context(bench.transition(params, level="local", client=owner)))["knn_shapley"]
    assert (np.isfinite(found[0]) == (audit.owner == owner)).all()
    both = bench.values(KnnShapley(rows=30, test_rows=10), bench.params(1), params)["knn_shapley"]
    assert np.isfinite(both).all()
    assert (np.abs(both) <= 1 / 5).all()
    alone = bench.values(KnnShapley(rows=30, test_rows=10), params)["knn_shapley"]
    np.testing.assert_array_equal(both[1:], alone)


def test_wrong_labels_have_lower_values() -> None:
    """Rows of two blobs: an example of the other label is worth less than nothing."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    points = 4.0 * labels[:, None] + rng.normal(size=(40, 2))
    parts, truth = [points[:10], points[10:30], points[30:]], labels[30:]
    nobody = np.zeros((10, 20), dtype=bool)
    right = values_among(parts, (labels[:10], labels[10:30], truth), nobody, 5)
    wrong = values_among(parts, (1 - labels[:10], labels[10:30], truth), nobody, 5)
    assert right.mean() > 0 > wrong.mean()


def test_networks_without_a_hidden_block_are_refused() -> None:
    with pytest.raises(ScenarioError, match="needs 1 hidden block"):
        build(tiny(model={"kind": "logistic"}, signals=[{"kind": "knn_shapley"}]))
