"""Tests of `fedmem/apps/attack_scores.py`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedmem.apps.attack_scores import scores

RNG = np.random.default_rng


def images(*values: float) -> NDArray[np.float32]:
    return np.array([[value] * 4 for value in values], dtype=np.float32)


def test_scores_match_images_and_compare_with_prior_and_gallery() -> None:
    truth, gallery = images(0.1, 0.9), images(0.3, 0.4)
    first, second = scores(images(0.8, 0.1), truth, gallery, RNG(0))
    assert (first.place, second.place) == (1, 0)
    assert first.psnr == 100
    np.testing.assert_allclose(second.psnr, 20, rtol=1e-5)
    # for the first the gallery's .3 is the nearest of the priors, for the second grey
    np.testing.assert_allclose(first.margin, 100 + 20 * np.log10(0.2), rtol=1e-5)
    np.testing.assert_allclose(second.margin, 20 + 20 * np.log10(0.4), rtol=1e-5)
    assert (first.identified, second.identified) == (1, 1)
    far, near = scores(images(0.35, 0.35), truth, gallery, RNG(0))
    assert (far.identified, near.identified) == (0, 0)
    assert far.margin < 0
    assert np.isnan(scores(images(0.1), truth[:1], gallery[:0], RNG(0))[0].identified)


def test_tie_with_the_gallery_is_not_identified() -> None:
    assert scores(images(0.5), images(0.25), images(0.75), RNG(0))[0].identified == 0
