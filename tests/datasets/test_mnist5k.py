"""Tests of `fedmem/datasets/mnist5k.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedmem.datasets import mnist5k
from fedmem.datasets._idx import parse
from fedmem.datasets.mnist5k import Mnist5k
from fedmem.errors import FedmemError
from fedmem.federation import fetch
from fedmem.fetched.sources import (
    Web,
)
from tests.published import pretend


def test_the_table_of_mnist5k_becomes_images_and_labels(tmp_path: Path) -> None:
    pixels = np.arange(784 * 3, dtype=np.int64).reshape(3, 784) % 256
    rows = np.concatenate([pixels, [[7], [0], [9]]], axis=1)
    (tmp_path / "mnist_5k.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    mnist5k._convert(tmp_path)
    images = parse((tmp_path / "images-idx3-ubyte").read_bytes())
    assert np.array_equal(images.reshape(3, 784), pixels)
    assert parse((tmp_path / "labels-idx1-ubyte").read_bytes()).tolist() == [7, 0, 9]
    # as the format is defined: magic number, three lengths, bytes
    assert (tmp_path / "images-idx3-ubyte").read_bytes()[:16].hex() == "00000803" + "00000003" + "0000001c" * 2


def test_a_table_that_cannot_be_converted_is_a_cause(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("not,numbers")
    source = Web(description="text", files={"mnist_5k.csv": (tmp_path / "t.csv").as_uri()})
    item = replace(pretend("mnist5k", monkeypatch, source), convert=mnist5k._convert)
    monkeypatch.setattr(Mnist5k, "published", item)
    with pytest.raises(FedmemError, match="text: what it brought cannot be read"):
        fetch.fetch("mnist5k")
