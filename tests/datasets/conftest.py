"""Fixtures of several files of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmem.contracts.data import Dataset
from fedmem.datasets.npz import Npz


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Dataset]:
    def write_and_load(rng: int = 0, *, fields: dict[str, Any] | None = None, **arrays: NDArray[Any]) -> Dataset:
        np.savez(tmp_path / "mine.npz", allow_pickle=True, **arrays)
        return Npz(path=str(tmp_path / "mine.npz"), **(fields or {})).load(np.random.default_rng(rng))

    return write_and_load
