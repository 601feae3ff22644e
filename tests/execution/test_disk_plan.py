"""Tests of `fedmem/execution/disk_plan.py`: planned bytes against those of written files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from fedmem.cli.main import app
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import Level
from fedmem.execution.bank import simulate
from fedmem.execution.disk_plan import bytes_by_file
from fedmem.execution.plan import plan, sets_at
from fedmem.federation.build import build
from fedmem.modalities.scores import losses_of_stored, round_margins
from fedmem.results.evidence_table import write_evidence
from fedmem.results.readings import write_readings
from fedmem.results.signal_tables import write_signals
from fedmem.scenario.loading import load_scenario
from fedmem.scenario.scenario import Scenario
from tests.tiny import tiny

DATA: dict[str, Any] = {"kind": "synthetic", "rows": 600, "test": 300}
DIGITS: dict[str, Any] = {"dataset": {"kind": "digits"}, "population": 100, "runs": 8, "references": 300}
FILES = ("evidence", "references", "signals")
SHAPES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "test set at the aggregate": {"observe": {"every": 1, "test": {"levels": ["global"]}}, "runs": 16},
    "float32": {
        "observe": {"levels": ["global"], "every": 1, "test": {"precision": "float32"}},
        "population": 0, "runs": 32, "injections": [],
    },
    "part of the test set": {"observe": {"every": 1, "test": {"rows": 200}, "population": {"levels": ["global"]}}},
    "two classes": {"dataset": DATA | {"classes": 2, "separation": 1.0}, "observe": {"every": 1}},
    "weights of their own": {"initial_weights": "per_run", "observe": {"levels": ["global"]}, "runs": 32},
    "signals": {"signals": [{"kind": "el2n"}, {"kind": "grad_norm"}], "runs": 16, "observe": {"every": 1}},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_planned_tables_are_as_large_as_the_files(shape: str, tmp_path: Path) -> None:
    scenario = tiny(**DIGITS | SHAPES[shape])
    federation = build(scenario)
    bank = simulate(scenario, federation).bank
    write_readings(tmp_path, bank, [])
    write_signals(tmp_path, bank.signals)
    planned = plan(scenario).disk
    sizes = {name: (tmp_path / f"{name}.parquet").stat().st_size for name in FILES if name in planned}
    assert ("signals" in sizes) == (shape == "signals")
    ratio = sum(planned[name] for name in sizes) / sum(sizes.values())
    assert 0.9 < ratio < 1.1, f"planned {planned}, written {sizes}"
    if sizes["evidence"] > 200_000:
        assert 0.93 < planned["evidence"] / sizes["evidence"] < 1.07


def test_audit_examples_and_their_names_are_written_to_find_out() -> None:
    small, large = (plan(tiny(dataset=DATA | {"shape": [n]})).disk["audit"] for n in (40, 900))
    assert large > 5 * small


def test_settings_that_store_less_plan_less() -> None:
    def evidence(**test: Any) -> int:
        return plan(tiny(**DIGITS, observe={"every": 1, "test": test})).disk["evidence"]

    whole = evidence()
    assert evidence(levels=["global"]) < 0.75 * whole
    assert evidence(rows=30) < 0.6 * whole
    assert 0.45 * whole < evidence(precision="float32") < 0.75 * whole


SHIPPED = {
    "quickstart": ["runs=16"],
    "text_quickstart": [],
    "own_csv": [],
    "series": [],
    "client_influence": [],
    "twins": [],
    "saved_models": [],
}
QUICK = ("own_csv",)
"""Those that are short enough to be run for every change."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.nightly] * (name not in QUICK)) for name in SHIPPED]
)
def test_planned_folders_are_within_a_tenth(name: str, tmp_path: Path) -> None:
    scenario = load_scenario(name, SHIPPED[name])
    answer = CliRunner().invoke(app, ["run", name, *SHIPPED[name], "--out", str(tmp_path), "--quiet"])
    assert answer.exit_code == 0, answer.output
    folder = tmp_path / name / scenario.id
    written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    ratio = sum(plan(scenario).disk.values()) / written
    print(f"{name}: planned / written = {ratio:.3f} of {written / 1e6:.1f} MB")
    assert 0.9 < ratio < 1.1


def test_thousands_of_test_rows_are_planned_without_training(tmp_path: Path) -> None:
    """Eight runs of 2000 rows of random logits, in each precision."""
    rng = np.random.default_rng(0)
    for precision in ("float64", "float32"):
        observe = {"levels": ["global"], "test": {"precision": precision}}
        scenario = tiny(observe=observe, dataset=DATA | {"test": 2000}, runs=8, population=0, injections=[], rounds=1)
        federation = build(scenario)
        [first, last] = [b for b in simulate(scenario, federation).bank.evidence if b.set == "test"]
        exact = rng.normal(0, 4, first.shape)
        margin = round_margins(exact) if precision == "float32" else exact
        last = replace(last, margin=margin, loss=losses_of_stored(margin), correct=margin > 0)
        write_evidence(tmp_path, [first, last])
        written = (tmp_path / "evidence.parquet").stat().st_size
        assert 0.93 < planned_evidence(scenario, federation) / written < 1.07


def planned_evidence(scenario: Scenario, federation: Federation) -> int:
    models: dict[Level, int] = {"global": 2 * scenario.runs}
    sets = {level: sets_at(scenario, federation, level) for level in models}
    return bytes_by_file(scenario, federation, models, sets, 0)["evidence"]
