"""What every data set promises, for every file in the folder; published ones are made small, none is downloaded."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.data import DatasetLoader, Examples
from fedmem.datasets.digits import Digits
from fedmem.modalities.labelled_texts import LabelledTexts
from fedmem.modalities.tables import Tables
from fedmem.modalities.texts import Texts
from fedmem.scenario import catalogue
from tests.narrowing import instance, present
from tests.published import idx_images, idx_labels, put_in_cache

every_dataset = pytest.mark.parametrize("kind", catalogue.kinds("dataset"))


def images_of_classes(folder: Path) -> dict[str, Any]:
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in ("cat", "dog", "eel"):
        (folder / label).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(rng.integers(256, size=(9, 12, 3), dtype=np.uint8)).save(folder / label / f"{number}.png")
    return {"path": str(folder), "size": 8, "colours": "rgb"}


def arrays(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    one_hot = np.eye(3)[rng.integers(3, size=60)]
    np.savez(
        folder / "mine.npz",
        inputs=np.concatenate([rng.random((60, 2)), one_hot], axis=1),
        targets=np.arange(60) % 4,
        clients=np.array([f"owner {k % 7}" for k in range(60)]),
        blocks=np.array([1, 1, 3]),
    )
    return {"path": str(folder / "mine.npz")}


def mnist_files(folder: Path) -> dict[str, Any]:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision, an extra, is not installed")
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, rows in (("train", 60), ("t10k", 30)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx_images(rows, rng))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx_labels(rows))
    return {"root": str(folder)}


def parquet(folder: Path) -> dict[str, Any]:
    if importlib.util.find_spec("datasets") is None:
        pytest.skip("datasets, of the extra hub, is not installed")
    import pandas as pd

    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"pixels": list(rng.random((60, 5))), "word": ["ja", "nein", "doch"] * 20, "who": np.arange(60) % 6}
    )
    table.to_parquet(folder / "train.parquet")
    files = (str(folder / "train.parquet"),)
    return {"name": "parquet", "files": files, "inputs": "pixels", "targets": "word", "clients": "who"}


def table_of_people(folder: Path) -> dict[str, Any]:
    rows = [f"{20 + k % 37},{'fm'[k % 2]},person {k % 5},{'yes' if k % 3 else 'no'}" for k in range(60)]
    (folder / "people.csv").write_text("\n".join(["age,sex,who,ill", *rows]))
    return {"path": str(folder / "people.csv"), "target": "ill", "client": "who", "sensitive": ("sex",)}


def texts_of_people(folder: Path) -> dict[str, Any]:
    import pandas as pd

    rows = [(f"person {k % 5}", "old" if k % 5 < 2 else "new", f"Line {k} of what one has to say.") for k in range(60)]
    pd.DataFrame(rows, columns=["who", "age", "said"]).to_csv(folder / "said.csv", index=False)
    return {"path": str(folder / "said.csv"), "client": "who", "text": "said", "attributes": ("age",), "length": 20}


def text_files(folder: Path) -> dict[str, Any]:
    for k in range(5):
        (folder / f"person {k}.txt").write_text("".join(f"Line {n} of what {k} has to say.\n" for n in range(12)))
    return {"path": str(folder), "length": 20}


def labelled_texts(folder: Path) -> dict[str, Any]:
    lines = [f"Line {k} of what one has to say.,{'ab'[k % 2]},person {k % 5}" for k in range(60)]
    (folder / "said.csv").write_text("\n".join(["text,label,who", *lines]))
    return {"path": str(folder / "said.csv"), "client": "who", "max_tokens": 12}


PREPARED: dict[str, Callable[[Path], dict[str, Any]]] = {
    "csv": table_of_people,
    "hub": parquet,
    "image_folder": images_of_classes,
    "labelled_texts": labelled_texts,
    "npz": arrays,
    "text_folder": text_files,
    "text_table": texts_of_people,
    "torchvision": mnist_files,
    "unlabelled": lambda _: {"dataset": Digits()},
}
"""Kinds with fields that have no default: writes files of the user's, where they read some, and gives the fields."""

SMALLER: dict[str, dict[str, Any]] = {"mnist5k": {"test": 50}}
"""Fields that make sense with the made files of a published data set, where the defaults do not."""


