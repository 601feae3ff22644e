"""Tests of `fedmem/datasets/unlabelled.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.contracts.validation import dataset_of
from fedmem.datasets.cylinder_bell_funnel import CylinderBellFunnel
from fedmem.datasets.digits import Digits
from fedmem.datasets.unlabelled import Unlabelled
from fedmem.errors import ComponentError
from fedmem.guards.guarding import Guard


def test_only_labels_are_left_out() -> None:
    labelled = Digits().load(np.random.default_rng(0))
    data = Unlabelled(dataset=Digits(), threshold=None).load(np.random.default_rng(0))
    for rows, others in ((data.train, labelled.train), (data.test, labelled.test)):
        np.testing.assert_array_equal(rows.inputs, others.inputs)
        np.testing.assert_array_equal(rows.ids, others.ids)
        assert not rows.targets.any()
    assert (data.num_classes, data.modality.kind, data.modality.is_binary) == (1, "unlabelled_images", False)
    np.testing.assert_array_equal(data.natural, labelled.natural)
    dataset_of(Guard("dataset", Unlabelled(dataset=Digits()), "load"), data)


def test_pixels_above_the_threshold_are_one() -> None:
    grey = Digits().load(np.random.default_rng(0)).train.inputs
    inputs = Unlabelled(dataset=Digits(), threshold=0.25).load(np.random.default_rng(0)).train.inputs
    np.testing.assert_array_equal(inputs, (grey > 0.25).astype(np.float32))
    assert inputs.dtype == np.float32


@pytest.mark.parametrize("dataset", [CylinderBellFunnel(), Unlabelled(dataset=Digits())])
def test_other_data_are_refused(dataset: object) -> None:
    with pytest.raises(ComponentError, match="unlabelled reads images with labels"):
        Unlabelled(dataset=dataset).load(np.random.default_rng(0))  # type: ignore[arg-type]
