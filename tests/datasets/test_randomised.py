"""Tests of `fedmem/datasets/randomised.py`: random labels and inputs, with nothing else changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.contracts.data import Dataset
from fedmem.datasets.cylinder_bell_funnel import CylinderBellFunnel
from fedmem.datasets.digits import Digits
from fedmem.datasets.pixels import Pixels
from fedmem.datasets.randomised import Randomised
from fedmem.errors import ComponentError


def load(**fields: Any) -> Dataset:
    return Randomised(**fields).load(np.random.default_rng(3))


PLAIN = Digits().load(np.random.default_rng(3))


def test_nothing_is_changed_without_a_share() -> None:
    data = load(labels=0.0)
    for part, plain in ((data.train, PLAIN.train), (data.test, PLAIN.test)):
        assert np.array_equal(part.inputs, plain.inputs)
        assert np.array_equal(part.targets, plain.targets)
        assert np.array_equal(part.ids, plain.ids)
    assert set(data.columns["random label"]) == {"no"}


def test_a_share_of_labels_is_random_and_the_test_set_stays() -> None:
    data = load(labels=0.4)
    is_random = data.columns["random label"] == "yes"
    assert is_random.sum() == round(0.4 * len(PLAIN.train))
    changed = data.train.targets != PLAIN.train.targets
    assert not changed[~is_random].any()
    # one in ten is right by chance; binomial, five standard deviations
    right = 1 - changed[is_random].mean()
    assert abs(right - 0.1) < 5 * np.sqrt(0.09 / is_random.sum())
    assert data.columns["true class"].astype(int).tolist() == PLAIN.train.targets.tolist()
    assert np.array_equal(data.test.targets, PLAIN.test.targets)
    assert data.train.targets.dtype == PLAIN.train.targets.dtype


def test_labels_are_uniform_and_say_nothing_of_the_class() -> None:
    labels = load().train.targets
    table = np.zeros((10, 10))
    np.add.at(table, (PLAIN.train.targets, labels), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    # chi-squared with 81 degrees of freedom: its 99.99 % quantile is 137
    assert ((table - expected) ** 2 / expected).sum() < 137
    counts = np.bincount(labels, minlength=10)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 34  # 9 degrees of freedom


def test_a_larger_share_keeps_the_labels_of_a_smaller_one() -> None:
    small, large = load(labels=0.3), load(labels=0.6)
    was = small.columns["random label"] == "yes"
    assert (large.columns["random label"][was] == "yes").all()
    assert np.array_equal(large.train.targets[was], small.train.targets[was])


def test_shuffled_pixels_are_in_one_order_for_all_images() -> None:
    data = load(labels=0.0, inputs="shuffled")
    rows, plain = (part.inputs.reshape(len(part), -1) for part in (data.train, PLAIN.train))
    assert not np.array_equal(rows, plain)
    assert np.array_equal(np.sort(rows), np.sort(plain))
    # distances between images are those of the base, in the test set too

    def gaps(data: Dataset) -> Any:
        return ((data.train.inputs[:50] - data.test.inputs[:50]) ** 2).sum(axis=(1, 2, 3))

    np.testing.assert_allclose(gaps(data), gaps(PLAIN), rtol=1e-5)


def test_each_image_has_an_order_of_its_own() -> None:
    rows, plain = (d.train.inputs.reshape(len(d.train), -1) for d in (load(labels=0.0, inputs="shuffled_each"), PLAIN))
    assert np.array_equal(np.sort(rows), np.sort(plain))
    assert rows.std(axis=0).std() < 0.3 * plain.std(axis=0).std()
    assert np.array_equal(load(inputs="shuffled_each").test.inputs, PLAIN.test.inputs)


def test_noise_has_the_mean_of_the_pixels_and_no_image() -> None:
    data = load(labels=0.0, inputs="noise")
    assert data.train.inputs.dtype == PLAIN.train.inputs.dtype
    assert data.train.inputs.min() >= 0
    assert data.train.inputs.max() <= 1
    # cut at 0 and 1, so that the mean moves a little
    assert abs(data.train.inputs.mean() - PLAIN.train.inputs.mean()) < 0.05
    correlation = np.corrcoef(data.train.inputs.ravel(), PLAIN.train.inputs.ravel())[0, 1]
    assert abs(correlation) < 0.02
    assert np.array_equal(data.train.targets, PLAIN.train.targets)


def test_loading_is_repeatable() -> None:
    first, second = load(inputs="noise"), load(inputs="noise")
    assert np.array_equal(first.train.inputs, second.train.inputs)
    assert np.array_equal(first.train.targets, second.train.targets)


def test_other_data_are_refused() -> None:
    with pytest.raises(ComponentError, match="one label a row"):
        load(base=Pixels(levels=3, side=2))
    with pytest.raises(ComponentError, match="is for images"):
        load(base=CylinderBellFunnel(), inputs="noise")
    assert load(base=CylinderBellFunnel()).num_classes == 3
