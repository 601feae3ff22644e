"""Tests of `fedmem/reporting/citation.py`."""

from __future__ import annotations

from pathlib import Path

from fedmem.reporting.citation import citation, versions_text
from fedmem.results.read import Run


class Known(Run):
    """A run whose files are given."""

    scenario = {"name": "digits"}  # noqa: RUF012
    manifest = {  # noqa: RUF012
        "id": "0123", "commit": "abc+", "finished": "2026-01-02T03:04:05+00:00",
        "versions": {"torch": "2", "fedmem": "0.1", "absent": None},
    }  # fmt: skip


def test_a_run_is_cited_by_version_commit_and_id() -> None:
    run = Known(path=Path("runs/digits/0123"))
    assert citation(run) == (
        "fedmem, version 0.1, commit abc+. Scenario digits, id 0123, finished 2026-01-02 03:04 UTC."
    )
    assert versions_text(run) == "fedmem 0.1, torch 2"
