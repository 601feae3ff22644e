"""Tests of `fedmem/studies/figures.py`."""

from __future__ import annotations

from fedmem.estimation.saturation import NOWHERE, SaturationZone
from fedmem.studies.figures import draw_all
from tests.estimation.saturation_helpers import SHARP, compared


def test_figures_of_a_comparison_shade_them() -> None:
    pictures = [
        {name: drawing.png() for name, drawing, _ in draw_all(compared(SHARP, zone))}
        for zone in (SaturationZone(top=7.7), NOWHERE)
    ]
    assert pictures[0]["exposure_rounds"] != pictures[1]["exposure_rounds"]
