"""Data sets by the library of the hub, from small local files; nothing here asks the hub."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.data import Dataset
from fedmem.datasets.hub import Hub
from fedmem.errors import ComponentError
from tests.narrowing import present

needs_datasets = pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="of the extra hub")
WORDS = ["nein", "ja"] * 10


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, FloatArray]:
    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path / "cache"))
    values = np.random.default_rng(0).random((20, 3))
    frame = pd.DataFrame({"x": list(values), "y": WORDS, "who": [f"w{k % 4}" for k in range(20)], "n": range(20)})
    frame.to_parquet(tmp_path / "a.parquet")
    frame[:6].to_parquet(tmp_path / "b.parquet")
    return str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"), values


def load(**fields: Any) -> Dataset:
    return Hub(**{"name": "parquet", "inputs": "x", "targets": "y"} | fields).load(np.random.default_rng(0))


@needs_datasets
def test_columns_become_rows(table: tuple[str, str, FloatArray]) -> None:
    train, test, values = table
    data = load(files=(train,), test_files=(test,), clients="who")
    np.testing.assert_allclose(data.train.inputs, values.astype(np.float32))
    assert data.train.targets.tolist() == [1, 0] * 10  # "ja" < "nein"
    assert data.class_names == ("ja", "nein")
    assert data.test.ids.tolist() == [20, 21, 22, 23, 24, 25]
    assert present(data.natural).tolist() == [k % 4 for k in range(20)]


@needs_datasets
def test_changed_local_files_are_read_again(table: tuple[str, str, FloatArray]) -> None:
    before, then = load(files=(table[0],)), Path(table[0]).stat()
    frame = pd.read_parquet(table[0])
    frame["x"] = list(1 - table[2])
    frame.to_parquet(table[0])
    os.utime(table[0], ns=(then.st_atime_ns, then.st_mtime_ns))
    np.testing.assert_allclose(load(files=(table[0],)).train.inputs, 1 - before.train.inputs, atol=1e-6)


@needs_datasets
def test_without_a_test_split_one_is_drawn(table: tuple[str, str, FloatArray]) -> None:
    data = load(files=(table[0],), rows=8, test=4, clients="who")
    assert (len(data.train), len(data.test)) == (8, 4)
    assert not set(data.train.ids.tolist()) & set(data.test.ids.tolist())
    assert present(data.natural).tolist() == (data.train.ids % 4).tolist()
    np.testing.assert_allclose(data.test.inputs, table[2][data.test.ids].astype(np.float32))


@needs_datasets
def test_image_columns_load_with_class_names_sizes_and_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(256, size=(10, 6, 9), dtype=np.uint8)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [Image.fromarray(picture) for picture in pixels], "label": [0, 1] * 5}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "p.parquet"))
    data = load(files=(str(tmp_path / "p.parquet"),), inputs="image", targets="label")
    np.testing.assert_allclose(data.train.inputs[:, 0] * 255, pixels[data.train.ids], atol=1e-4)
    assert data.class_names == ("a", "b")
    small = load(files=(str(tmp_path / "p.parquet"),), inputs="image", targets="label", size=4, colours="rgb")
    assert small.train.inputs.shape == (8, 3, 4, 4)


@needs_datasets
@pytest.mark.parametrize(
    ("fields", "path", "says"),
    [
        ({"inputs": "z"}, "dataset.inputs", "there is no column 'z'; choose from: x, y, who, n"),
        ({"targets": "x"}, "dataset.targets", "should be one whole number or text a row"),
        ({"clients": "whom"}, "dataset.clients", "did you mean 'who'"),
        ({"inputs": "n"}, "dataset.inputs", r"shape \(20,\)"),
        ({"name": "parkett"}, "dataset.name", "did you mean 'parquet'"),
        ({"files": (), "test_files": ("b",)}, "dataset.files", "name the training files as well"),
        ({"files": ("none.parquet",)}, "dataset.files", "cannot be loaded"),
    ],
)
def test_mistakes_are_answered_with_their_remedy(
    table: tuple[str, str, FloatArray], fields: dict[str, Any], path: str, says: str
) -> None:
    with pytest.raises(ComponentError, match=says) as caught:
        load(**{"files": (table[0],)} | fields)
    assert caught.value.path == path


@needs_datasets
@pytest.mark.parametrize(
    ("fields", "path"), [({}, "dataset.test_split"), ({"train_split": "all"}, "dataset.train_split")]
)
def test_a_split_that_is_not_there(
    table: tuple[str, str, FloatArray], monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], path: str
) -> None:
    import datasets

    loaded = datasets.DatasetDict({"train": datasets.Dataset.from_parquet(table[0], cache_dir=table[0] + ".cache")})
    given = []

    def load_dataset(*words: Any, **named: Any) -> datasets.DatasetDict:
        given.append((words, named))
        return loaded

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ComponentError, match="choose from: train") as caught:
        load(name="some/data", subset="small", revision="abc", **fields)
    assert caught.value.path == path
    assert given[0][0] == ("some/data",)
    assert (given[0][1]["name"], given[0][1]["revision"]) == ("small", "abc")
    assert len(load(name="some/data", test_split="").train) == 16


def test_missing_datasets_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ComponentError, match=r"pip install 'fedmem\[hub\]'"):
        load()
