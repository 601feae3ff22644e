"""Tests of `fedmem/reporting/text_sheets.py`."""

from __future__ import annotations

from pathlib import Path

from fedmem.execution.run import run
from fedmem.reporting.page import report
from fedmem.reporting.text_sheets import escape_invisible, reconstructed_rows
from fedmem.results.read import read
from tests.probes.text_leakage_helpers import TEXTS
from tests.tiny import tiny


def test_run_shows_reconstructed_texts_escaped(tmp_path: Path) -> None:
    probe = {"kind": "leakage", "attack": {"kind": "tag", "steps": 2}, "victims": 2, "runs": 2, "max_images": 2}
    folder = run(tiny(**TEXTS, rounds=2, probes=[probe]), out=tmp_path)
    shown = reconstructed_rows(read(folder))
    assert {row[1] for row in shown} == {"secret", "typical"}
    assert {row[0] for row in shown} >= {"local: a client's real message", "global: the aggregate"}
    assert all(row[2].startswith("<b>") for row in shown if row[1] == "secret")
    page = report(folder).read_text()
    assert "Reconstructed texts" in page
    assert "<code><bdi>&lt;b&gt;" in page
    assert "<code><b>" not in page
    assert "reconstruction, similarity of texts over the baseline guess" in page
    assert not (folder / "reconstructions.png").exists()
    for row in shown:
        assert all(escape_invisible(text).isprintable() for text in row[2:5])
