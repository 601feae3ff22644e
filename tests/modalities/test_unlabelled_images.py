"""Tests of `fedmem/modalities/unlabelled_images.py`."""

from __future__ import annotations

from fedmem.modalities.images import Images
from fedmem.modalities.modality import of_kind
from fedmem.modalities.unlabelled_images import UnlabelledImages


def test_rows_without_labels_have_one_output() -> None:
    assert UnlabelledImages().problem((1, 8, 8), 1) == ""
    assert "num_classes is 1, not 2" in UnlabelledImages().problem((1, 8, 8), 2)
    assert "images have shape" in UnlabelledImages().problem((8,), 1)


def test_only_rows_without_labels_ask_for_densities() -> None:
    assert of_kind("unlabelled_images") is UnlabelledImages
    assert (UnlabelledImages.densities, Images.densities) == (True, False)
    assert UnlabelledImages().is_binary
    assert not UnlabelledImages(binary=False).is_binary
    assert not Images().is_binary
