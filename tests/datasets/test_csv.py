"""A user's table: inputs, classes, clients and columns are those of the file, and mistakes have row and column."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedmem.contracts.data import Dataset
from fedmem.datasets.csv import Csv
from fedmem.errors import ComponentError, ScenarioError
from fedmem.federation.source_rows import source_rows
from fedmem.scenario.catalogue import build
from tests.narrowing import instance, present

Load = Callable[..., Dataset]

HEADER = "id,site,age,sex,ward,ill"
ROWS = [
    f"p{i},{'AB'[i % 3 == 0]},{20 + i % 7},{'fm'[i % 2]},{i % 3},{'yes' if i % 4 == 0 else 'no'}" for i in range(40)
]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_load(lines: list[str] = ROWS, seed: int = 0, header: str = HEADER, **fields: Any) -> Dataset:
        (tmp_path / "mine.csv").write_text("\n".join([header, *lines]) + "\n")
        fields = {"path": str(tmp_path / "mine.csv"), "target": "ill", "drop": ["id"], **fields}
        loader = instance(build("dataset", {"kind": "csv", **yaml.safe_load(yaml.safe_dump(fields))}), Csv)
        return loader.load(np.random.default_rng(seed))

    return write_and_load


def test_rows_keep_number_inputs_class_client_and_cells(load: Load) -> None:
    data = load(client="site", categorical=["ward"], sensitive=["sex"], ranges={"age": [20, 30]})
    assert (len(data.train), len(data.test), data.class_names, data.client_names) == (32, 8, ("no", "yes"), ("A", "B"))
    for row, number in enumerate(data.train.ids.tolist()):
        age, ward = 20 + number % 7, number % 3
        np.testing.assert_allclose(data.train.inputs[row], [(age - 20) / 10, *np.eye(3)[ward]], atol=1e-6)
        assert data.train.targets[row] == (number % 4 == 0)
        assert present(data.natural)[row] == (number % 3 == 0)
        assert data.sensitive["sex"][row] == "fm"[number % 2]
        assert [data.columns[name][row] for name in HEADER.split(",")] == [
            *(f"p{number}", "AB"[number % 3 == 0], age, "fm"[number % 2], ward, "yes" if number % 4 == 0 else "no"),
        ]
    assert data.columns["age"].dtype == np.int64
    assert load(include_sensitive=True, sensitive=["sex"], columns=["sex"]).train.inputs.shape[1] == 2


def test_a_drawn_test_set_has_its_share_of_classes_and_clients(load: Load) -> None:
    data = load(client="site", test=0.25)
    in_test = data.test.ids
    assert len(in_test) == 10
    assert int((in_test % 4 == 0).sum()) in (2, 3)
    assert int((in_test % 3 == 0).sum()) in (3, 4)
    assert load(test=7, rows=20).train.inputs.shape[0] == 20
    assert load(seed=1, test=0.25).test.ids.tolist() != load(seed=2, test=0.25).test.ids.tolist()


def test_test_rows_come_from_a_column_or_another_file(load: Load, tmp_path: Path) -> None:
    marked = [f"{row},{'Test' if i < 5 else 'train'}" for i, row in enumerate(ROWS)]
    data = load(marked, header=f"{HEADER},part", test="part")
    assert data.test.ids.tolist() == [0, 1, 2, 3, 4]
    assert data.train.inputs.shape[1] == 1 + 2 + 1 + 2  # site, age, sex and ward alone
    (tmp_path / "held.csv").write_text("\n".join([HEADER, "q0,A,90,x,1,no", "q1,A,20,f,1,yes"]))
    data = load(test=str(tmp_path / "held.csv"))
    assert (len(data.train), data.test.ids.tolist()) == (40, [40, 41])
    # learnt from the training rows: 90 years are cut to their range, and x is none of their categories
    assert data.test.inputs[0].max() == 1
    assert data.test.inputs[0].tolist() == [1, 0, 1, 0, 0, 0.5]
    assert any("1 test row outside" in line for line in data.decisions)


def test_test_rows_change_no_training_input(load: Load, tmp_path: Path) -> None:
    held = tmp_path / "held.csv"
    inputs = []
    for line in ("q0,A,90,x,1,no", "q0,A,,z,0,no"):
        held.write_text(f"{HEADER}\n{line}\n")
        inputs.append(load(test=str(held), missing="fill").train.inputs)
    np.testing.assert_array_equal(inputs[0], inputs[1])


def test_missing_cells_are_refused_filled_or_left_out(load: Load) -> None:
    rows = [*ROWS[:3], "p3,A,,?,0,no", *ROWS[4:]]
    with pytest.raises(ComponentError, match=r"row 3 \(line 5\) of .*column age, is missing.*age \(1\), sex \(1\)"):
        load(rows)
    filled = load(rows, missing="fill", test=1)
    assert filled.train.inputs.shape[1] == 2 + 1 + 3 + 1
    assert any("1 missing, filled by the median 23" in line for line in filled.decisions)
    assert 3 not in load(rows, missing="leave_out").train.ids
    assert load(rows, missing="leave_out", test=1).train.ids.max() == 39
    assert len(load(rows, missing="leave_out", drop=["id", "age", "sex"], test=1).train) == 39


@pytest.mark.parametrize(
    ("rows", "fields", "path", "said"),
    [
        (
            [*ROWS, "p40,A,unknown,f,1,no"],
            {},
            "dataset.path",
            r"row 40 \(line 42\) of .*, column age: 'unknown'",
        ),
        ([*ROWS, "p40,A,20,f,1,"], {}, "dataset.target", r"row 40 .*column ill, is missing"),
        ([*ROWS, "p40,,20,f,1,no"], {"client": "site"}, "dataset.client", r"row 40 .*column site, is missing"),
        (ROWS, {"drop": []}, "dataset.drop", r"column id has another value in every row.*drop: \[id\]"),
        (ROWS, {"target": "sick"}, "dataset.target", "no column 'sick'"),
        (ROWS, {"drop": ["id", "aeg"]}, "dataset.drop", "did you mean 'age'"),
        (ROWS[1:4], {}, "dataset.target", "has one class, 'no'"),
        (ROWS, {"target": "id"}, "dataset.target", "40 values in 40 rows"),
        (ROWS, {"ranges": {"age": [9, 1]}}, "dataset.ranges.age", "should rise"),
        (ROWS, {"ranges": {"sex": [0, 1]}}, "dataset.ranges", "is of text"),
        (ROWS, {"max_categories": 2, "categorical": ["age"]}, "dataset.max_categories", "age has 7 categories"),
        (ROWS, {"test": 40}, "dataset.test", "leave none of 40"),
        (ROWS, {"test": 1.5}, "test", "should be less than 1"),
        (ROWS, {"test": "sex"}, "dataset.test", r"row 0 .*'f' says neither test nor train"),
        (ROWS, {"columns": ["ill"]}, "dataset.columns", "ill is named elsewhere as no input"),
        (ROWS, {"client": "ill"}, "dataset.client", "is the target too"),
        (ROWS, {"rows": 39}, "dataset.rows", "exceeds the 32 training rows"),
        (ROWS, {"drop": ["id", "age", "sex", "ward", "site"]}, "dataset.columns", "no column .* is left"),
    ],
)
def test_mistakes_have_key_row_column_and_remedy(
    load: Load, rows: list[str], fields: dict[str, Any], path: str, said: str
) -> None:
    error: ComponentError | ScenarioError
    try:
        load(rows, **fields)
    except (ComponentError, ScenarioError) as raised:
        error = raised
    else:
        pytest.fail("nothing was refused")
    assert re.search(said, str(error))
    assert (error.problems[0].path if isinstance(error, ScenarioError) else error.path) == path


def test_all_unusable_columns_are_named_at_once(load: Load) -> None:
    rows = [*ROWS, "p40,A,old,f,1,no"]
    with pytest.raises(ScenarioError) as caught:
        load(rows, drop=[])
    assert [problem.path for problem in caught.value.problems] == ["dataset.drop", "dataset.path"]


def test_dropped_columns_are_for_selection_alone(load: Load) -> None:
    data = load(columns=["age"], sensitive=["sex"], client="site")
    assert data.dropped == ("id", "ward")
    source = source_rows(data, data.train)
    assert set(source.cells) == {"site", "age", "sex", "ill"}
    assert source.sensitive == ("sex",)
    assert "id" in data.columns, "an injection may select by it"


def test_no_test_cell_decides_how_training_rows_are_encoded(load: Load) -> None:
    def lines(age: str) -> list[str]:
        return [
            *(f"{row},{'test' if i > 30 else 'train'}" for i, row in enumerate(ROWS[:-1])),
            f"q,A,{age},f,1,no,test",
        ]

    def table(age: str, **fields: Any) -> Dataset:
        return load(lines(age), header=f"{HEADER},part", test="part", **fields)

    with pytest.raises(ScenarioError, match=r"row 39.*, column age: '030' is a code with a leading zero"):
        table("030")
    with pytest.raises(ScenarioError, match=r"row 39.*, column age: '1e400' is no number.*too large"):
        table("1e400")
    for fields in ({"drop": ["id", "age"]}, {"sensitive": ["age"]}):
        data, plain = (table(age, **fields) for age in ("030", "30"))
        np.testing.assert_array_equal(data.train.inputs, plain.train.inputs)
        assert data.columns["age"].dtype == plain.columns["age"].dtype == np.int64
        assert all(values.dtype == np.int64 for values in data.sensitive.values())


def test_missing_targets_and_clients_are_reported_together(load: Load) -> None:
    rows = [*ROWS, "p40,A,20,f,1,", "p41,,20,f,1,no", *[f"p{i},A,20,f,1," for i in range(42, 52)]]
    with pytest.raises(ScenarioError) as caught:
        load(rows, client="site")
    messages = [problem.message for problem in caught.value.problems]
    assert len(messages) == 11
    assert "row 40 " in messages[0]
    assert messages[-1] == "… and 2 more mistakes"
