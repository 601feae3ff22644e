"""Tests of `fedmem/federation/parameter_counts.py`, and of where a finished run shows the counts."""

from __future__ import annotations

from pathlib import Path

import fedmem
from fedmem.execution.run import run
from fedmem.federation.build import build
from fedmem.federation.parameter_counts import count_parameters
from fedmem.reporting.origin import origin
from fedmem.reporting.page import report
from fedmem.scenario.scenario import Scenario
from tests.normalised import normed
from tests.tiny import tiny


def counts(scenario: Scenario) -> dict[str, int]:
    return dict(count_parameters(build(scenario), scenario.client))


def test_networks_that_are_trained_and_sent_whole_have_no_counts(tmp_path: Path) -> None:
    assert counts(tiny()) == {}
    assert counts(normed("averaged")) == {}
    finished = fedmem.read(run(tiny(), out=tmp_path))
    assert "parameters" not in finished.manifest
    assert len(origin(finished)) == 2


def test_local_norms_stay_with_clients_statistics_included() -> None:
    scenario = normed("local")
    local = counts(scenario)
    whole = sum(value.numel() for value in build(scenario).model.parameters())
    assert local == {"trained": whole, "frozen": 0, "by_norm": 4 * 8, "by_client": 0}


def test_a_finished_run_says_what_was_frozen_and_what_stayed(tmp_path: Path) -> None:
    scenario = normed("local", freeze=["1.*"])
    expected = counts(scenario)
    assert expected["frozen"] > 0
    folder = run(scenario, out=tmp_path)
    finished = fedmem.read(folder)
    assert finished.manifest["parameters"] == expected
    text = f"Parameters: {expected['trained']:,} trained / {expected['frozen']:,} frozen / 32 stay with clients (norm: "
    assert origin(finished)[1].startswith(text)
    assert text in report(folder).read_text()