@pytest.fixture
def loader(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetLoader:
    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path / "cache"))
    cls = catalogue.load("dataset", kind)
    if hasattr(cls, "published"):
        put_in_cache(kind, tmp_path / "cache", monkeypatch)
    fields = PREPARED[kind](tmp_path) if kind in PREPARED else SMALLER.get(kind, {})
    built = cls(**fields)
    assert isinstance(built, DatasetLoader)
    return built


def same(one: Examples, other: Examples) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("inputs", "targets", "ids"))


@every_dataset
def test_rows_are_whole(kind: str, loader: DatasetLoader) -> None:
    data = loader.load(np.random.default_rng(0))
    assert data.num_classes == 1 if data.modality.densities else data.num_classes >= 2
    assert data.train.inputs.shape[1:] == data.test.inputs.shape[1:]
    assert data.modality.problem(data.train.inputs.shape[1:], data.num_classes) == ""
    for rows in (data.train, data.test):
        assert len(rows) > 0
        assert rows.targets.dtype == rows.ids.dtype == np.int64
        assert rows.inputs.ndim >= 2
        if data.modality.tokens:
            assert rows.inputs.dtype == np.int64
            assert rows.inputs.shape == rows.targets.shape
            assert (
                0
                <= rows.inputs.min()
                <= rows.inputs.max()
                < data.num_classes
                == len(instance(data.modality, Texts).vocabulary)
            )
            assert -1 <= rows.targets.min() <= rows.targets.max() < data.num_classes
            assert (rows.targets >= 0).any(axis=1).all()
            continue
        if data.modality.token_inputs:
            assert rows.inputs.dtype == np.int64
            vocabulary = instance(data.modality, LabelledTexts).vocabulary
            assert -1 <= rows.inputs.min() <= rows.inputs.max() < len(vocabulary)
            assert (np.diff((rows.inputs >= 0).astype(int), axis=1) <= 0).all(), "nothing follows the end of a text"
        else:
            assert rows.inputs.dtype == np.float32
            assert 0 <= rows.inputs.min() <= rows.inputs.max() <= 1
        assert set(rows.targets.tolist()) <= set(range(data.num_classes))
    assert data.modality.tokens or set(data.train.targets.tolist()) == set(range(data.num_classes))


@every_dataset
def test_every_row_has_a_number_of_its_own(kind: str, loader: DatasetLoader) -> None:
    data = loader.load(np.random.default_rng(0))
    ids = np.concatenate([data.train.ids, data.test.ids])
    assert ids.min() >= 0
    assert len(np.unique(ids)) == len(ids)


@every_dataset
def test_owners_sensitive_values_and_blocks_fit_the_rows(kind: str, loader: DatasetLoader) -> None:
    data = loader.load(np.random.default_rng(0))
    if data.natural is not None:
        assert data.natural.shape == (len(data.train),)
        assert data.natural.dtype == np.int64
    for values in data.sensitive.values():
        assert values.shape == (len(data.train),)
        assert values.dtype.kind in "iU"
    blocks = data.modality.blocks if isinstance(data.modality, Tables) else ()
    for end, size in zip(np.cumsum(blocks), blocks, strict=True):
        for rows in (data.train, data.test):
            group = rows.inputs[:, end - size : end]
            assert size == 1 or (set(np.unique(group)) <= {0, 1} and (group.sum(axis=1) == 1).all())


@every_dataset
def test_is_a_function_of_the_generator(kind: str, loader: DatasetLoader) -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002 (the global generator must stay untouched)
    first, second = (loader.load(np.random.default_rng(3)) for _ in range(2))
    assert same(first.train, second.train)
    assert same(first.test, second.test)
    assert first.natural is second.natural is None or np.array_equal(present(first.natural), present(second.natural))
    np.testing.assert_array_equal(before, np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002


@every_dataset
def test_changing_loaded_rows_does_not_change_the_next_load(kind: str, loader: DatasetLoader) -> None:
    first = loader.load(np.random.default_rng(0))
    kept = first.train.inputs.copy()
    first.train.inputs[:] = 0
    assert np.array_equal(loader.load(np.random.default_rng(0)).train.inputs, kept)
