"""Scenarios in which there is something to find: clients that fit every label, with what signals show of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import fedmem

ROOT = Path(__file__).resolve().parents[2]

MEMORISED = 0.7
"""The least memorisation of wrong labels at their owning clients."""


def summary_of(name: str, out: Path, *changes: str) -> pd.DataFrame:
    scenario = fedmem.load_scenario(ROOT / "scenarios" / f"{name}.yaml", changes)
    table: pd.DataFrame = fedmem.read(fedmem.run(scenario, out=out)).measurements
    return table[(table.scope == "summary") & (table.place != "others")]


@pytest.fixture(scope="module")
def interpolation(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    if not (fedmem_data() / "fashion_mnist").is_dir():
        pytest.skip("Fashion-MNIST is not fetched")
    signals = "signals=[{kind: el2n}, {kind: logit_margin}]"
    # other weights, rows and batches than those that the scenario was found with
    changes = ("seed=11", "observe.every=10", signals, "estimators=[{kind: memorisation}, {kind: agreement}]")
    return summary_of("interpolation", tmp_path_factory.mktemp("runs"), *changes)


def fedmem_data() -> Path:
    from fedmem.fetched.files import cache_folder

    return cache_folder()


def row(table: pd.DataFrame, metric: str, level: str, subject: str, **labels: str) -> pd.Series:
    rows = table[(table.metric == metric) & (table.level == level) & (table.subject == subject)]
    for name, value in {"statistic": "", "given": "", "minus": "", **labels}.items():
        rows = rows[rows[name] == value] if name in rows else rows
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.mark.slow
def test_owning_clients_memorise_wrong_labels(interpolation: pd.DataFrame) -> None:
    owner = row(interpolation, "memorisation", "local", "mislabelled")
    assert owner.value >= MEMORISED
    aggregate = row(interpolation, "memorisation", "global", "mislabelled")
    assert 0 < aggregate.low < aggregate.high < owner.low


@pytest.mark.slow
def test_what_training_changes_in_a_signal_shows_memorisation(interpolation: pd.DataFrame) -> None:
    for level in ("local", "global"):
        for kind in ("mislabelled", "typical"):
            assert row(interpolation, "el2n_gain", level, kind).high < 0
            assert row(interpolation, "logit_margin_gain", level, kind).low > 0
        found = row(interpolation, "agreement", level, "typical", of="el2n", statistic="gain")
        assert found.high < -0.9


@pytest.mark.slow
def test_difficulty_ranks_ordinary_examples_as_memorisation_does(interpolation: pd.DataFrame) -> None:
    without = row(interpolation, "agreement", "local", "typical", of="el2n", statistic="out")
    assert without.low > 0.8
    assert row(interpolation, "agreement.p", "local", "typical", of="el2n", statistic="out").value < 0.05


@pytest.mark.nightly
@pytest.mark.slow
def test_handwritten_forms_memorise_wrong_labels(tmp_path: Path) -> None:
    changes = ("seed=11", "observe.every=20", "signals=[]", "estimators=[{kind: memorisation}]")
    table = summary_of("handwriting", tmp_path, *changes)
    assert row(table, "memorisation", "local", "mislabelled").value >= MEMORISED
    assert row(table, "memorisation", "local", "existing").low > 0
