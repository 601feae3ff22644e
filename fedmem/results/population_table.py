"""The reference data that attacks read, as an Arrow table and back, bit for bit: `population.parquet`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.results.arrow import Column, Lists, numbers
from fedmem.results.tables import make_table, read_table, schema_of, write_table


def write_population(folder: Path, inputs: Mapping[str, NDArray[Any]]) -> None:
    """Writes `population.parquet` where the bank holds the inputs of the population."""
    if "population" not in inputs:
        return
    rows = inputs["population"]
    size = rows[0].size if len(rows) else 0
    schema = schema_of(f"subject:int64 inputs:[{rows.dtype.name}]")
    columns: dict[str, Column] = {
        "subject": np.arange(len(rows), dtype=np.int64),
        "inputs": Lists(values=rows.ravel(), sizes=np.full(len(rows), size)),
    }
    write_table(folder, "population", [make_table(schema, columns)], {"inputs": rows.shape}, schema=schema)


def read_population(path: Path, written: int | None) -> dict[str, NDArray[Any]]:
    """The inputs by the name of their set; empty where none were written. `ValueError` if not all are there."""
    if written is None:
        return {}
    table, layout = read_table(path)
    if table.num_rows != written:
        raise ValueError(f"it has {table.num_rows} rows, {written} were written")
    values: NDArray[Any] = numbers(table.column("inputs").combine_chunks().flatten())
    return {"population": values.reshape(layout["inputs"])}
