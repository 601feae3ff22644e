"""What is learnt of a column comes from the training rows alone, and is what its formula says."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmem.datasets._columns import Category, Number, column_problem, describe, learn
from tests.narrowing import instance


def cells(*values: str) -> NDArray[np.object_]:
    return np.array(values, dtype=object)


def test_range_and_median_are_those_of_the_training_rows() -> None:
    column = cells("2", "4", "", "10", "99", "-5")
    number = instance(learn("x", column[:4], categorical=False, limits=None), Number)
    assert (number.low, number.high, number.median, number.given) == (2, 10, 4, False)
    np.testing.assert_allclose(number.encode(column)[:, 0], [0, 0.25, 0.25, 1, 1, 0])
    said = describe(number, column, np.arange(4), np.array([4, 5]))
    assert "2 to 10 (the range of the training rows); 1 missing, filled by the median 4; 2 test rows outside" in said


def test_given_range_looks_at_no_row() -> None:
    column = cells("20", "60", "200")
    number = instance(learn("age", column, categorical=False, limits=(0, 100)), Number)
    np.testing.assert_allclose(number.encode(column)[:, 0], [0.2, 0.6, 1])
    assert "1 training row outside the range" in describe(number, column, np.arange(3), np.arange(0))


def test_categories_are_those_of_the_training_rows() -> None:
    column = cells("b", "a", "", "c")
    category = instance(learn("x", column[:3], categorical=False, limits=None), Category)
    assert category.values == ("a", "b", "(missing)")
    assert category.encode(column).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert "1 test row with a category that no training row has" in describe(
        category, column, np.arange(3), np.array([3])
    )
    codes = instance(learn("x", cells("007", "010"), categorical=False, limits=None), Category)
    assert codes.values == ("007", "010")


def test_constant_columns_are_left_out() -> None:
    column = cells("1", "1", "2")
    assert learn("x", column[:2], categorical=False, limits=None) is None
    assert learn("x", cells("a", "a"), categorical=False, limits=None) is None


def test_problem_of_a_column_names_key_and_row() -> None:
    def problem(*values: str, categorical: bool = False, has_limits: bool = False) -> tuple[str, str, int | None]:
        return column_problem(
            "x",
            cells(*values),
            np.arange(len(values)),
            categorical=categorical,
            has_limits=has_limits,
            max_categories=3,
        )

    ten = tuple(map(str, range(10)))
    assert problem("1", "two", "3")[::2] == ("dataset.path", 1)
    assert "decimal point" in problem("1", "2,5")[1]
    assert problem("1", "1e400")[::2] == ("dataset.path", 1)
    assert "too large" in problem("1", "1e400")[1]
    assert problem("1", "two", categorical=True)[0] == ""
    assert problem(*ten)[0] == "dataset.drop"
    assert problem(*ten, has_limits=True)[0] == ""
    assert problem(*ten[:9])[0] == ""
    assert problem(*(f"{value}.5" for value in ten))[0] == ""
    assert problem(*"abcdefghij")[0] == "dataset.drop"
    assert problem(*"abcdabcd")[0] == "dataset.max_categories"
    assert problem(*"abab", has_limits=True)[0] == "dataset.ranges"


@pytest.mark.parametrize(
    "written", ["2020-01-{:02}", "{}.3.2021", "03/{:02}/2021", "{} Jan 2020", "2020-01-{:02}T10:30:00Z"]
)
def test_a_column_of_dates_is_refused_with_the_remedy(written: str) -> None:
    column = cells("", *(written.format(day) for day in range(1, 5)))

    def problem(*, categorical: bool) -> str:
        found = column_problem(
            "born", column, np.arange(3), categorical=categorical, has_limits=False, max_categories=50
        )
        return found[1]

    text = problem(categorical=False)
    assert f"column born holds dates, such as {written.format(1)}; convert it to a number" in text
    assert "quasi-identifier" in text
    assert problem(categorical=True) == ""


@pytest.mark.parametrize("values", [("2020-01-03", "late"), ("1/2", "3/4"), ("a-b-c", "d-e-f"), ("2020", "2021")])
def test_other_columns_are_no_dates(values: tuple[str, ...]) -> None:
    found = column_problem("x", cells(*values), np.arange(2), categorical=False, has_limits=False, max_categories=9)
    assert "date" not in found[1]
