"""Tests of `fedmem/contracts/needs.py`."""

from __future__ import annotations

from fedmem.contracts.needs import needs_of
from fedmem.scenario.catalogue import build, kinds
from fedmem.scenario.describe import example


def test_the_shipped_probes_that_have_controls_say_so() -> None:
    needs = {kind: needs_of(build("probe", example("probe", kind))) for kind in kinds("probe")}
    assert all(needs[kind].compares_held_out for kind in ("leakage", "information", "extraction"))
    assert all(needs[kind].reads_gradients for kind in ("leakage", "information"))
    assert not any(needs[kind].compares_held_out or needs[kind].reads_gradients for kind in ("utility", "client_gap"))
