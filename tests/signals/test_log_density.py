"""Tests of `fedmem/signals/log_density.py`."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.errors import ScenarioError
from fedmem.federation import build as federations
from fedmem.signals.log_density import LogDensity
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny

PIXELS: dict[str, Any] = {
    "dataset": {"kind": "pixels", "levels": 2, "side": 2},
    "model": {"kind": "transformer", "width": 4, "heads": 1, "layers": 1},
    "injections": [{"kind": "typical"}],
    "sampler": {"kind": "everyone"},
    "population": 5,
}


def values(logits: FloatArray, targets: IntArray) -> dict[str, FloatArray]:
    """Of models with these logits (T, n, L, V)."""
    context: Any = SimpleNamespace(logits=lambda: logits, examples=SimpleNamespace(targets=targets))
    return dict(LogDensity().values(context))


def test_all_images_together_have_probability_one() -> None:
    """Brute force over the 16 binary images of 2 by 2 pixels, factor by factor."""
    bench = Bench(**PIXELS)
    params = bench.params(scale=0.8)
    images = np.array(list(itertools.product((0, 1), repeat=4)))
    inputs = np.concatenate([np.zeros((16, 1), dtype=np.int64), images[:, :-1]], axis=1)
    context = bench.context(bench.transition(params))
    logits = context.logits_of(inputs)
    found = values(logits, images)["log_density"][0]
    assert np.exp(found).sum() == pytest.approx(1)
    for image, log_p in zip(images.tolist(), found.tolist(), strict=True):
        p = 1.0
        for place in range(4):
            prefix = np.array([[0, *image[:place], *[0] * (3 - place)]])
            odds = np.exp(context.logits_of(prefix)[0, 0, place])
            p *= odds[image[place]] / odds.sum()
        assert log_p == pytest.approx(math.log(p))
    audit = bench.values(LogDensity(), params)["log_density"][0]
    numbers = bench.examples.targets @ np.array([8, 4, 2, 1])
    np.testing.assert_allclose(audit, found[numbers])


def test_leave_one_out_of_independent_pixels_is_closed_form() -> None:
    """Beta-Bernoulli: in − out = Σ log (k + 1) / (n + 2) − log k / (n + 1), with k rows that have the pixel of x."""
    rng = np.random.default_rng(0)
    rows = (rng.random((7, 5)) < [0.1, 0.3, 0.5, 0.7, 0.9]).astype(np.int64)

    def fitted(part: IntArray) -> FloatArray:
        one = (part.sum(axis=0) + 1) / (len(part) + 2)
        return np.asarray(np.log(np.stack([1 - one, one], axis=-1)))

    for j, row in enumerate(rows):
        logits = np.stack([fitted(rows), fitted(np.delete(rows, j, axis=0))])[:, None]
        inside, outside = values(logits, row[None])["log_density"][:, 0]
        same = (rows == row).sum(axis=0)
        assert inside - outside == pytest.approx((np.log((same + 1) / 9) - np.log(same / 8)).sum())
        assert inside - outside > 0


def test_bits_per_token_of_uniform_models_are_known() -> None:
    found = values(np.zeros((1, 2, 3, 4)), np.array([[0, 3, 1], [2, -1, -1]]))
    np.testing.assert_allclose(found["log_density"], [[-3 * math.log(4), -math.log(4)]])
    np.testing.assert_allclose(found["bits_per_token"], [[2.0, 2.0]])


def test_rows_without_tokens_and_broken_models_are_nan() -> None:
    logits = np.zeros((2, 2, 1, 2))
    logits[1] = np.nan
    found = values(logits, np.array([[-1], [0]]))
    assert np.isnan(found["log_density"]).tolist() == [[True, False], [True, True]]
    assert np.isnan(found["bits_per_token"]).tolist() == [[True, False], [True, True]]


def test_an_impossible_pixel_has_infinite_bits() -> None:
    found = values(np.array([[[[0.0, -np.inf]]]]), np.array([[1]]))
    assert found["log_density"].tolist() == [[-np.inf]]
    assert found["bits_per_token"].tolist() == [[np.inf]]


def test_labels_of_images_are_refused() -> None:
    with pytest.raises(ScenarioError, match="log_density reads the probabilities of tokens"):
        federations.build(tiny(signals=[{"kind": "log_density"}]))
