"""Tests of `fedmem/privacy/spending.py`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fedmem
from fedmem.contracts.evidence import Participation
from fedmem.contracts.measurement import NO_CLIENT, Labels, Measurement, Reading
from fedmem.estimators.audit import Audit
from fedmem.execution.run import measure, run
from fedmem.guards.guarding import PartError
from fedmem.privacy import spending
from fedmem.privacy.accounting import guarantee_of
from fedmem.privacy.spending import SOURCE, checked_rows
from fedmem.reporting.table import table
from tests.privacy.mechanisms_helpers import NOISY, only, private


def test_without_amplification_each_client_is_charged_its_rounds() -> None:
    scenario = private(sampler={"kind": "cyclic", "size": 2}, strategy={**NOISY, "expected_cohort_size": 2.0}, rounds=4)
    there = [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (0, 3), (1, 4), (2, 4)]
    parts = [
        Participation(run=run, round=round_number, client=client, num_examples=5, failed=False)
        for client, round_number in there
        for run in (0, 1)
    ]
    bank: Any = SimpleNamespace(participation=parts)
    rows = list(spending.epsilon_rows(scenario, bank))
    own = {row.client: row.reading for row in rows if row.round is None}
    assert {client: reading.n for client, reading in own.items()} == {0: 2, 1: 2, 2: 2, 3: 1, 4: 1}
    one = guarantee_of(replace(only(scenario), count=1)).epsilon
    assert own[3].value == one < own[0].value
    assert all(row.reading.labels.get("adjacency") == "zero_out" for row in rows)
    last = next(row for row in rows if row.round == 4)
    assert (last.client, last.reading.n, last.level) == (NO_CLIENT, 4, "global")
    assert last.reading.value > own[0].value


def test_run_reports_its_privacy_guarantee(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(private(estimators=[], probes=[{"kind": "utility"}]), out=tmp_path)
    finished = fedmem.read(folder)
    (told,) = finished.manifest["privacy"]["mechanisms"]
    assert told["epsilon"] == guarantee_of(only(private())).epsilon == min(told["bounds"].values())
    rows = finished.measurements[finished.measurements.source == "privacy"]
    assert rows["round"].tolist() == [2, 4]
    assert rows.value.is_monotonic_increasing
    assert rows.value.iloc[-1] == told["epsilon"]
    about = rows.iloc[0]
    assert (about["part"], about["unit"], about["adjacency"]) == ("strategy", "client", "add_remove")
    assert (about["sampling"], about["rate"], about["delta"]) == ("poisson", 0.5, 1e-5)
    before = finished.measurements
    # what an earlier version stored is replaced when it is measured again
    stored = json.loads((folder / "manifest.json").read_text())
    wrong = {**told, "epsilon": 0.1}
    changed = {**stored, "privacy": {**stored["privacy"], "mechanisms": [wrong]}, "alarms": ["audit of x: old", "kept"]}
    (folder / "manifest.json").write_text(json.dumps(changed))
    measure(folder)
    assert fedmem.read(folder).measurements.equals(before)
    again = fedmem.read(folder).manifest
    assert again == {**stored, "alarms": ["kept"]}
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(folder))
    assert "PRIVACY" in captured.get()
    # what the accountant writes is checked like what components return
    monkeypatch.setattr(spending, "ROW_LABELS", ())
    with pytest.raises(PartError, match=r"source privacy failed in rows: .* which it does not declare"):
        measure(folder)
    assert "client, add_remove" in captured.get()


def test_row_with_a_label_that_nobody_declares_is_refused() -> None:
    reading = Reading(metric="epsilon", value=1.0, labels=Labels.of(accountant="prv", rate=0.5))
    row = Measurement(run=None, round=2, level="global", client=NO_CLIENT, source=SOURCE, reading=reading)
    assert checked_rows([row], []) == [row]
    coloured = replace(row, reading=replace(reading, labels=Labels.of(colour="red")))
    with pytest.raises(PartError, match=r"source privacy failed in rows: it gave 'epsilon' the label 'colour'.*rate"):
        checked_rows([coloured], [])
    beside = replace(reading, metric="epsilon_hat.permitted", labels=Labels.of(thresholds=2))
    with pytest.raises(PartError, match=r"the measure 'epsilon_hat\.permitted', which it does not declare"):
        checked_rows([replace(row, reading=beside)], [])
    assert checked_rows([replace(row, reading=beside)], [Audit()])
