"""Secrets beside what models write in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedmem.reporting.written_texts import written_cells, written_note, written_rows
from fedmem.results.read import Run, read
from tests.results.read_helpers import bank, write


def kept(texts: dict[str, tuple[int, str, str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place, (subject, secret, written) in texts.items():
        columns = {"subject": np.array([subject]), "secret": np.array([secret]), "written": np.array([written])}
        found |= {f"extraction/written/{place}/{key}": values for key, values in columns.items()}
    return found


def finished(folder: Path) -> tuple[Run, int]:
    """Subject 1 with texts of a run that it is out of, and of the first that it is in."""
    stored = bank()
    inside, outside = (int(np.flatnonzero(stored.audit.is_in[:, 1] == coin)[0]) for coin in (True, False))
    texts = {
        f"global/run_{outside}/client_-1": (1, "4711", "of another run"),
        f"global/run_{inside}/client_-1": (1, "4711", "<b>0</b>"),
        f"local/run_{inside}/client_2": (1, "4711", "4711"),
    }
    write(folder, stored, reconstructions=kept(texts))
    return read(folder), inside


def test_a_secret_is_shown_in_a_run_that_trains_on_it(tmp_path: Path) -> None:
    run, inside = finished(tmp_path / "run")
    (row,) = written_rows(run)
    assert row[0] == "#1"
    assert row[3:] == (str(inside), "4711", "4711", "<b>0</b>")


def test_equal_texts_are_marked_and_none_is_invisible(tmp_path: Path) -> None:
    run, inside = finished(tmp_path / "run")
    (row,) = written_cells(run)
    assert row[3:] == [str(inside), ("4711", True), ("4711", True), ("<b>0</b>", False)]
    assert "first 20" not in written_note(run)
    write(tmp_path / "none")
    assert written_cells(read(tmp_path / "none")) == []
