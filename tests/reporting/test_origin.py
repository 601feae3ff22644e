"""Tests of `fedmem/reporting/origin.py`."""

from __future__ import annotations

from pathlib import Path

import fedmem
from fedmem.execution.run import run
from fedmem.reporting.origin import finished_at, origin
from fedmem.reporting.page import report
from fedmem.reporting.table import table
from fedmem.results.read import Run
from tests.tiny import tiny


def test_the_first_screen_names_what_ran_and_with_what(tmp_path: Path) -> None:
    folder = run(tiny(seed=7), out=tmp_path)
    finished = fedmem.read(folder)
    parts, circumstances = origin(finished)
    for field in ("dataset", "partition", "model", "client", "strategy", "sampler"):
        assert finished.scenario[field]["kind"] in parts
    assert "seed 7" in parts
    assert finished.manifest["id"] in circumstances
    assert finished_at(finished) in circumstances
    for package in ("fedmem", "torch", "flwr"):
        assert f"{package} {finished.manifest['versions'][package]}" in circumstances
    commit = finished.manifest["commit"]
    assert commit is None or f"commit of fedmem: {commit[:12]}" in circumstances
    lines = " ".join(" ".join(line for line, _ in table(finished).lines(100)).split())  # type: ignore[union-attr]
    assert lines.index("seed 7") < lines.index("Files:")
    assert "seed 7" in report(folder).read_text().partition("<table>")[0]


def test_the_date_is_that_of_the_manifest(tmp_path: Path) -> None:
    folder = run(tiny(), out=tmp_path)
    again = Run(path=folder)
    again.manifest["finished"] = "2026-01-02T03:04:05+02:00"
    assert finished_at(again) == "2026-01-02 01:04 UTC"
    del again.manifest["finished"]
    assert finished_at(again).endswith(" UTC"), "folders of older versions have the time of their file"
