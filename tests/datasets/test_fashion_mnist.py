"""Tests of `fedmem/datasets/fashion_mnist.py`, on files of the published names with few rows."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.datasets import fashion_mnist
from fedmem.datasets._idx import pack
from fedmem.datasets.fashion_mnist import FashionMnist

LABELS = {"train": np.arange(60, dtype=np.uint8) % 10, "t10k": np.arange(40, dtype=np.uint8) % 10}
RNG = np.random.default_rng(0)
IMAGES = {part: RNG.integers(256, size=(len(y), 28, 28), dtype=np.uint8) for part, y in LABELS.items()}


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {f"{part}-images-idx3-ubyte": pack(IMAGES[part]) for part in LABELS}
    found |= {f"{part}-labels-idx1-ubyte": pack(LABELS[part]) for part in LABELS}
    assert set(found) == set(FashionMnist.published.files)
    monkeypatch.setattr(fashion_mnist, "read_verified", lambda _, name: found[name])


def test_all_rows_keep_the_published_split_levels_and_numbers() -> None:
    data = FashionMnist().load(np.random.default_rng(0))
    np.testing.assert_allclose(data.train.inputs[:, 0] * 255, IMAGES["train"], atol=1e-4)
    np.testing.assert_array_equal(data.test.targets, LABELS["t10k"])
    assert data.train.ids.tolist() == list(range(60))
    assert data.test.ids.tolist() == list(range(60_000, 60_040))
    assert data.num_classes == 10


def test_smaller_draw_is_stratified() -> None:
    data = FashionMnist(rows=30, test=20).load(np.random.default_rng(0))
    assert np.bincount(data.train.targets).tolist() == [3] * 10
    assert np.bincount(data.test.targets).tolist() == [2] * 10
    np.testing.assert_array_equal(data.train.targets, LABELS["train"][data.train.ids])
