"""Tests of `fedmem/contracts/reconstruction_sheet.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.contracts.reconstruction_sheet import ReconstructionSheet, read_reconstruction_sheets
from fedmem.errors import RunError

COLUMNS = {name: np.array(["a", "b"]) for name in ("modality", "kind", "subject", "identified", "original")}
SHEET = ReconstructionSheet(round=4, level="sum", view="sum_2", run=3, columns=COLUMNS)


def test_place_of_a_sheet_is_read_from_columns_not_names() -> None:
    stored = {f"leakage/any name/round_9/{key}": array for key, array in SHEET.arrays().items()}
    (found,) = read_reconstruction_sheets({**stored, "mine/picture": np.zeros(3)})
    assert (found.source, found.round, found.level, found.view, found.run) == ("leakage", 4, "sum", "sum_2", 3)
    assert found.columns["original"].tolist() == ["a", "b"]


@pytest.mark.parametrize("column", ["modality", "kind", "level", "run"])
def test_sheet_without_a_column_is_reported_as_damage(column: str) -> None:
    stored = {f"leakage/x/{key}": array for key, array in SHEET.arrays().items() if key != column}
    with pytest.raises(RunError, match=rf"reconstructions\.npz is damaged: leakage/x has no {column}; run the"):
        list(read_reconstruction_sheets(stored))
    with pytest.raises(RunError, match=f"has no {column}"):
        list(read_reconstruction_sheets({**stored, f"leakage/x/{column}": np.zeros(0)}))
