"""Tests of `fedmem/defences/noise.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmem.defences.noise import Noise
from fedmem.errors import ScenarioError
from fedmem.training.defence_pipeline import DefencePipeline, Place
from tests.tiny import tiny


def test_noise_has_the_stated_standard_deviation() -> None:
    """The variance of n normal numbers, times (n - 1) / sigma^2, is chi-squared."""
    from scipy import stats

    model = {"w": torch.zeros(100_000)}
    noise = DefencePipeline([Noise(multiplier=0.3, norm=0.5)], seed=1)
    drawn = {name: rows[0] for name, rows in noise.draws(model, [Place(run=0, round=1, client=0)]).items()}
    found = noise.apply_defences(model, model, drawn)["w"].double().numpy()
    freedom = len(found) - 1
    low, high = (stats.chi2.ppf(level, df=freedom) / freedom for level in (1e-4, 1 - 1e-4))
    assert low < found.var(ddof=1) / 0.15**2 < high
    assert not low < found.var(ddof=1) / 0.16**2 < high
    assert abs(found.mean()) < 4 * 0.15 / np.sqrt(len(found))
    assert stats.kstest(found / 0.15, "norm").pvalue > 1e-3


def test_noise_norm_that_differs_from_the_clip_before_is_refused() -> None:
    clip, noise = {"kind": "clip", "norm": 0.5}, {"kind": "noise", "multiplier": 1.0}
    with pytest.raises(ScenarioError, match=r"defences\[1\].norm: noise is a multiple .* which is 0.5, not 1; write"):
        tiny(defences=[clip, noise])
    assert len(tiny(defences=[clip, {**noise, "norm": 0.5}]).defences) == 2
    assert len(tiny(defences=[noise, clip]).defences) == 2
