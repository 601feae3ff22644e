"""Tests of `fedmem/datasets/pixels.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.datasets.cylinder_bell_funnel import CylinderBellFunnel
from fedmem.datasets.digits import Digits
from fedmem.datasets.pixels import Pixels, quantise
from fedmem.errors import ComponentError
from fedmem.modalities.pixels import Pixels as PixelModality
from tests.narrowing import instance, present


@pytest.mark.parametrize("levels", [2, 9, 17, 62])
def test_tokens_give_back_the_image(levels: int) -> None:
    """Up to half a level; 17 levels keep the digits, which have as many."""
    images, data = (loader.load(np.random.default_rng(0)) for loader in (Digits(), Pixels(levels=levels)))
    modality = instance(data.modality, PixelModality)
    for rows, tokens in ((images.train, data.train), (images.test, data.test)):
        found = modality.images(modality.comparison_rows(tokens.inputs, tokens.targets))
        assert found.shape == rows.inputs.shape
        error = np.abs(found - rows.inputs).max()
        assert error == 0 if levels == 17 else 0 < error <= 0.5 / (levels - 1) + 1e-6


def test_owners_and_classes_are_those_of_the_images() -> None:
    images, data = Digits().load(np.random.default_rng(3)), Pixels(side=2).load(np.random.default_rng(3))
    np.testing.assert_array_equal(present(data.natural), present(images.natural))
    np.testing.assert_array_equal(data.columns["class"], images.train.targets)
    np.testing.assert_array_equal(data.train.ids, images.train.ids)
    np.testing.assert_array_equal(data.test.ids, images.test.ids)
    assert len(data.text_starts) == len(images.train) + len(images.test)


def test_a_pixel_is_predicted_from_those_before_it() -> None:
    data = Pixels(levels=5, side=4).load(np.random.default_rng(0))
    assert (data.train.inputs[:, 0] == 0).all()
    np.testing.assert_array_equal(data.train.inputs[:, 1:], data.train.targets[:, :-1])
    assert data.num_classes == 5
    assert data.train.targets.max() == 4


def test_channels_rows_and_columns_come_in_this_order() -> None:
    image = np.arange(8).reshape(1, 2, 2, 2) / 7
    assert quantise(image, (2, 2, 2), 8).tolist() == [list(range(8))]
    blocks = np.array([[[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]])
    assert quantise(blocks, (1, 1, 2), 5).tolist() == [[2, 4]]


def test_values_outside_are_cut_and_halves_go_up() -> None:
    assert quantise(np.array([[[-0.2, 1.7]], [[0.25, 0.75]]]), (1, 1, 2), 3).tolist() == [[0, 2], [1, 2]]


def test_names_of_classes_become_the_column(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    loaded = Digits().load(np.random.default_rng(0))
    named = replace(loaded, class_names=tuple("abcdefghij"))
    monkeypatch.setattr(Digits, "load", lambda self, rng: named)
    data = Pixels().load(np.random.default_rng(0))
    assert data.columns["class"].tolist() == ["abcdefghij"[label] for label in loaded.train.targets]
    assert data.class_names == ()


def test_other_data_and_sides_are_refused() -> None:
    with pytest.raises(ComponentError, match="pixels reads images, but the data are series"):
        Pixels(images=CylinderBellFunnel()).load(np.random.default_rng(0))
    with pytest.raises(ComponentError, match="no 3 equal blocks on a side; use a divisor of 8"):
        Pixels(side=3).load(np.random.default_rng(0))
