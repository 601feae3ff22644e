"""Tests of `fedmem/datasets/digits.py`."""

from __future__ import annotations

import hashlib
from difflib import SequenceMatcher
from itertools import pairwise

import numpy as np
import pytest

from fedmem.datasets import digits
from fedmem.datasets.digits import Digits
from fedmem.errors import ComponentError
from tests.datasets.datasets_helpers import everything


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


def test_digits_of_some_forms_are_those_of_all() -> None:
    whole, some = (Digits(test=50, forms=forms).load(np.random.default_rng(0)) for forms in (None, (2, 9)))
    assert some.natural is not None
    assert set(some.natural.tolist()) == {2, 9}
    rows, expected = everything(some), everything(whole)
    chosen = np.isin(expected.ids, rows.ids)
    assert np.array_equal(expected.inputs[chosen], rows.inputs[np.argsort(rows.ids)])
    assert len(rows) == 260


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"forms": (3, 14)}, "14"), ({"forms": ()}, "nothing is no form"), ({"forms": (1,)}, "lower test")],
)
def test_forms_that_do_not_serve_are_refused(fields: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(ComponentError, match=words):
        Digits(forms=fields["forms"]).load(np.random.default_rng(0))
