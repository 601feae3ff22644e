"""The evidence of a bank as `evidence.parquet` and back, bit for bit.

Each block is a row group, so that a block is read alone. Losses of margins in float32 follow from them and are missing.
The margins have a column of float64, in which the rounded digits are zeros that take no room.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.evidence import Evidence, EvidenceHead
from fedmem.contracts.stored_evidence import StoredEvidence
from fedmem.errors import RunError
from fedmem.modalities.scores import losses_of_stored
from fedmem.results.arrow import Column, Nullable, Text, numbers
from fedmem.results.tables import LAYOUT, make_table, schema_of, write_table

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

IN_MEMORY = 2**20
"""The most rows of test set and population in a file that are read at once. Of more, each block is read when used."""

_COLUMNS = (
    "run:int32 round:int32 level:text client:int32 set:text subject:int32 loss:float64 margin:float64 correct:{correct}"
)


def schema_of_evidence(block: Evidence | None) -> pa.Schema:
    """The columns of a block: of a text a share of tokens is correct."""
    return schema_of(_COLUMNS.format(correct="float64" if block is not None and block.has_shares else "bool"))


def write_evidence(folder: Path, blocks: Sequence[Evidence]) -> None:
    """Writes `evidence.parquet`."""
    schema = schema_of_evidence(blocks[0] if blocks else None)
    layout: Any = [evidence_layout(block) for block in blocks]
    # where there is less of all else, the numbers of examples would take a fifth of the room
    is_small = any(block.rows is not None or block.dtype != np.float64 for block in blocks)
    steady = ("subject",) if is_small else ()
    write_table(folder, "evidence", map(evidence_rows, blocks), layout, schema=schema, steady=steady)


def evidence_rows(block: Evidence) -> pa.Table:
    """One row per transition and example, transition by transition."""
    models, examples = block.shape
    subjects = np.arange(examples) if block.rows is None else block.rows
    margin = block.margin.ravel()
    is_rounded = margin.dtype != np.float64
    none = Nullable(values=np.zeros(margin.size), missing=np.ones(margin.size, dtype=np.bool_))
    loss: Column = none if is_rounded else block.loss.ravel()
    return make_table(
        schema_of_evidence(block),
        {
            "run": np.repeat(block.run.astype(np.int32), examples),
            "round": np.full(block.size, block.round, dtype=np.int32),
            "level": Text.repeat_word(block.level, block.size),
            "client": np.repeat(block.client.astype(np.int32), examples),
            "set": Text.repeat_word(block.set, block.size),
            "subject": np.tile(subjects.astype(np.int32), models),
            "loss": loss,
            "margin": margin,
            "correct": block.correct.ravel(),
        },
    )


def evidence_layout(block: Evidence) -> dict[str, Any]:
    """The layout of a block that its rows do not show: where it ends, and its models and rows if it is empty."""
    layout: dict[str, Any] = {"round": block.round, "level": block.level, "set": block.set, "shape": block.shape}
    if block.dtype != np.float64:
        layout["precision"] = block.dtype.name
    if block.rows is not None:
        layout["rows"] = None if block.size else block.rows.tolist()
    return layout if block.size else {**layout, "run": block.run.tolist(), "client": block.client.tolist()}


def read_evidence(path: Path, in_memory: int = IN_MEMORY) -> Iterator[Evidence]:
    """The blocks of `evidence.parquet`.

    Where test set and population have more than `in_memory` rows, their values are read when they are used. All values
    are read once in any case, so that a damaged file is an error now.
    """
    import pyarrow.parquet as pq

    # not `read_table`, which takes any data set and loads pandas for it
    with pq.ParquetFile(path) as file:
        layout = json.loads(file.schema_arrow.metadata[LAYOUT])
        sizes = [math.prod(block["shape"]) for block in layout]
        if sum(sizes) != file.metadata.num_rows:
            raise ValueError(f"it has {file.metadata.num_rows} rows, and its blocks have {sum(sizes)}")
        others = sum(size for block, size in zip(layout, sizes, strict=True) if block["set"] != "audit")
        values, start = _StoredValues(path), 0
        for block, size in zip(layout, sizes, strict=True):
            stays = others > in_memory and block["set"] != "audit"
            yield _read_block(file, block, start, values if stays else None)
            start += size


def _read_block(file: pq.ParquetFile, block: Mapping[str, Any], start: int, stored: _StoredValues | None) -> Evidence:
    """A block whose first row is `start`; its values stay in the file where it is `stored`."""
    models, examples = block["shape"]
    columns = ["run", "client", *_VALUES, *(["subject"] if "rows" in block else [])]
    columns_of_block = _read_columns(file, start, models * examples, columns)
    run, client = (
        np.array(block.get(name, columns_of_block[name][:: examples or 1]), dtype=np.int32)
        for name in ("run", "client")
    )
    rows: IntArray | None = None
    if "rows" in block:
        rows = np.array(columns_of_block["subject"][:examples] if block["rows"] is None else block["rows"], np.int64)
    values = {name: _values(columns_of_block, name, block) for name in _VALUES}
    head = EvidenceHead(round=block["round"], level=block["level"], set=block["set"], run=run, client=client, rows=rows)
    if stored is None:
        return Evidence(**{**vars(head), **values})
    return StoredEvidence(
        head,
        examples=examples,
        dtype=values["margin"].dtype,
        has_shares=values["correct"].dtype != np.bool_,
        read=partial(stored.read, block, start),
    )


_VALUES = ("loss", "margin", "correct")


def _values(columns: Mapping[str, NDArray[Any]], name: str, block: Mapping[str, Any]) -> NDArray[Any]:
    """The values (T, n) of a name, in the precision of the block."""
    if "precision" not in block or name == "correct":
        return columns[name].reshape(block["shape"])
    margin = columns["margin"].astype(block["precision"]).reshape(block["shape"])
    return margin if name == "margin" else losses_of_stored(margin)


def with_losses(table: pa.Table) -> pa.Table:
    """The table with the losses that are not stored, which follow from margins in float32."""
    import pyarrow as pa

    stored = table.column("loss")
    if not stored.null_count:
        return table
    missing = numbers(stored.is_null())
    loss = numbers(stored).copy()
    loss[missing] = losses_of_stored(numbers(table.column("margin"))[missing].astype(np.float32))
    return table.set_column(table.schema.get_field_index("loss"), "loss", pa.array(loss))


class _StoredValues:
    """Reads values of blocks from a file, and keeps those that it has read last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: tuple[Mapping[str, Any], str, NDArray[Any]] | None = None

    def read(self, block: Mapping[str, Any], start: int, name: str) -> NDArray[Any]:
        """The values (T, n) of the block whose first row is `start`.

        Errors: `RunError` where the file has changed since its blocks were read.
        """
        import pyarrow.parquet as pq

        if self._last is None or self._last[0] is not block or self._last[1] != name:
            needed = ["margin" if name == "loss" and "precision" in block else name]
            try:
                with pq.ParquetFile(self._path) as file:
                    columns = _read_columns(file, start, math.prod(block["shape"]), needed)
            except (OSError, ValueError, KeyError) as error:
                raise RunError(f"{self._path} was changed while it was read ({error}); read the run again") from error
            self._last = block, name, _values(columns, name, block)
        return self._last[2]


def _read_columns(file: pq.ParquetFile, start: int, count: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Columns of `count` rows from the row `start` on."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    ends = np.cumsum(sizes, dtype=np.int64)
    groups = np.flatnonzero((ends > start) & (ends - sizes < start + count))
    table = file.read_row_groups(groups.tolist(), columns=list(names))
    offset = start - int(ends[groups[0]] - sizes[groups[0]]) if len(groups) else 0
    return {name: numbers(table.column(name))[offset : offset + count] for name in names}
