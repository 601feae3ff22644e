"""A user's own arrays: what is read, and what every mistake is answered with."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy import generic

from fedmem.contracts.data import Dataset
from fedmem.datasets.npz import Npz
from fedmem.errors import ComponentError
from fedmem.modalities.tables import Tables
from tests.datasets.npz_helpers import X, Y
from tests.narrowing import present


def test_values_labels_and_numbers_are_those_of_the_file(load: Callable[..., Dataset]) -> None:
    data = load(inputs=X, targets=Y)
    assert (len(data.train), len(data.test), data.num_classes, data.natural, data.modality) == (
        16,
        4,
        2,
        None,
        Tables(),
    )
    for rows in (data.train, data.test):
        np.testing.assert_array_equal(rows.inputs, X[rows.ids])
        np.testing.assert_array_equal(rows.targets, Y[rows.ids])


@pytest.mark.parametrize(
    ("shape", "dtype", "becomes"),
    [
        ((20, 6, 5), np.uint8, (1, 6, 5)),
        ((20, 3, 6, 5), np.uint8, (3, 6, 5)),
        ((20, 7), np.bool_, (7,)),
        ((20, 2, 6, 5), np.float64, (2, 6, 5)),
        ((20, 4, 3), np.float16, (1, 4, 3)),
    ],
)
def test_shapes_and_types(
    load: Callable[..., Dataset], shape: tuple[int, ...], dtype: type[generic], becomes: tuple[int, ...]
) -> None:
    raw = np.random.default_rng(0).random(shape)
    raw = (raw * 255).astype(dtype) if dtype is np.uint8 else raw.astype(dtype)
    data = load(x=raw, y=Y)
    assert data.train.inputs.shape == (16, *becomes)
    expected = raw.reshape(20, *becomes)[data.train.ids] / (255 if dtype is np.uint8 else 1)
    np.testing.assert_allclose(data.train.inputs, expected.astype(np.float64), rtol=1e-6)


def test_test_rows_of_the_file_are_the_test_set(load: Callable[..., Dataset]) -> None:
    data = load(x_train=X, y_train=Y, x_test=X[:6] / 2, y_test=Y[:6])
    assert (len(data.train), data.test.ids.tolist()) == (20, [20, 21, 22, 23, 24, 25])
    np.testing.assert_array_equal(data.test.inputs, X[:6] / 2)
    data = load(x_train=X, y_train=Y, x_test=X[:6], y_test=Y[:6], fields={"rows": 10, "test": 2})
    assert (np.bincount(data.train.targets).tolist(), np.bincount(data.test.targets).tolist()) == ([5, 5], [1, 1])


def test_owners_follow_their_rows(load: Callable[..., Dataset]) -> None:
    names = np.array([f"person {k % 5}" for k in range(20)])
    data = load(x=X, y=Y, clients=names)
    assert [f"person {k}" for k in present(data.natural)] == names[data.train.ids].tolist()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": X}, "no array targets or y or y_train; it has x"),
        ({"x": X, "inputs": X, "y": Y}, "has both inputs and x; keep one"),
        ({"x": X[:, 0], "y": Y}, r"shape \(20,\)\. Give a table \(rows, features\)"),
        ({"x": X[:0], "y": Y[:0]}, "at least one row"),
        ({"x": X[:19], "y": Y}, r"targets has shape \(20,\), but there are 19 rows"),
        ({"x": np.where(X > 0.9, np.nan, X), "y": Y}, "NaN or infinity in 2 of 20 rows, first in row 18"),
        ({"x": X * 300, "y": Y}, "runs from 0 to 300.*scale each column by a range"),
        ({"x": np.full((20, 4, 4), 255), "y": Y}, "divide images by 255"),
        ({"x": np.ones((20, 4, 4), np.uint8), "y": Y}, "none exceeds 1"),
        ({"x": np.zeros((20, 9, 9, 3), np.uint8), "y": Y}, r"channels last; use its transpose\(0, 3, 1, 2\)"),
        ({"x": X.astype("U"), "y": Y}, "should hold numbers"),
        ({"x": X.astype(complex), "y": Y}, "should hold numbers"),
        ({"x": X, "y": Y.astype(float)}, "whole numbers from 0; number the classes"),
        ({"x": X, "y": Y.astype("U")}, "return_inverse"),
        ({"x": X, "y": Y - 1}, "goes down to -1"),
        ({"x": X, "y": Y * 2}, "labels should be 0 to 1 without a gap, but class 1 has no row"),
        ({"x": X, "y": Y * 10**12}, "2 classes go up to 1000000000000"),
        ({"x": X, "y": Y * 0}, "all rows are of one class"),
        ({"x": X, "y": Y, "x_test": X}, "only one of test_inputs and test_targets"),
        ({"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y}, r"test inputs have shape \(2,\), training inputs \(3,\)"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y + 1}, "no training row is left of class 2"),
        ({"x": X, "y": Y, "clients": np.arange(19)}, "owner of each of the 20 rows"),
        ({"x": X, "y": Y, "clients": np.full(20, 0.5)}, "whole number or text"),
        ({"x": X, "y": Y, "blocks": [1, 1]}, "blocks add up to 2 columns, but inputs has 3"),
        ({"x": X, "y": Y, "blocks": [1, 2]}, "columns 1 to 2 should be a one-hot of 2"),
        ({"x": X, "y": Y, "blocks": [3.0]}, "blocks .* holds float64"),
        ({"x": np.array([None] * 20), "y": Y}, "not as Python objects"),
    ],
)
def test_mistakes_are_answered_with_their_remedy(
    load: Callable[..., Dataset], arrays: dict[str, Any], says: str
) -> None:
    with pytest.raises(ComponentError, match=says) as caught:
        load(**arrays)
    assert caught.value.path == "dataset.path"


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
            return (open, (str(tmp_path / "exploded"), "w"))

    np.savez(tmp_path / "mine.npz", x=np.array([Bomb()], dtype=object), y=[0])
    with pytest.raises(ComponentError, match="allow_pickle"):
        Npz(path=str(tmp_path / "mine.npz")).load(np.random.default_rng(0))
    assert not (tmp_path / "exploded").exists()


def test_no_file_and_a_file_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=r"there is no file .*mine\.npz"):
        Npz(path=str(tmp_path / "mine.npz")).load(np.random.default_rng(0))
    np.save(tmp_path / "mine.npy", X)
    with pytest.raises(ComponentError, match=r"is no \.npz file; write one with numpy\.savez"):
        Npz(path=str(tmp_path / "mine.npy")).load(np.random.default_rng(0))


def test_a_checksum_pins_the_file(load: Callable[..., Dataset], tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=X, y=Y)
    right = hashlib.sha256((tmp_path / "mine.npz").read_bytes()).hexdigest()
    assert len(load(x=X, y=Y, fields={"sha256": right}).train) == 16
    with pytest.raises(ComponentError, match=f"checksum .*, not {right}") as caught:
        load(x=X / 2, y=Y, fields={"sha256": right})
    assert caught.value.path == "dataset.sha256"


def test_class_names_are_those_of_the_file(load: Callable[..., Dataset]) -> None:
    assert load(x=X, y=Y, class_names=np.array(["well", "ill"])).class_names == ("well", "ill")
    for names in (np.array(["well"]), np.array(["a", "a"]), np.array([1, 2])):
        with pytest.raises(ComponentError, match=r"class_names .* should name each of 2 classes"):
            load(x=X, y=Y, class_names=names)
