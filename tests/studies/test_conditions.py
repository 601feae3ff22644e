"""Tests of values that are conditional on shared batches in comparisons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from fedmem.studies.comparison import Comparison
from fedmem.studies.quantities import conditions_of_settings
from fedmem.studies.report import Table, study_warnings
from fedmem.studies.stored import StoredStudy, read_study, write_study
from fedmem.studies.tables import TABLES
from tests.studies.study_helpers import FIRM, LIKE, MORE, series_of, study_of


def text_of(comparison: Comparison) -> str:
    return " ".join(" ".join(line for line, _ in Table(comparison).lines(300)).split())


@pytest.fixture
def plain() -> Comparison:
    """Three settings, of which the first is the reference of all."""
    return study_of([series_of("typical", level, [FIRM, MORE, LIKE]) for level in ("local", "global")])


@pytest.fixture
def mixed(plain: Comparison) -> Comparison:
    """Values of the last two settings are conditional."""
    return replace(plain, conditions=("", "batches", "batches"))


def test_each_setting_has_the_condition_of_its_runs() -> None:
    shared, other = (SimpleNamespace(scenario={"batches": name}) for name in ("shared", "per_run"))
    runs: Any = {(0, 0): other, (1, 0): shared, (1, 1): shared, (3, 0): SimpleNamespace(scenario={})}
    assert conditions_of_settings(runs, 4) == ("", "batches", "", "")
    unconditional: Any = {(0, 0): other}
    assert conditions_of_settings(unconditional, 2) == ()


def test_tables_have_a_column_and_mark_mixed_differences(mixed: Comparison) -> None:
    for name, rows in TABLES.items():
        frame = pd.DataFrame(rows(mixed))
        for label, rows_of_setting in frame.groupby("setting") if len(frame) else ():
            condition = mixed.condition(mixed.labels.index(str(label)))
            assert set(rows_of_setting.conditional_on) == {condition}, name
    frame = pd.DataFrame(TABLES["differences"](mixed))
    expected = [mixed.other_condition(mixed.labels.index(label)) for label in frame.setting]
    assert frame.other_condition.tolist() == expected
    assert set(expected) == {False, True}


def test_a_difference_of_mixed_values_says_so(mixed: Comparison) -> None:
    text = text_of(mixed)
    assert text.count("higher (other condition)") == 2
    assert text.count("other condition)") == 4
    (warning,) = (text for text in study_warnings(mixed) if text.startswith("other condition"))
    assert all(label in warning for label in mixed.labels)
    assert all(word in text for word in warning.split())


@pytest.mark.parametrize("condition", ["", "batches"])
def test_settings_with_one_condition_are_compared_as_ever(plain: Comparison, condition: str) -> None:
    comparison = replace(plain, conditions=(condition,) * 3)
    assert "other condition" not in text_of(comparison)
    frame, before = (pd.DataFrame(TABLES["differences"](one)) for one in (comparison, plain))
    added = ["conditional_on", "other_condition"] if condition else []
    assert sorted(map(str, set(frame) - set(before))) == added
    pd.testing.assert_frame_equal(frame.drop(columns=added), before)


def test_a_stored_study_keeps_its_conditions(mixed: Comparison, plain: Comparison, tmp_path: Path) -> None:
    write_study(tmp_path, StoredStudy(title="x", comparison=mixed))
    assert read_study(tmp_path).comparison.conditions == mixed.conditions
    write_study(tmp_path, StoredStudy(title="x", comparison=plain))
    assert "conditions" not in (tmp_path / "series.json").read_text()
