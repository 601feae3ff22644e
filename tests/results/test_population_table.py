"""Tests of `fedmem/results/population_table.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmem.execution.run import measure, run
from fedmem.results.population_table import read_population, write_population
from fedmem.results.read import read
from tests.tiny import tiny


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_inputs_come_back_bit_for_bit(dtype: type, tmp_path: Path) -> None:
    inputs: NDArray[Any] = (100 * np.random.default_rng(0).standard_normal((5, 2, 3))).astype(dtype)
    write_population(tmp_path, {"population": inputs})
    found = read_population(tmp_path / "population.parquet", 5)["population"]
    assert found.dtype == inputs.dtype
    assert found.shape == inputs.shape
    assert found.tobytes() == inputs.tobytes()


def test_no_file_without_inputs(tmp_path: Path) -> None:
    write_population(tmp_path, {})
    assert list(tmp_path.iterdir()) == []
    assert read_population(tmp_path / "population.parquet", None) == {}


def test_missing_rows_are_an_error(tmp_path: Path) -> None:
    write_population(tmp_path, {"population": np.zeros((4, 2), np.float32)})
    with pytest.raises(ValueError, match="4 rows, 5 were written"):
        read_population(tmp_path / "population.parquet", 5)


@pytest.mark.slow
def test_estimates_can_be_made_again_from_stored_inputs(tmp_path: Path) -> None:
    attack = {"kind": "quantile_regression", "features": 2}
    scenario = tiny(population=60, rounds=1, observe={}, estimators=[{"kind": "membership", "attack": attack}])
    folder = run(scenario, out=tmp_path)
    written = list(read(folder).rows())
    assert sum(row.reading.metric == "auc" for row in written) > 0
    measure(folder)
    assert repr(list(read(folder).rows())) == repr(written), "as text, in which NaN equals NaN"
    assert (folder / "population.parquet").exists()
