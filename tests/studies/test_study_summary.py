"""Tests of `fedmem/studies/study_summary.py`: the record holds what the tables hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedmem.results.run_summary import FILE, sha256_of
from fedmem.studies.reading import read_comparison
from fedmem.studies.stored import StoredStudy, write_study
from fedmem.studies.study_summary import study_summary_bytes, write_study_summary
from fedmem.studies.tables import differences
from tests.studies.study_helpers import FIRM, LIKE, MORE, series_of, study_of

COMPARISON = study_of(
    [
        series_of("canary", "local", [FIRM, LIKE, MORE]),
        series_of("canary", "global", [FIRM, MORE, LIKE]),
        series_of("", "global", [FIRM, FIRM, FIRM], metric="test_accuracy"),
    ]
)
STUDY = StoredStudy(title="digits · compare-01", comparison=COMPARISON, failures=("krum, seed 3: broken",))


def test_the_folder_of_a_study_holds_its_summary(tmp_path: Path) -> None:
    write_study(tmp_path, STUDY)
    content = json.loads((tmp_path / FILE).read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert content["schema"] == 1
    assert content["series_sha256"] == sha256_of(tmp_path / "series.npz")
    assert content["failures"] == ["krum, seed 3: broken"]
    assert content["report"] == "comparison.html"
    assert content["versions"].keys() == {"fedmem"}
    rows = [row for row in differences(COMPARISON) if row["reference"]]
    for row, stored in zip(rows, content["differences"], strict=True):
        assert (stored["setting"], stored["kind"], stored["level"]) == (row["setting"], row["kind"], row["level"])
        assert (stored["verdict"], stored["tests"]) == (row["verdict"], row["tests"])
        assert stored["effect"] == pytest.approx(row["effect"])
        if row["verdict"] != "identical":
            assert stored["p"] == pytest.approx(row["p_adjusted"])
            assert stored["low"] == pytest.approx(100 * row["difference_low"])
    assert {value["setting"] for value in content["values"]} == {"fedavg", "krum", "bulyan"}


def test_sentences_point_at_their_differences(tmp_path: Path) -> None:
    write_study(tmp_path, STUDY)
    summary = read_comparison(tmp_path).summary()
    assert study_summary_bytes(summary) == (tmp_path / FILE).read_bytes()
    for sentence in summary.sentences:
        members = [summary.differences[place] for place in sentence.differences]
        assert {each.setting for each in members} == set(sentence.settings)
        assert {each.is_significant for each in members} == {sentence.state == "significant"}


def test_a_summary_of_other_numbers_is_written_again(tmp_path: Path) -> None:
    write_study(tmp_path, STUDY)
    right = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(b"{}")
    write_study_summary(tmp_path, STUDY)
    assert (tmp_path / FILE).read_bytes() == right
