"""Tests of `fedmem/probes/_identities.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.errors import ComponentError
from fedmem.modalities.pixels import LEVELS, Pixels
from fedmem.modalities.texts import Texts
from fedmem.probes._identities import (
    euclidean,
    fit_verifier,
    groups_of,
    held_out_accuracies,
    nearest_same,
    random_accuracy,
    require_strangers,
    vectors_of,
)


def people(count: int, seed: int, apart: float = 1.0, each: int = 12) -> tuple[FloatArray, IntArray]:
    """Rows whose first two pixels say the person, and whose other ten vary much within each person."""
    rng = np.random.default_rng(seed)
    identity = np.repeat(np.arange(count), each)
    rows = rng.normal(0.0, 3.0, (len(identity), 12))
    rows[:, :2] = apart * rng.normal(0.0, 4.0, (count, 2))[identity] + rng.normal(0.0, 0.3, (len(identity), 2))
    return rows, identity


def test_a_verifier_finds_identities_better_than_pixels() -> None:
    rows, identity = people(12, 0)
    verifier, pixels = (values.mean() for values in held_out_accuracies(rows, identity, np.zeros_like(identity)))
    assert verifier > pixels + 0.1
    assert pixels > random_accuracy(identity)


def test_a_verifier_without_identities_is_at_chance() -> None:
    found = [held_out_accuracies(*people(6, seed, 0.0), np.zeros(72, np.int64))[0].mean() for seed in range(20)]
    assert np.mean(found) == pytest.approx(random_accuracy(people(3, 0)[1]), abs=0.03)


def test_no_verifier_is_judged_by_people_whom_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, identity = people(6, 0)
    fitted: list[FloatArray] = []

    def record(vectors: FloatArray, groups: IntArray) -> FloatArray:
        fitted.append(vectors)
        return fit_verifier(vectors, groups)

    monkeypatch.setattr("fedmem.probes._identities.fit_verifier", record)
    held_out_accuracies(rows, identity, np.zeros_like(identity))
    assert np.array_equal(fitted[0], rows[identity % 2 == 1])
    assert np.array_equal(fitted[1], rows[identity % 2 == 0])


def test_the_distance_is_whitened_by_the_covariance_within() -> None:
    rows, identity = people(5, 1)
    within = rows - np.stack([rows[identity == name].mean(axis=0) for name in range(5)])[identity]
    covariance = within.T @ within / (len(rows) - 5)
    inverse = np.linalg.inv(covariance + np.trace(covariance) / 12 * np.eye(12))
    matrix, gap = fit_verifier(rows, identity), rows[0] - rows[20]
    assert euclidean(rows[:1] @ matrix, rows[20:21] @ matrix)[0, 0] ** 2 == pytest.approx(gap @ inverse @ gap)


def test_no_variation_within_leaves_pixels() -> None:
    assert fit_verifier(np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([0, 1])).tolist() == [[1, 0], [0, 1]]


def test_ties_and_equal_rows_are_shared() -> None:
    assert nearest_same(np.zeros((4, 4)), np.array([0, 0, 1, 1])).tolist() == pytest.approx([1 / 3] * 4)
    assert np.isnan(random_accuracy(np.array([3])))
    assert groups_of(np.array([5, 5, 7]), np.array(["a", "b", "a"])).tolist() == [0, 1, 2]


def test_too_few_identities_are_refused() -> None:
    with pytest.raises(ComponentError, match="3 identities, but a verifier needs 4"):
        held_out_accuracies(*people(3, 0), np.zeros(36, np.int64))


def test_people_of_clients_are_refused() -> None:
    rows, identity = people(4, 0)
    require_strangers(rows, identity, rows[identity == 2][:6], "here")
    with pytest.raises(ComponentError, match="100% of the rows of identity 2"):
        require_strangers(rows, identity, rows[identity == 2], "here")


def test_images_are_vectors_and_texts_are_refused() -> None:
    pixels = Pixels(vocabulary=tuple(LEVELS[:5]), shape=(1, 1, 2))
    assert vectors_of(pixels, np.array([[0, 4, 2]]), "here").tolist() == [[1.0, 0.5]]
    texts: Any = Texts(vocabulary=("a", "b"))
    with pytest.raises(ComponentError, match="a verifier compares images"):
        vectors_of(texts, np.zeros((1, 3), np.int64), "here")
