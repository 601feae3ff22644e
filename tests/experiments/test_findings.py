"""The page of all findings: its points, its committed table, its command, and the rerun with other seeds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from experiments.findings import __main__ as command
from experiments.findings import points, rerun
from fedmem.studies.findings import findings_table, summary
from fedmem.studies.page_text import filled_page
from fedmem.studies.study import Study
from fedmem.studies.study_folder import find_study

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "experiments" / "findings"
FIRST_HALF = ["3", "3.1", "3.2a", "3.2b", "4.1", "4.2", "5.1", "5.2", "5.3"]
KEY_POINTS = [*FIRST_HALF, "6", "7.1", "7.2", "8.1", "8.2", "9.1", "9.2", "9.3", "A"]


def test_every_key_point_has_a_verdict_at_both_levels() -> None:
    assert sorted({finding.point for finding in points.FINDINGS}) == sorted(KEY_POINTS)
    table = pd.read_csv(FOLDER / "findings.csv")
    asked = {(finding.point, level) for finding in points.FINDINGS for level in ("local", "global")}
    reasons = {(finding.point, level) for finding in points.FINDINGS for level in finding.not_measured}
    assert asked - reasons <= set(zip(table.point.astype(str), table.level, strict=True))


def test_the_committed_table_is_that_of_the_studies() -> None:
    fresh = findings_table(points.FINDINGS, ROOT / "experiments")
    committed = pd.read_csv(FOLDER / "findings.csv")
    assert committed.verdict.tolist() == fresh.verdict.tolist()
    pd.testing.assert_series_equal(committed["mean"], fresh["mean"], rtol=1e-3)
    pd.testing.assert_frame_equal(pd.read_csv(FOLDER / "points.csv"), summary(fresh))


def test_the_page_is_its_text_with_the_numbers_of_its_tables() -> None:
    tables = {path.stem: pd.read_csv(path) for path in FOLDER.glob("*.csv")}
    text = (FOLDER / "page.md").read_text(encoding="utf-8")
    assert filled_page(text, tables) == (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_command_compares_another_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (ROOT / "experiments").glob("*/*.csv"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    arguments = ["--tables", str(tmp_path), "--results", str(tmp_path / "out")]
    assert command.main(arguments) == 0
    assert " 0 of " in f" {capsys.readouterr().out}"
    gates = pd.read_csv(tmp_path / "adversarial" / "gates.csv")
    turned = gates.assign(mean=-gates["mean"], low=-gates.high, high=-gates.low)
    turned.to_csv(tmp_path / "adversarial" / "gates.csv", index=False)
    assert command.main(arguments) == 1
    assert "in sign" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "out" / "changes.csv").reversed.any()


def test_the_rerun_has_the_studies_of_all_findings() -> None:
    rerun_of = {part.study.split("/")[0] for part in rerun.PARTS}
    assert {answer.study for finding in points.FINDINGS for answer in finding.answers} == rerun_of
    for part in rerun.PARTS:
        study, _ = find_study(str(ROOT / "experiments" / part.study))
        assert not set(range(rerun.FIRST_SEED, rerun.FIRST_SEED + part.seeds)) & set(study.seeds)


def test_the_rerun_continues_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def run_study(study: Study, options: object, report: object) -> dict[str, pd.DataFrame] | None:
        calls.append(study.question)
        return {"gates": pd.DataFrame()} if len(calls) > 1 else None

    monkeypatch.setattr(rerun, "run_study", run_study)
    monkeypatch.setattr(rerun, "write_study", lambda study, folder, tables: folder.mkdir(parents=True))
    part = rerun.Part(study="adversarial")
    assert not rerun.run_part(part, tmp_path, 1, 1.0)
    assert rerun.run_part(part, tmp_path, 1, 1.0)
    assert rerun.run_part(part, tmp_path, 1, 1.0)
    assert len(calls) == 2
