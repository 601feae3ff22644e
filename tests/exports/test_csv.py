"""CSV files give every number back to the last bit, and a description of each column."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedmem.contracts.export import ExportContent, ExportTable
from fedmem.exports.csv import Csv
from fedmem.sharing.export import content_of
from tests.results.read_helpers import write
from tests.sharing.sharing_helpers import finished_comparison, finished_run


def read_back(folder: Path, name: str) -> pd.DataFrame:
    """A table, read by its description alone."""
    package = json.loads((folder / "datapackage.json").read_text("utf-8"))
    (resource,) = (one for one in package["resources"] if one["name"] == name)
    fields = resource["schema"]["fields"]
    frame = pd.read_csv(folder / resource["path"], dtype=str, keep_default_na=False)
    for field in fields:
        column = frame[field["name"]]
        if field["type"] == "number":
            frame[field["name"]] = [float(cell or "nan") for cell in column]
        elif field["type"] == "integer":
            frame[field["name"]] = pd.array([int(cell) if cell else None for cell in column], dtype="Int64")
        elif field["type"] == "boolean":
            frame[field["name"]] = column.map({"true": True, "false": False})
    assert list(frame.columns) == [field["name"] for field in fields]
    assert all(field["description"] for field in fields)
    assert len(frame) == resource["rows"]
    return frame


def assert_same(frame: pd.DataFrame, again: pd.DataFrame) -> None:
    """Equal to the last bit; a missing text is the empty one."""
    assert list(frame.columns) == list(again.columns)
    for name in frame.columns:
        left, right = frame[name], again[name]
        if pd.api.types.is_float_dtype(left):
            np.testing.assert_array_equal(left.to_numpy(), right.to_numpy())
        elif pd.api.types.is_integer_dtype(left):
            assert left.astype("Int64").equals(right.astype("Int64")), name
        else:
            assert left.astype("object").fillna("").astype(str).tolist() == right.fillna("").astype(str).tolist(), name


def hard_run(tmp_path: Path) -> Path:
    """A run with NaN, infinities, negative zero and subnormal numbers."""
    write(tmp_path / "hard")
    return tmp_path / "hard"


@pytest.mark.parametrize("which", ["run", "comparison", "hard"])
def test_every_table_is_read_back_to_the_last_bit(which: str, tmp_path: Path) -> None:
    folder = hard_run(tmp_path) if which == "hard" else finished_run() if which == "run" else finished_comparison()
    content = content_of(folder)
    Csv().write(content, tmp_path, tmp_path)
    for table in content.tables:
        assert_same(table.frame(), read_back(tmp_path, table.name))


def test_undefined_is_empty_and_infinity_is_written(tmp_path: Path) -> None:
    frame = pd.DataFrame({"value": [0.1, math.nan, -math.inf], "n": pd.array([1, None, 3], dtype="Int64")})
    table = ExportTable(name="t", means="a row", frame=lambda: frame, meanings={"value": "v", "n": "n"})
    Csv().write(ExportContent(title="t", id="t", tables=[table]), tmp_path, tmp_path)
    assert (tmp_path / "t.csv").read_text() == '"value","n"\n0.1,1\n,\n-inf,3\n'


def test_hostile_texts_stay_in_their_cells(tmp_path: Path) -> None:
    texts = ['a","b', "two\nlines", "=1+1", "<script>alert(1)</script>", "| a | [x](y) `", "é\u202e\x00"]
    frame = pd.DataFrame({"a|<b>": texts, "other": range(6)})
    table = ExportTable(name="t", means="a row", frame=lambda: frame)
    Csv().write(ExportContent(title="x\n# y <script>", id="t", tables=[table]), tmp_path, tmp_path)
    again = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert again["a|<b>"].tolist()[:5] == texts[:5]
    assert again["other"].tolist() == list(range(6))
    readme = (tmp_path / "README.md").read_text("utf-8")
    assert "<script>" not in readme
    assert "\\<script\\>" in readme
    assert "| a\\|\\<b\\> | string | a label that its component declares |" in readme
