"""Digits are the published ones, with their forms; synthetic data are what their formula says."""

import hashlib
from difflib import SequenceMatcher
from itertools import pairwise

import numpy as np
import pytest

from fedmem.contracts.data import Dataset, DatasetLoader, Examples
from fedmem.datasets import digits, synthetic
from fedmem.datasets.digits import Digits
from fedmem.datasets.synthetic import Synthetic
from fedmem.errors import ComponentError


def everything(data: Dataset) -> Examples:
    """All rows in order of id."""
    rows = Examples.concatenate([data.train, data.test])
    return rows.take(np.argsort(rows.ids))


@pytest.mark.parametrize(
    "loader", [Digits(), Digits(test=100), Synthetic(rows=70, test=30), Synthetic(rows=70, test=30, groups=7)]
)
def test_loading_is_a_function_of_the_generator(loader: DatasetLoader) -> None:
    first, second, third = (loader.load(np.random.default_rng(seed)) for seed in (0, 0, 1))
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(first, part).ids, getattr(second, part).ids)
        np.testing.assert_array_equal(getattr(first, part).inputs, getattr(second, part).inputs)
    assert not np.array_equal(first.test.inputs, third.test.inputs)
    for rows in (first.train, first.test):
        assert rows.inputs.dtype == np.float32
        assert rows.targets.dtype == rows.ids.dtype == np.int64
        assert 0 <= rows.inputs.min() <= rows.inputs.max() <= 1
        assert set(rows.targets.tolist()) <= set(range(first.num_classes))
    np.testing.assert_array_equal(everything(first).ids, np.arange(len(first.train) + len(first.test)))
    assert first.natural is None or first.natural.shape == (len(first.train),)


def test_digits_are_the_published_ones() -> None:
    rows = everything(Digits().load(np.random.default_rng(0)))
    images = (rows.inputs.reshape(1797, 64) * 16).astype(np.uint8)
    published = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    assert hashlib.sha256(images.tobytes()).hexdigest() == published
    assert np.bincount(rows.targets).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_other_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "_IMAGES_SHA256", "0" * 64)
    with pytest.raises(ComponentError, match="reinstall scikit-learn"):
        Digits().load(np.random.default_rng(0))


@pytest.mark.parametrize("count", [10, 100, 297, 1000, 1787])
def test_digits_test_set_is_stratified(count: int) -> None:
    sizes = np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    for seed in range(5):
        data = Digits(test=count).load(np.random.default_rng(seed))
        assert (len(data.train), len(data.test)) == (1797 - count, count)
        got = np.bincount(data.test.targets, minlength=10)
        assert np.all(np.abs(got - sizes * count / 1797) < 1)


def test_digits_forms_each_carry_the_common_sequence() -> None:
    """All forms ask for the same digits; a boundary that is off moves rows to a form that already has them."""
    data = Digits().load(np.random.default_rng(0))
    assert data.natural is not None
    form = np.full(1797, -1)
    form[data.train.ids] = data.natural
    assert set(data.natural.tolist()) == set(range(14))
    labels = everything(data).targets
    starts = digits._FORM_STARTS
    sequences = [labels[start:end].tolist() for start, end in pairwise(starts)]
    for number, (start, end) in enumerate(pairwise(starts)):
        assert set(form[start:end].tolist()) <= {number, -1}
        assert 122 <= end - start <= 130
        likeness = SequenceMatcher(None, sequences[0], sequences[number], autojunk=False).ratio()
        assert likeness > 0.96
        counts = np.bincount(sequences[number], minlength=10)
        assert 9 <= counts.min() <= counts.max() <= 14
    # One form lost its first 0.
    assert [sequence[:3] for sequence in sequences].count([0, 1, 2]) == 13


def test_synthetic_classes_are_as_far_apart_as_asked() -> None:
    data = Synthetic(rows=20000, shape=(6,), classes=2, separation=2.0).load(np.random.default_rng(0))
    centres = [data.train.inputs[data.train.targets == label].mean(0) for label in range(2)]
    assert [np.linalg.norm(centre - 0.5) for centre in centres] == pytest.approx([0.2, 0.2], abs=0.005)
    assert data.train.inputs[data.train.targets == 0].std(0) == pytest.approx(np.full(6, 0.1), rel=0.03)


@pytest.mark.parametrize("groups", [0, 3])
def test_synthetic_rows_do_not_depend_on_how_many_are_made_at_once(
    groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
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
