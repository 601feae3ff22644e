"""Tests of `fedmem/reporting/privacy_sections.py`."""

from __future__ import annotations

import math

import pytest

from fedmem.reporting.privacy_sections import _epsilon, mechanism
from tests.probes.mechanism_helpers import SERVERS, made, outcome


@pytest.mark.parametrize(
    ("epsilon", "said"),
    [(0.0001, "0.0001"), (0.0343, "0.034"), (0.0, "0.00"), (11.476, "11.48"), (1234.5, "1234.50"), (math.inf, "∞")],
)
def test_a_small_epsilon_is_never_shown_as_nothing(epsilon: float, said: str) -> None:
    assert _epsilon(epsilon) == said


def test_mechanism_section_reports_tests_and_alarms() -> None:
    scenario = made(strategy=SERVERS["dp_fedavg"])
    healthy, quiet = outcome(scenario, "healthy"), outcome(scenario, "noise_10")
    assert not mechanism(healthy[1]).notes
    section = mechanism(quiet[1])
    assert section.title == "MECHANISM"
    ((_, lines),) = section.blocks
    assert lines[0][0] == "global: all 9 tests together"
    assert "The global mechanism is not the stated one" in section.notes[0]
    silent = made(strategy=SERVERS["dp_fedavg"], probes=[{"kind": "mechanism", "alarm": False}])
    assert not outcome(silent, "noise_10")[0]
