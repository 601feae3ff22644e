"""Tests of `fedmem/injections/random_pattern.py`."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.data import ClientData, Examples
from fedmem.contracts.reserve import Reserve
from fedmem.errors import ComponentError
from fedmem.injections.random_pattern import RandomPattern
from tests.injections.injections_helpers import CLASSES, pictures


@pytest.mark.parametrize(("values", "mean", "variance"), [("binary", 0.5, 1 / 4), ("uniform", 0.5, 1 / 12)])
def test_patterns_are_independent_pixels(values: Literal["binary", "uniform"], mean: float, variance: float) -> None:
    injection = RandomPattern(values=values)
    patterns = injection.references(4000, pictures(1, 6, 6), np.random.default_rng(0)).reshape(4000, 36)
    error = np.sqrt(variance / 4000)
    assert np.abs(patterns.mean(0) - mean).max() < 4.5 * error
    assert patterns.var(0) == pytest.approx(np.full(36, variance), rel=0.1)
    correlation = np.corrcoef(patterns.T) - np.eye(36)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_canaries_and_references_have_one_distribution() -> None:
    clients = [
        ClientData(
            client=0,
            examples=Examples(inputs=np.zeros((8, 40), np.float32), targets=np.zeros(8, np.int64), ids=np.arange(8)),
        )
    ]
    injection = RandomPattern(per_client=2000)
    injected = injection.plan(clients, Reserve(clients[0].examples), pictures(40), np.random.default_rng(0))
    references = injection.references(2000, pictures(40), np.random.default_rng(1))
    # Ones per pattern are binomial for both.
    assert stats.ks_2samp(injected.examples.inputs.sum(1), references.sum(1)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(injected.examples.targets, minlength=CLASSES)).pvalue > 1e-3
    by_label = [injected.examples.inputs[injected.examples.targets == label].mean() for label in range(CLASSES)]
    assert by_label == pytest.approx([0.5] * CLASSES, abs=0.02)


def test_binary_patterns_want_room() -> None:
    with pytest.raises(ComponentError, match=r"at least 32 values .*\(5,\).*write `values: uniform`"):
        RandomPattern().references(3, pictures(5), np.random.default_rng(0))
    assert RandomPattern(values="uniform").references(3, pictures(5), np.random.default_rng(0)).shape == (3, 5)
