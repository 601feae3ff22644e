"""Tests of `fedmem/datasets/synthetic.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.datasets import synthetic
from fedmem.datasets.synthetic import Synthetic


def test_synthetic_classes_have_the_requested_separation() -> None:
    data = Synthetic(rows=20000, shape=(6,), classes=2, separation=2.0).load(np.random.default_rng(0))
    centres = [data.train.inputs[data.train.targets == label].mean(0) for label in range(2)]
    assert [np.linalg.norm(centre - 0.5) for centre in centres] == pytest.approx([0.2, 0.2], abs=0.005)
    assert data.train.inputs[data.train.targets == 0].std(0) == pytest.approx(np.full(6, 0.1), rel=0.03)


@pytest.mark.parametrize("groups", [0, 3])
def test_synthetic_rows_do_not_depend_on_the_block_size(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Synthetic(rows=101, test=12, shape=(5,), groups=groups)
    whole, rng = loader.load(np.random.default_rng(0)), np.random.default_rng(0)
    monkeypatch.setattr(synthetic, "BLOCK", 40)
    parts = loader.load(rng)
    for name in ("train", "test"):
        np.testing.assert_array_equal(getattr(whole, name).inputs, getattr(parts, name).inputs)
    # The formula, all at once.
    plain = np.random.default_rng(0)
    centres, targets = loader._directions(4, 5, plain), plain.integers(4, size=113)
    points = 3.0 * centres[targets] + plain.standard_normal((113, 5))
    if groups:
        natural = plain.permutation(np.arange(101) % 3)
        owner = np.concatenate([natural, plain.integers(3, size=12)])
        points += 1.0 * loader._directions(3, 5, plain)[owner]
        np.testing.assert_array_equal(natural, parts.natural)
    expected = np.clip(0.5 + points / 10, 0, 1).astype(np.float32)
    np.testing.assert_array_equal(np.concatenate([parts.train.inputs, parts.test.inputs]), expected)
    assert parts.test.inputs.base is None, "test rows hold on to no training row"


def test_synthetic_without_separation_carries_no_label() -> None:
    data = Synthetic(rows=20000, shape=(3,), classes=2, separation=0.0).load(np.random.default_rng(0))
    gap = np.subtract(*(data.train.inputs[data.train.targets == label].mean(0) for label in range(2)))
    assert np.abs(gap).max() < 5 * 0.1 / np.sqrt(5000)


def test_synthetic_groups_are_even_and_shifted() -> None:
    loader = Synthetic(rows=9001, shape=(5,), classes=2, separation=0.0, groups=3, shift=2.0)
    data = loader.load(np.random.default_rng(0))
    assert data.natural is not None
    assert sorted(np.bincount(data.natural).tolist()) == [3000, 3000, 3001]
    for group in range(3):
        centre = data.train.inputs[data.natural == group].mean(0) - 0.5
        assert np.linalg.norm(centre) == pytest.approx(0.2, abs=0.01)
