"""Data sets of torchvision, read by torchvision from small files in the published formats."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.data import Dataset
from fedmem.datasets._idx import pack
from fedmem.datasets.torchvision import Torchvision
from fedmem.errors import ComponentError

needs_torchvision = pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="an extra")
RNG = np.random.default_rng(0)
IMAGES = {
    "train": RNG.integers(256, size=(40, 28, 28), dtype=np.uint8),
    "test": RNG.integers(256, size=(20, 28, 28), dtype=np.uint8),
}
LABELS = {name: (np.arange(len(images)) % 10).astype(np.uint8) for name, images in IMAGES.items()}


def load(name: str, root: Path, **fields: Any) -> Dataset:
    return Torchvision(name=name, root=str(root), **fields).load(np.random.default_rng(0))


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, name in (("train", "train"), ("test", "t10k")):
        (raw / f"{name}-images-idx3-ubyte").write_bytes(pack(IMAGES[part]))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(pack(LABELS[part]))
    return tmp_path


@needs_torchvision
def test_mnist_is_what_the_files_say(mnist: Path) -> None:
    data = load("MNIST", mnist)
    np.testing.assert_array_equal(data.train.inputs[:, 0] * np.float32(255), IMAGES["train"].astype(np.float32))
    np.testing.assert_array_equal(data.train.targets, LABELS["train"])
    assert data.test.ids.tolist() == list(range(40, 60))
    assert data.num_classes == 10
    small = load("MNIST", mnist, rows=20, test=10, size=14, colours="rgb")
    assert small.train.inputs.shape == (20, 3, 14, 14)
    assert np.bincount(small.train.targets).tolist() == [2] * 10


@needs_torchvision
def test_emnist_needs_a_split_and_alphabet_labels_start_at_0(tmp_path: Path) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "test"):
        (raw / f"emnist-letters-{part}-images-idx3-ubyte").write_bytes(pack(IMAGES[part]))
        (raw / f"emnist-letters-{part}-labels-idx1-ubyte").write_bytes(pack(LABELS[part] + 1))
    data = load("EMNIST", tmp_path, split="letters")
    np.testing.assert_array_equal(data.train.targets, LABELS["train"])
    with pytest.raises(ComponentError, match="several versions"):
        load("EMNIST", tmp_path)


@needs_torchvision
def test_a_class_with_split_instead_of_train(tmp_path: Path) -> None:
    from scipy.io import savemat

    for part in ("train", "test"):
        pictures = np.repeat(IMAGES[part].transpose(1, 2, 0)[:, :, None], 3, axis=2)
        savemat(tmp_path / f"{part}_32x32.mat", {"X": pictures, "y": LABELS[part][:, None]})
    from torchvision.datasets import SVHN

    checks = {part: [*SVHN.split_list[part][:2], ""] for part in ("train", "test")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SVHN, "split_list", checks)
        patch.setattr("torchvision.datasets.svhn.check_integrity", lambda *_: True)
        data = load("SVHN", tmp_path, colours="rgb")
    assert data.train.inputs.shape == (40, 3, 28, 28)
    np.testing.assert_array_equal(data.train.targets, LABELS["train"])


@needs_torchvision
@pytest.mark.parametrize(
    ("name", "fields", "path", "says"),
    [
        ("MNIST", {}, "dataset.root", "set download to true, or put its files there"),
        ("MNITS", {}, "dataset.name", "did you mean 'MNIST'"),
        ("Caltech256", {}, "dataset.name", "no training and test part"),
        ("SVHN", {"split": "extra"}, "dataset.split", "no training and test part"),
    ],
)
def test_mistakes_are_answered_with_their_remedy(
    tmp_path: Path, name: str, fields: dict[str, str], path: str, says: str
) -> None:
    with pytest.raises(ComponentError, match=says) as caught:
        load(name, tmp_path, **fields)
    assert caught.value.path == path


def test_without_torchvision_the_command_to_install_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(ComponentError, match=r"pip install 'fedmem\[torchvision\]'"):
        load("MNIST", tmp_path)
