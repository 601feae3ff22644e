from __future__ import annotations

import numpy as np
import pytest

from fedmem.modalities.images import Images, ssim


def test_ssim_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    images, truth = rng.random((2, 2, 2, 8, 9), dtype=np.float32)
    bell = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(bell, bell) / bell.sum() ** 2
    expected = []
    for pair in zip(images.astype(np.float64), truth.astype(np.float64), strict=True):
        values = []
        for one in zip(*pair, strict=True):
            x, y = (np.pad(channel, 5, mode="reflect") for channel in one)
            for top, left in np.ndindex(8, 9):
                a, b = (part[top : top + 11, left : left + 11] for part in (x, y))
                first, second = (window * a).sum(), (window * b).sum()
                spread = (window * (a - first) ** 2).sum() + (window * (b - second) ** 2).sum()
                shared = (window * (a - first) * (b - second)).sum()
                bright = (2 * first * second + 0.01**2) / (first**2 + second**2 + 0.01**2)
                values.append(bright * (2 * shared + 0.03**2) / (spread + 0.03**2))
        expected.append(np.mean(values))
    assert ssim(images, truth) == pytest.approx(expected, abs=1e-9)
    assert ssim(truth, truth) == pytest.approx([1.0, 1.0])
    assert ssim(1 - truth, truth).max() < 0, "a negative is unlike"
    assert np.isnan(ssim(truth[..., :5], truth[..., :5])).all()
    assert np.isnan(ssim(truth[:, 0, 0], truth[:, 0, 0])).all()
    assert len(ssim(truth[:0], truth[:0])) == 0


def test_a_sketch_is_the_image_in_shades() -> None:
    image = np.zeros((3, 28, 28), dtype=np.float32)
    image[:, :14] = 1.0
    assert Images().sketch(image) == ("█" * 28,) * 7 + (" " * 28,) * 7
    assert Images().sketch(np.array([[0.0, 0.5], [1.0, 0.3]], np.float32)) == ("  ▒▒", "██░░")
