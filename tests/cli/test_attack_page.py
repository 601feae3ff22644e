"""Tests of `fedmem/cli/attack_page.py`."""

from __future__ import annotations

import numpy as np

from fedmem.cli.attack_page import attack_page
from fedmem.modalities.images import Images
from fedmem.reporting.drawing import ImageRow


def test_outcome_comes_first_then_images_settings_and_limits() -> None:
    image = np.zeros((1, 4, 4), dtype=np.float32)
    known = ImageRow(
        original=image, reconstruction=image, prior=image + 0.5, label="0", caption="9 dB", draw=Images.draw
    )
    blind = ImageRow(original=None, reconstruction=image, prior=image, label="1", caption="", draw=Images.draw)
    lines = ["granted to the adversary: all", "identified 1 of 1"]
    text = attack_page(lines, [known, blind], {"model": "<net>", "versions": {"fedmem": "0.1"}}, total=5).decode()
    parts = (
        "Granted to the adversary: all.",
        "Identified 1 of 1.",
        "reconstruction of 0",
        "9 dB",
        "&lt;net&gt;",
    )
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "The first 2 of 5, not the best ones." in text
    assert text.count('alt="original') == 1, "what is not known is not shown"
    assert text.count('alt="reconstruction') == 2
