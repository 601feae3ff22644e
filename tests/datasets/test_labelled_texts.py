"""Tests of `fedmem/datasets/labelled_texts.py`."""

from pathlib import Path

import numpy as np
import pytest

from fedmem.datasets.labelled_texts import LabelledTexts
from fedmem.errors import ComponentError


def table(folder: Path, *rows: str) -> LabelledTexts:
    (folder / "mine.csv").write_text("\n".join(["text,label,who", *rows]))
    return LabelledTexts(path=str(folder / "mine.csv"), client="who", tokens="bytes", max_tokens=8)


def test_rows_have_the_class_and_the_client_of_their_cells(tmp_path: Path) -> None:
    data = table(tmp_path, *(f"text {i},{'ab'[i % 2]},{'xy'[i // 10]}" for i in range(20))).load(
        np.random.default_rng(0)
    )
    assert data.natural is not None
    for row, number in enumerate(data.train.ids.tolist()):
        assert data.class_names[data.train.targets[row]] == "ab"[number % 2]
        assert data.client_names[data.natural[row]] == "xy"[number // 10]
        assert data.modality.text(data.train.inputs[row], data.train.targets[row]) == f"text {number}"


def test_empty_cells_and_missing_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=r"row 1 .line 3. .* empty cell in column 'label'"):
        table(tmp_path, "a,x,k", "b,,k", "c,y,k").load(np.random.default_rng(0))
    (tmp_path / "other.csv").write_text("text,label\na,b\n")
    with pytest.raises(ComponentError, match="no column 'who'"):
        LabelledTexts(path=str(tmp_path / "other.csv"), client="who").load(np.random.default_rng(0))


def test_the_table_and_the_tokenizer_are_input_files() -> None:
    files = LabelledTexts(path="mine.csv", tokenizer="models/bert").input_files()
    assert files == (Path("mine.csv"), Path("models/bert/tokenizer.json"))
