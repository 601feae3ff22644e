"""Tests of `fedmem/results/run_summary.py`: the record survives its file, and a stale or damaged file is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from fedmem.errors import RunError
from fedmem.results.run_summary import FILE, Key, Measured, RunSummary, json_schema, read_summary, summary_bytes
from tests.results.run_summary_helpers import SUMMARY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "measurements.parquet").write_bytes(b"numbers")
    (tmp_path / FILE).write_bytes(summary_bytes(SUMMARY))
    return tmp_path


def test_the_file_gives_the_same_record(folder: Path) -> None:
    stored = read_summary(folder)
    assert isinstance(stored, RunSummary)
    assert summary_bytes(stored) == summary_bytes(SUMMARY)
    (guarantee,) = stored.guarantees
    assert guarantee.epsilon == math.inf
    (finding,) = stored.kinds[0].findings
    assert finding.local is not None
    assert math.isnan(finding.local.p)
    assert finding.labels == {"attack": "lira", "fpr": 0.01, "clients": 2, "all": True}
    types = {name: type(value) for name, value in finding.labels.items()}
    assert types == {"attack": str, "fpr": float, "clients": int, "all": bool}


def test_the_file_is_strict_json_with_sorted_keys() -> None:
    text = summary_bytes(SUMMARY).decode()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert text == json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    value = content["kinds"][0]["findings"][0]["local"]
    assert (value["p"], value["state"]) == (None, "significant")


def test_other_measurements_make_it_stale(folder: Path) -> None:
    (folder / "measurements.parquet").write_bytes(b"other numbers")
    with pytest.raises(RunError, match=r"made from other measurements; write it again with: fedmem report"):
        read_summary(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"schema": 99}', "schema 99, this version reads"),
        ('{"name": "a"}', "is damaged"),
    ],
)
def test_a_damaged_file_is_one_message(folder: Path, content: str | None, message: str) -> None:
    (folder / FILE).unlink()
    if content is not None:
        (folder / FILE).write_text(content)
    with pytest.raises(RunError, match=message):
        read_summary(folder)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "significant"),
        ({"low": 0.0}, "not significant"),
        ({"p": 0.06}, "not significant"),
        ({"p": math.nan}, "significant"),
        ({"low": math.nan}, "undefined"),
        ({"null": math.nan}, "undefined"),
        ({"null": 0.55}, "not significant"),
        ({"null": 0.65}, "below"),
        ({"value": math.nan, "examples": 1}, "undefined"),
        ({"value": -0.5, "low": -0.7, "high": -0.2}, "below"),
        ({"low": math.nan, "examples": 0}, "not significant"),
        ({"low": math.nan, "examples": 1}, "significant"),
    ],
)
def test_state_follows_interval_null_and_p(changes: dict[str, float], state: str) -> None:
    value = Measured(value=0.5, low=0.4, high=0.6, n=9, null=0.0, p=0.01, keys=())
    assert replace(value, **changes).state == state  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "p", "differ"), [(0.1, 0.01, False), (0.1, 0.2, True), (-0.1, 0.01, True), (-0.1, 0.2, False)]
)
def test_disagreement_of_p_and_interval_is_found(low: float, p: float, *, differ: bool) -> None:
    value = Measured(value=0.5, low=low, high=0.6, n=9, null=0.0, p=p, keys=())
    assert value.p_and_interval_differ is differ
    assert not differ or value.state == "not significant"


def test_the_schema_names_every_field() -> None:
    assert set(json_schema()["properties"]) == set(RunSummary.__dataclass_fields__)
    assert json_schema()["$defs"]["Key"]["required"] == ["metric", "level", "subject", "labels"]
    assert Key(metric="auc", level="local", subject="pin", labels={}).source == ""
