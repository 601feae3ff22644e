"""Tests of `fedmem/datasets/_notation.py`: decimal commas, separators of thousands, and units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmem.datasets._notation import notation_problem
from fedmem.datasets.csv import Csv
from fedmem.errors import ComponentError, ScenarioError


def cells(*values: str) -> NDArray[np.object_]:
    return np.array(values, dtype=object)


def problem(*values: str) -> tuple[str, str, int | None]:
    return notation_problem("x", cells(*values), lambda row: f"row {row}")


def write(folder: Path, column: list[str]) -> str:
    file = folder / "mine.csv"
    rows = [f"{value};{row % 7};{'ab'[row % 2]}" for row, value in enumerate(column)]
    file.write_text("\n".join(["size;number;target", *rows]), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("values", "key", "said", "row"),
    [
        (("", "120,5", "7", "-3,25"), "dataset.decimal", 'write `decimal: ","`', 1),
        (("0,5", "0,5", "1,5"), "dataset.decimal", "'0,5' has a decimal comma", 0),
        (("1,5",) * 10 + ("much",), "dataset.decimal", "correct 'much' in row 10", 0),
        (("1,234", "5,678"), "dataset.decimal", "if the commas separate thousands", 0),
        (("12", "1,234,567", "5,678"), "dataset.path", "separators of thousands", 1),
        (("1.234,5", "5.678,25"), "dataset.path", "separators of thousands", 0),
        (("1.234.567", "12"), "dataset.path", "separators of thousands", 0),
        (("1 234", "5'678", "9\u202f000"), "dataset.path", "separators of thousands", 0),
        (("12 kg", "7.5 kg", "8 kg"), "dataset.path", "the unit 'kg'", 0),
        (("12 %", "7%", "8%"), "dataset.path", "the unit '%'", 0),
        ((*(f"{n} kg" for n in range(10)), "heavy"), "dataset.path", "correct 'heavy' in row 10", 0),
    ],
)
def test_columns_that_look_like_numbers_are_refused(values: tuple[str, ...], key: str, said: str, row: int) -> None:
    found_key, message, found_row = problem(*values)
    assert (found_key, found_row) == (key, row)
    assert said in message
    assert "categorical: [x]" in message


@pytest.mark.parametrize(
    "values",
    [
        ("1", "2.5", "1e3"),
        ("a,b", "c", "d"),
        ("1,5", "red", "blue"),
        ("10a", "10b", "11a"),
        ("1st", "2nd", "3rd"),
        ("", ""),
        ("2024-01-02", "2024-01-03", "2024-02-01"),
        ("12:30", "13:45", "01:10"),
    ],
)
def test_other_columns_have_no_problem_of_notation(values: tuple[str, ...]) -> None:
    assert problem(*values) == ("", "", None)


def test_decimal_commas_are_refused_and_then_read(tmp_path: Path) -> None:
    column = [f"{100 + row},{row % 10}" for row in range(20)]
    path = write(tmp_path, column)
    with pytest.raises(ScenarioError, match=r"row 0 \(line 2\).*column size: '100,0' has a decimal comma"):
        Csv(path=path, separator=";").load(np.random.default_rng(0))
    data = Csv(path=path, separator=";", decimal=",", ranges={"size": (100, 200)}).load(np.random.default_rng(0))
    rows = data.train.ids
    np.testing.assert_allclose(data.train.inputs[:, 0], [(row + (row % 10) / 10) / 100 for row in rows], rtol=1e-5)
    np.testing.assert_allclose(data.columns["size"], [100 + row + (row % 10) / 10 for row in rows])


def test_decimal_commas_below_max_categories_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, ["0,5", "1,5"] * 10)
    with pytest.raises(ScenarioError, match="decimal comma"):
        Csv(path=path, separator=";").load(np.random.default_rng(0))
    data = Csv(path=path, separator=";", categorical=("size",)).load(np.random.default_rng(0))
    assert "size: category, 0,5, 1,5" in data.decisions


def test_a_point_beside_decimal_commas_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, ["0,5", "1.234"] * 10)
    with pytest.raises(ComponentError, match=r"row 1 .*'1.234' has a point"):
        Csv(path=path, separator=";", decimal=",").load(np.random.default_rng(0))
