"""Tests of `fedmem/signals/_softmax.py`."""

from __future__ import annotations

import numpy as np

from fedmem.signals._softmax import by_example, labels_among, log_probabilities


def test_probabilities_of_large_logits_stay_finite() -> None:
    assert log_probabilities(np.array([[1e4, 0.0]])).tolist() == [[0.0, -1e4]]


def test_labels_of_places_that_are_not_asked_stand_for_nothing() -> None:
    targets = np.array([[2, -1]])
    logits = np.arange(6.0).reshape(1, 1, 2, 3)
    own = np.take_along_axis(logits, labels_among(logits, targets), axis=-1)[..., 0]
    assert by_example(own, targets).tolist() == [[2.0]]
