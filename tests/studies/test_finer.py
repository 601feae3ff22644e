"""Tests of `fedmem/studies/finer.py`."""

from __future__ import annotations

from fedmem.studies.finer import finer_rows
from fedmem.studies.report import Table
from fedmem.studies.study_summary import collect_differences
from tests.studies.study_helpers import FIRM, MORE, series_of, study_of

ZERO = (0.0,) * 5
PROBABILITY = series_of("canary", "global", [FIRM, MORE], statistic="probability")
OTHER = series_of("typical", "global", [FIRM, MORE], statistic="probability")


def test_identical_answers_come_with_probabilities() -> None:
    comparison = study_of([series_of("canary", "global", [ZERO, ZERO]), PROBABILITY, OTHER])
    ((key, (row,)),) = finer_rows(comparison).items()
    assert (key[0].kind, key[1]) == ("canary", 1)
    assert (row.quantity.title, row.verdict) == ("memorisation by probability", "higher")
    assert row.tests == 2, "the whole family of the finer statistic counts"
    found = [(each.title, each.verdict) for each in collect_differences(comparison)]
    assert found == [("memorisation", "identical"), ("memorisation by probability", "higher")]
    lines = [line for line, _ in Table(comparison).lines(120)]
    (place,) = [i for i, line in enumerate(lines) if "identical" in line]
    assert "by probability" in lines[place + 1]
    assert "higher; 2 tests" in lines[place + 1]


def test_answers_that_differ_need_no_other_statistic() -> None:
    comparison = study_of([series_of("canary", "global", [FIRM, MORE]), PROBABILITY])
    assert finer_rows(comparison) == {}
    assert "by probability" not in "".join(line for line, _ in Table(comparison).lines(120))
