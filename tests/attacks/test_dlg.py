"""Tests of `fedmem/attacks/dlg.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from fedmem.attacks.dlg import DLG
from tests.lab import digits, network, parameters, target_of


def test_label_is_found_with_the_image_and_not_granted() -> None:
    model, rows = network(nn.Sigmoid), digits().take(np.array([3]))
    target = replace(target_of(model, parameters(model), rows), labels=rows.targets + 1)
    assert DLG().knows == ()
    (found,) = DLG(steps=200).reconstruct([target], [np.random.default_rng(0)])
    assert found.labels.tolist() == rows.targets.tolist()
    assert np.abs(found.inputs - rows.inputs).max() < 0.01
    assert 0 <= found.distance < 1e-4


def test_more_steps_reach_a_smaller_distance() -> None:
    model, rows = network(nn.Sigmoid), digits().take(np.array([3]))
    target = target_of(model, parameters(model), rows)
    few, many = (DLG(steps=n).reconstruct([target], [np.random.default_rng(0)])[0].distance for n in (3, 100))
    assert many < 0.1 * few
