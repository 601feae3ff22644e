"""Tests of `fedmem/reporting/drawing.py`."""

from __future__ import annotations

from pathlib import Path

from fedmem.estimation.saturation import NOWHERE, SaturationZone
from fedmem.reporting.drawing import Line, local_against_global, over_rounds


def test_figures_shade_where_a_value_is_saturated(tmp_path: Path) -> None:
    def picture(value: float, zone: SaturationZone) -> bytes:
        line = Line(label="local", style="local", rounds=[0, 1], values=[1, value], lows=[1, 1], highs=[3, 3])
        return over_rounds("exposure", "bits", {"pattern": [line]}, "", zones={"pattern": zone}).png()

    assert picture(2.9, SaturationZone(top=2.8)) != picture(2.9, NOWHERE)
    assert picture(2.7, SaturationZone(top=2.8)) == picture(2.7, NOWHERE)

    def scatter(zone: SaturationZone) -> bytes:
        pairs = {"pattern": ([1.0, 2.9], [1.0, 2.0])}
        return local_against_global("exposure", "bits", pairs, 1.15, "", zones={"pattern": zone}).png()

    assert scatter(SaturationZone(top=2.8)) != scatter(NOWHERE)
    assert scatter(SaturationZone(top=3.0)) == scatter(NOWHERE)
