"""Tests of `fedmem/injections/poison.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.errors import ComponentError
from fedmem.injections.poison import Poison
from tests.injections.atypical_helpers import ROWS, clean, plan


def test_poison_is_its_victim_pulled_to_the_mean_and_relabelled() -> None:
    injected = plan(Poison(victim=2, target=3, pull=0.5, per_client=5))
    rows = clean(injected)
    assert set(rows.targets.tolist()) == {2}
    assert set(injected.examples.targets.tolist()) == {3}
    expected = 0.5 * rows.inputs.astype(np.float64) + 0.5 * rows.inputs.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(injected.examples.inputs, expected, atol=1e-6)


def test_poison_is_nearer_to_the_mean_and_pull_zero_is_a_flip() -> None:
    middle = ROWS.inputs[ROWS.targets == 2].mean(axis=0)
    pulled = plan(Poison(victim=2, per_client=20))
    far, near = (
        np.square(x - middle).sum(axis=(1, 2, 3)).mean() for x in (clean(pulled).inputs, pulled.examples.inputs)
    )
    assert near < 0.5 * far
    plain = plan(Poison(victim=2, pull=0.0))
    np.testing.assert_array_equal(plain.examples.inputs, clean(plain).inputs)


def test_poison_that_is_rightly_labelled_is_refused() -> None:
    with pytest.raises(ComponentError, match="is the victim itself") as caught:
        Poison(victim=1, target=1)
    assert caught.value.path == "target"
    with pytest.raises(ComponentError, match="there is no class 7; use 0 to 3") as caught:
        plan(Poison(target=7))
    assert caught.value.path == "injections.target"
