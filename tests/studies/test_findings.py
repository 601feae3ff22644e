"""Findings: p of intervals, verdicts after correction, rows that do not choose, and changes between two tables."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from fedmem.contracts.measurement import Level
from fedmem.errors import ScenarioError
from fedmem.estimation.statistics import holm
from fedmem.studies.experiment import over_seeds
from fedmem.studies.findings import Answer, Finding, changes_of, findings_table, p_of_interval, summary

STRONG, NONE = np.array([1.0, 1.1, 0.9, 1.05, 0.95]), np.array([0.1, -0.1, 0.2, -0.2, 0.0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study with a strong effect, none, an opposite one, and one without an interval."""
    (tmp_path / "a").mkdir()
    values = {"strong": STRONG, "none": NONE, "opposite": -STRONG, "constant": np.full(5, 2.0)}
    rows = [{"claim": claim, **over_seeds(value)} for claim, value in values.items()]
    pd.DataFrame(rows).to_csv(tmp_path / "a" / "gates.csv", index=False)
    return tmp_path


def finding(claim: str, **changes: float) -> Finding:
    answer = Answer(study="a", data="digits", level="global", row={"claim": claim}, **changes)  # type: ignore[arg-type]
    local: dict[Level, str] = {"local": "no clients"}
    return Finding(point="1", title="t", claim=claim, answers=[answer], not_measured=local)


def verdict(folder: Path, claim: str, **changes: float) -> str:
    return str(findings_table([finding(claim, **changes)], folder).verdict[0])


def test_p_is_that_of_the_test_over_seeds() -> None:
    rng = np.random.default_rng(0)
    for seeds in (2, 3, 8):
        values = rng.normal(0.5, 1.0, seeds)
        found = over_seeds(values)
        p = p_of_interval(found["mean"], found["low"], found["high"], seeds)
        assert p == pytest.approx(ttest_1samp(values, 0.0).pvalue)
    assert math.isnan(p_of_interval(1.0, math.nan, math.nan, 5))
    assert math.isnan(p_of_interval(1.0, 1.0, 1.0, 5))
    assert math.isnan(p_of_interval(1.0, 0.0, 2.0, 1))


def test_verdicts_have_the_sign_of_the_effect(folder: Path) -> None:
    assert verdict(folder, "strong") == "holds"
    assert verdict(folder, "opposite") == "does not hold"
    assert verdict(folder, "none") == "not significant"
    assert verdict(folder, "constant") == "undefined"
    assert verdict(folder, "opposite", sign=-1.0) == "holds"
    assert verdict(folder, "strong", null=2.0) == "does not hold"
    assert verdict(folder, "strong", null=1.0) == "not significant"


def test_the_interval_turns_with_the_sign(folder: Path) -> None:
    plain, turned = (findings_table([finding("strong", sign=sign)], folder).iloc[0] for sign in (1.0, -1.0))
    assert (turned.low, turned["mean"], turned.high) == (-plain.high, -plain["mean"], -plain.low)
    assert turned.p == plain.p


def test_verdicts_allow_for_all_rows(folder: Path) -> None:
    weak = np.array([0.1, 0.9, 0.4, 0.7, 0.2])
    gates = pd.read_csv(folder / "a" / "gates.csv")
    row = pd.DataFrame([{"claim": "weak", **over_seeds(weak)}])
    pd.concat([gates, row]).to_csv(folder / "a" / "gates.csv", index=False)
    assert verdict(folder, "weak") == "holds"
    table = findings_table([finding("weak"), *[finding("none")] * 19], folder)
    np.testing.assert_allclose(table.holm, holm(table.p.to_numpy()))
    assert table.low[0] > 0
    assert table.verdict[0] == "not significant"


def test_rows_that_are_not_there_are_named(folder: Path) -> None:
    wrong = [finding("absent"), finding("strong")]
    wrong[1] = Finding(**{**vars(wrong[1]), "answers": [Answer(study="b", data="", level="global", row={})]})
    with pytest.raises(ScenarioError) as raised:
        findings_table(wrong, folder)
    assert "0 rows" in str(raised.value)
    assert "fedmem study run b" in str(raised.value)
    columns = Answer(study="a", data="", level="global", row={"kind": "x"})
    with pytest.raises(ScenarioError, match="no column kind; it has claim"):
        findings_table([Finding(**{**vars(finding("x")), "answers": [columns]})], folder)


def test_a_level_needs_answers_or_a_reason() -> None:
    with pytest.raises(AssertionError):
        Finding(**{**vars(finding("strong")), "not_measured": {}})


def test_values_with_a_name_have_their_own_interval(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    table = pd.DataFrame([{"claim": "x", "mean": 9.0, "low": 8.0, "high": 10.0, "seeds": 5}])
    table.assign(gap=1.0, gap_low=0.5, gap_high=1.5).to_csv(tmp_path / "a" / "gates.csv", index=False)
    answer = Answer(study="a", data="", level="global", row={"claim": "x"}, of="gap")
    row = findings_table([Finding(**{**vars(finding("x")), "answers": [answer]})], tmp_path).iloc[0]
    assert (row["mean"], row.low, row.high) == (1.0, 0.5, 1.5)


def made(verdicts: dict[str, str]) -> pd.DataFrame:
    rows = [
        {"point": "1", "title": "t", "claim": "c", "study": "a", "data": data, "level": "local", "verdict": found}
        for data, found in verdicts.items()
    ]
    return pd.DataFrame(rows).assign(mean=1.0, low=0.5, high=1.5)


def test_a_level_has_the_verdict_that_its_answers_share() -> None:
    assert summary(made({"a": "holds", "b": "holds"})).local[0] == "holds"
    assert summary(made({"a": "holds", "b": "not significant"})).local[0] == "mixed"
    assert summary(made({"a": "holds"}))["global"][0] == "not measured"


def test_changes_tell_reversals_from_lost_significance() -> None:
    old = made({"a": "holds", "b": "holds", "c": "does not hold", "d": "holds"})
    new = made({"a": "holds", "b": "does not hold", "c": "not significant", "d": "not significant"})
    found = changes_of(new, old)
    assert found.data.tolist() == ["b", "c", "d"]
    assert found.reversed.tolist() == [True, False, False]
