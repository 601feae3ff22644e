"""Fixtures of several files of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fedmem.contracts.data import Dataset
from fedmem.datasets.npz import Npz
from fedmem.datasets.text_table import TextTable


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Dataset]:
    def write_and_load(rng: int = 0, *, fields: dict[str, Any] | None = None, **arrays: NDArray[Any]) -> Dataset:
        np.savez(tmp_path / "mine.npz", allow_pickle=True, **arrays)
        return Npz(path=str(tmp_path / "mine.npz"), **(fields or {})).load(np.random.default_rng(rng))

    return write_and_load


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of five plain pictures, class and number told by their grey level."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "all" / name).mkdir(parents=True)
        for number in range(5):
            level = 100 * label + number
            Image.fromarray(np.full((10, 14), level, np.uint8)).save(tmp_path / "all" / name / f"{number}.png")
    (tmp_path / "all" / ".thumbnails").mkdir()
    (tmp_path / "all" / "cat" / ".notes").write_text("no picture")
    (tmp_path / "all" / "dog" / "Thumbs.db").write_text("no picture")
    return tmp_path / "all"


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., TextTable]:
    def write(rows: Sequence[Sequence[str | None]], name: str = "said.csv", **fields: Any) -> TextTable:
        import pandas as pd

        frame = pd.DataFrame(rows, columns=["client", "text", "party"])
        path = tmp_path / name
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
        return TextTable(path=str(path), **{"length": 9, **fields})

    return write


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
