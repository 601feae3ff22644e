"""Tests of `fedmem/probes/_leak_measures.py`."""

from __future__ import annotations

from collections import Counter

from fedmem.probes import _leak_measures
from fedmem.probes.extraction import Extraction
from fedmem.probes.information import Information
from fedmem.probes.leakage import Leakage


def test_each_measure_belongs_to_one_probe() -> None:
    declared = [one.name for probe in (Leakage, Extraction, Information) for one in probe.measures]
    assert [name for name, count in Counter(declared).items() if count > 1] == []


def test_proxies_and_extraction_state_what_they_are_not() -> None:
    measures = {one.name: one for one in (*_leak_measures.EXTRACTED, *_leak_measures.INFORMATION)}
    lacking = [name for name, one in measures.items() if not one.is_not]
    assert lacking == ["draws_needed"]
