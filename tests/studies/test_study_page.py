"""Tests of `fedmem/studies/study_page.py`."""

from __future__ import annotations

from dataclasses import replace

from fedmem.estimation.saturation import NOWHERE
from fedmem.studies.study_page import page, verdict
from tests.estimation.saturation_helpers import SHARP, compared


def test_verdict_names_the_significant_differences() -> None:
    first, second = verdict(compared(SHARP, NOWHERE))
    assert first == "1 of 1 difference is significant with 4 seeds, after adjustment for the number of tests."
    assert second.startswith("Exposure (canary, global) is lower (few seeds) with fedmedian than with fedavg: −0.200 [")
    assert second.endswith("] bits.")


def test_verdict_flips_with_the_values() -> None:
    turned = verdict(compared(SHARP[::-1], NOWHERE))
    assert "is higher (few seeds) with fedmedian than with fedavg: 0.200 [" in turned[1]
    alike = verdict(compared([[8.0, 7.0, 9.0, 6.0], [7.0, 8.0, 6.5, 9.0]], NOWHERE))
    assert alike == ["None of 1 difference is significant with 4 seeds."]
    assert "With one seed" in verdict(compared([[8.0], [7.0]], NOWHERE))[0]
    swept = replace(compared(SHARP, NOWHERE), reference=(0, 1))
    assert verdict(swept) == [], "a sweep compares nothing"


def test_the_page_has_the_verdict_before_the_figure() -> None:
    text, figures = page(compared(SHARP, NOWHERE), "digits · compare-01", ["broken"])
    order = ("failed and left out: broken", "1 of 1 difference", "The answer in one figure", "Contents", "How to cite")
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert set(figures) == {"exposure_rounds"}
    assert all(data.startswith(b"\x89PNG") for data in figures.values())
    assert (text, figures) == page(compared(SHARP, NOWHERE), "digits · compare-01", ["broken"])
