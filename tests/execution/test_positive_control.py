"""The positive control of an audit: what it trains, what it says, and that it changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmem
from fedmem.cli.plan_text import check_file, plan_text
from fedmem.execution.bank import simulate
from fedmem.execution.positive_control import METRIC, without_noise
from fedmem.execution.run import measure, run
from fedmem.federation.build import build
from fedmem.reporting.privacy_sections import audits
from fedmem.scenario.loading import load_scenario
from tests.broken_mechanisms import broken
from tests.tiny import tiny

SHIPPED = Path(__file__).resolve().parents[2] / "scenarios" / "audit.yaml"
SMALL = ["dataset.shape=[120]", "injections[0].per_client=120", "client.batch_size=12", "rounds=3", "probes=[]"]
WEAK = {"kind": "random_pattern", "per_client": 12}


def small(*changes: str) -> Any:
    """The shipped audit with a tenth of its records."""
    return load_scenario(SHIPPED, [*SMALL, "estimators[0].guesses=0.6", *changes])


def test_an_audit_that_finds_no_noise_has_power(tmp_path: Path) -> None:
    folder = run(small(), out=tmp_path)
    finished = fedmem.read(folder)
    told_of = finished.manifest["positive_control"]
    assert told_of["power"] is True
    assert told_of["epsilon_hat"] > told_of["permitted"]
    assert not finished.manifest["alarms"]
    values = finished.measurements.set_index("metric").value
    assert values[METRIC] == told_of["epsilon_hat"]
    # what it finds is what the scenario without noise gives
    quiet = fedmem.read(run(small("client.noise_multiplier=0", "estimators[0].control=false"), out=tmp_path))
    rows = quiet.measurements
    assert values[METRIC] == rows[(rows.metric == "epsilon_hat") & (rows["round"] == 3)].value.item()
    section = audits(finished.rows())
    assert "raises the alarm on a mechanism without noise" in section.notes[0]
    before = finished.measurements
    measure(folder)
    assert fedmem.read(folder).measurements.equals(before)


def test_positive_control_changes_no_other_number(tmp_path: Path) -> None:
    one, other = (fedmem.read(run(small(f"estimators[0].control={on}"), out=tmp_path)) for on in ("true", "false"))
    rows = one.measurements
    assert other.manifest["positive_control"] is None
    assert rows[rows.metric != METRIC].reset_index(drop=True).equals(other.measurements)


def weak(**audit: Any) -> Any:
    """Canaries that share weights, at an epsilon that they cannot reach."""
    return tiny(
        injections=[WEAK],
        strategy={"kind": "dp_fedavg", "expected_cohort_size": 2.5, "noise_multiplier": 2.0},
        sampler={"kind": "poisson", "rate": 0.5},
        estimators=[{"kind": "audit", "example_kind": "random_pattern", "alarm": True, **audit}],
    )


def test_audit_that_misses_absent_noise_reports_no_power(tmp_path: Path) -> None:
    finished = fedmem.read(run(weak(), out=tmp_path))
    assert finished.manifest["positive_control"]["power"] is False
    assert finished.manifest["positive_control"]["runs"] == 1
    (note,) = audits(finished.rows()).notes
    assert note.startswith("NO POWER: the same scenario without noise gives epsilon >=")


def test_counts_over_runs_have_a_control_of_all_runs(tmp_path: Path) -> None:
    finished = fedmem.read(run(weak(method="over_runs"), out=tmp_path))
    assert finished.manifest["positive_control"]["runs"] == 4


def test_noise_of_clients_is_left_out_and_clips_stay() -> None:
    defended = tiny(
        injections=[WEAK],
        defences=[{"kind": "clip", "norm": 0.5}, {"kind": "noise", "norm": 0.5, "multiplier": 1.0}],
        estimators=[{"kind": "audit", "example_kind": "random_pattern", "alarm": True}],
    )
    assert [type(one).__name__ for one in without_noise(defended).defences] == ["Clip"]
    quiet: Any = without_noise(small())
    assert quiet.client.per_example.noise_multiplier == 0
    assert quiet.client.per_example.clip == small().client.per_example.clip


def test_check_prints_the_cost_of_the_positive_control(tmp_path: Path) -> None:
    file = tmp_path / "audit.yaml"
    file.write_text(SHIPPED.read_text())
    text = " ".join(plan_text(check_file(file, SMALL)).split())
    assert "the audit of isolated trains 1 run more without noise, its positive control: about 3 local" in text
    assert "control" not in plan_text(check_file(file, [*SMALL, "estimators[0].control=false"]))


@pytest.mark.parametrize("name", ["no_noise", "noise_10"])
def test_control_is_unchanged_by_a_broken_mechanism(name: str, tmp_path: Path) -> None:
    """A broken mechanism is found by the audit, and its control is what it would have been."""
    healthy = fedmem.read(run(small(), out=tmp_path)).manifest
    with broken(name):
        found = fedmem.read(run(small(), out=tmp_path, force=True)).manifest
    assert any(alarm.startswith("audit of isolated") for alarm in found["alarms"])
    assert found["positive_control"]["epsilon_hat"] == healthy["positive_control"]["epsilon_hat"]


def test_isolated_out_examples_get_equal_rows_of_other_labels() -> None:
    """In or out, the holder has the same inputs and as many rows; the label of an out example is another."""
    scenario = tiny(
        injections=[{"kind": "isolated", "per_client": 3, "copies": 2}, {"kind": "typical", "per_client": 2}], runs=4
    )
    federation = build(scenario)
    audit, store = federation.audit, federation.store
    assert len(set(store.ids.tolist())) == len(store.ids)
    for run_number in range(4):
        for subject in np.flatnonzero(audit.kind == "isolated"):
            client = int(audit.owner[subject])
            rows = federation.rows(run_number, client, 1)
            same = rows[(store.inputs[rows] == audit.examples.inputs[subject]).all(axis=(1, 2, 3))]
            own = store.targets[same] == audit.examples.targets[subject]
            assert len(same) == 2
            assert own.all() if audit.is_in[run_number, subject] else not own.any()
    sizes = {len(federation.rows(run_number, 0, 1)) for run_number in range(4)}
    assert len(sizes) == 1
    # they take no row of the data
    without = tiny(injections=[{"kind": "typical", "per_client": 2}], runs=4)
    assert build(without).counts == federation.counts
    assert simulate(scenario, federation).bank.audit is audit
