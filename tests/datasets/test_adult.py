"""The census table: what each record becomes, and that no row tells of another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.data import Dataset
from fedmem.datasets import adult
from fedmem.datasets.adult import Adult
from fedmem.modalities.tables import Tables
from tests.narrowing import instance
from tests.published import put_in_cache


@pytest.fixture(autouse=True)
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_cache("adult", tmp_path, monkeypatch)


def load(**fields: Any) -> Dataset:
    return Adult(**fields).load(np.random.default_rng(0))


def decoded(row: FloatArray, names: Sequence[str], blocks: Sequence[int]) -> dict[str, int | str]:
    """The record of an input row, by hand."""
    found: dict[str, int | str] = {}
    for name, start, size in zip(names, np.cumsum((0, *blocks)), blocks, strict=False):
        group, allowed = row[start : start + size], adult._COLUMNS[name]
        if size == 1:
            low, high = int(allowed[0]), int(allowed[-1])
            found[name] = round(float(group[0]) * (high - low) + low)
        else:
            found[name] = allowed[int(np.argmax(group))]
    return found


def test_records_come_back_from_their_rows() -> None:
    data = load(include_sensitive=True)
    assert data.train.inputs.shape == (60, 108)
    names = list(adult._COLUMNS)
    first, second, third = (
        decoded(row, names, instance(data.modality, Tables).blocks) for row in data.train.inputs[:3]
    )
    assert (first["age"], first["workclass"], first["capital-gain"], first["sex"]) == (39, "State-gov", 2174, "Male")
    assert (second["marital-status"], second["native-country"]) == ("Married-civ-spouse", "?")
    assert (third["education"], third["capital-loss"], third["hours-per-week"]) == ("Preschool", 4356, 1)
    assert data.train.targets[:3].tolist() == data.test.targets[:3].tolist() == [0, 1, 0]
    np.testing.assert_array_equal(data.train.inputs[:3], data.test.inputs[:3])


def test_sensitive_attributes_are_not_inputs_and_follow_rows() -> None:
    data = load()
    assert data.train.inputs.shape == (60, 93)
    assert instance(data.modality, Tables).blocks == (9, 1, 16, 1, 15, 6, 1, 1, 1, 42)
    assert data.sensitive["age"][:3].tolist() == [39, 52, 17]
    assert data.sensitive["sex"][:3].tolist() == ["Male", "Female", "Female"]
    assert data.sensitive["race"][:3].tolist() == ["White", "Black", "Other"]
    assert data.sensitive["marital-status"][:3].tolist() == ["Never-married", "Married-civ-spouse", "Widowed"]
    drawn = load(rows=10)
    assert drawn.sensitive["age"].tolist() == [[39, 52, 17][k % 3] for k in drawn.train.ids]


def test_a_row_is_the_same_whatever_else_is_drawn() -> None:
    """Ranges are fixed: were they those of the rows at hand, a row would tell of the largest and smallest of others."""
    whole, few = load(), load(rows=10)
    at = np.searchsorted(whole.train.ids, few.train.ids)
    np.testing.assert_array_equal(whole.train.inputs[at], few.train.inputs)


def test_numbers_beyond_their_range_are_clipped() -> None:
    scaled = adult._encode(np.array([0, 17, 90, 120]), (17, 90))
    assert scaled[:, 0].tolist() == [0, 0, 1, 1]


def test_every_column_is_described_once() -> None:
    assert len(adult._COLUMNS) == 14
    for allowed in adult._COLUMNS.values():
        assert len(set(allowed)) == len(allowed) >= 2


def test_the_small_draw_is_stratified() -> None:
    data = load(rows=30, test=12)
    assert np.bincount(data.train.targets).tolist() == [20, 10]
    assert np.bincount(data.test.targets).tolist() == [8, 4]
    assert data.test.ids.min() >= 32_561
