"""Tests of `fedmem/reporting/privacy_sections.py`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fedmem.contracts.measurement import Measurement
from fedmem.reporting.measures import shipped_measures
from fedmem.reporting.privacy_sections import _epsilon, _guarantee_section, audits, bounds, mechanism, target_epsilon
from fedmem.results.read import read
from tests.probes.mechanism_helpers import SERVERS, made, outcome
from tests.reporting.page_helpers import SCENARIO, row
from tests.results.read_helpers import bank, write


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


def bound_rows(local: float, whole: float) -> list[Measurement]:
    found = []
    for level, place, epsilon in (("local", "place=owner", local), ("global", "", whole)):
        about = "unit=record adjacency=replace copies=1 delta=0.0001 part=client"
        found += [
            row("memorisation", 0.01, "isolated", place, level=level),
            row("memorisation.bound", 0.945, "isolated", place, level=level),
            row("epsilon.permitted", epsilon, "isolated", about, level=level),
        ]
    return found


def test_bounds_name_epsilon_delta_and_neighbours() -> None:
    section = bounds(bound_rows(3.6, 3.6), shipped_measures())
    ((heading, _),) = section.blocks
    assert heading.startswith("epsilon 3.60, record, replace, copies 1, delta 0.0001;")
    assert "PRIVACY may state the same noise for other neighbours" in section.notes[-1]
    ((heading, _),) = bounds(bound_rows(3.6, 1.2), shipped_measures()).blocks
    assert heading.startswith("local: epsilon 3.60, record, replace, copies 1, delta 0.0001; global: epsilon 1.20,")


@pytest.mark.parametrize(
    ("proven", "control", "verdict"),
    [
        (1.0, 5.0, "does not contradict the guarantee: epsilon is at least 1.00, and 4.14 is guaranteed (record, "),
        (4.5, 5.0, "The audit of isolated, global contradicts the guarantee"),
        (0.0, 0.0, "NO POWER"),
        (1.0, None, "Its power is unknown"),
    ],
)
def test_audits_say_whether_the_guarantee_is_contradicted(proven: float, control: float | None, verdict: str) -> None:
    about = "claim=bound method=one_run unit=record adjacency=replace copies=1 delta=1e-05"
    values = {"": proven, ".ceiling": 6.0, ".permitted": 4.14, ".control": control}
    rows = [
        row(f"epsilon_hat{end}", value, "isolated", about, round=6, source="audit")
        for end, value in values.items()
        if value is not None
    ]
    section = audits(rows)
    ((_, (line,)),) = section.blocks
    assert section.columns[-1] == "neighbours and delta"
    assert line[-1] == "record, replace, copies 1, delta 1e-05"
    assert verdict in section.notes[-1]
    assert ("contradict" in section.notes[-1]) == (verdict != "NO POWER")


def test_bounds_have_the_names_of_the_main_table() -> None:
    wanted = {
        "LiRA TPR at FPR 0.078, pattern": ("tpr", "attack=lira fpr=0.07812"),
        "memorisation by probability, pattern": ("memorisation", "statistic=probability"),
        "AUC, pattern": ("auc", ""),
    }
    rows = []
    for metric, about in wanted.values():
        rows += [row(metric, 0.5, "pattern", about), row(f"{metric}.bound", 0.9, "pattern", about)]
    section = bounds(rows, shipped_measures())
    names = [line[0] for _, lines in section.blocks for line in lines]
    assert names == list(wanted)
    assert all("each example at the last observed round of its owning client" in head for head, _ in section.blocks)


@pytest.mark.parametrize(("part", "said"), [("strategy", "7.94 (pld), target 8"), ("defences", "7.94 (pld)")])
def test_the_guarantee_names_its_target(tmp_path: Path, part: str, said: str) -> None:
    entry = {"part": part, "against": "server", "unit": "client", "adjacency": "zero_out", "sampling": "poisson"}
    entry |= {"rate": 0.5, "noise_multiplier": 1.0, "delta": 1e-5, "epsilon": 7.94, "accountant": "pld"}  # type: ignore[dict-item]
    manifest = {"executor": "stacked", "privacy": {"mechanisms": [entry], "says": "a sentence"}}
    scenario = f"{SCENARIO}privacy: {{target_epsilon: 8}}\n"
    write(tmp_path / "run", bank(), measurements=[], scenario_yaml=scenario, manifest=manifest)
    run = read(tmp_path / "run")
    ((_, (cells,)),) = _guarantee_section(run).blocks
    assert cells[-1] == said
    assert target_epsilon(run).keys() == {part}
    assert math.isnan(target_epsilon(run)[part]) == (part == "defences")
