"""The values of signals as Arrow tables and back, bit for bit: `signals.parquet` and `set_signals.parquet`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.evidence import SignalEvidence
from fedmem.results.arrow import Column, Text, numbers
from fedmem.results.tables import make_table, read_table, schema_of, write_table

if TYPE_CHECKING:
    import pyarrow as pa

SIGNALS = "signals"
"""The file of the values on the audit set."""

SET_SIGNALS = "set_signals"
"""The file of the values on other sets."""

SIGNAL_FILES = (SIGNALS, SET_SIGNALS)

_COLUMNS = {
    SIGNALS: "run:int32 round:int32 level:text client:int32 name:text subject:int32 value:float64",
    SET_SIGNALS: "run:int32 round:int32 level:text client:int32 set:text name:text subject:int32 value:float32",
}


def file_of(block: SignalEvidence) -> str:
    """The name of the file that holds a block."""
    return SIGNALS if block.set == "audit" else SET_SIGNALS


def signal_rows(block: SignalEvidence) -> pa.Table:
    """One row per transition and example, transition by transition."""
    models, examples = block.values.shape
    size = block.values.size
    rows = np.arange(examples) if block.rows is None else block.rows
    columns: dict[str, Column] = {
        "run": np.repeat(block.run.astype(np.int32), examples),
        "round": np.full(size, block.round, dtype=np.int32),
        "level": Text.repeat_word(block.level, size),
        "client": np.repeat(block.client.astype(np.int32), examples),
        "set": Text.repeat_word(block.set, size),
        "name": Text.repeat_word(block.name, size),
        "subject": np.tile(rows.astype(np.int32), models),
        "value": block.values.ravel(),
    }
    schema = schema_of(_COLUMNS[file_of(block)])
    return make_table(schema, {name: columns[name] for name in schema.names})


def signal_layout(block: SignalEvidence) -> dict[str, Any]:
    """Which rows are a block."""
    layout = {"round": block.round, "level": block.level, "name": block.name, "shape": block.values.shape}
    return layout if block.set == "audit" else {**layout, "set": block.set}


def write_signals(folder: Path, blocks: Sequence[SignalEvidence]) -> None:
    """Writes `signals.parquet` and `set_signals.parquet`, each where there are signals for it."""
    on_audit = [block for block in blocks if block.set == "audit"]
    others = [block for block in blocks if block.set != "audit"]
    if on_audit:
        layout = [signal_layout(block) for block in on_audit]
        write_table(folder, SIGNALS, map(signal_rows, on_audit), layout, schema=schema_of(_COLUMNS[SIGNALS]))
    if others:
        layout = [signal_layout(block) for block in others]
        write_table(folder, SET_SIGNALS, _by_round(others), layout, schema=schema_of(_COLUMNS[SET_SIGNALS]))


def _by_round(blocks: Sequence[SignalEvidence]) -> Iterator[pa.Table]:
    """One table for all classes of a round and level, as many small pieces would take more bytes."""
    import pyarrow as pa

    for _, group in groupby(blocks, key=lambda block: (block.round, block.level)):
        yield pa.concat_tables(map(signal_rows, group)).unify_dictionaries()


def signal_counts(blocks: Sequence[SignalEvidence]) -> dict[str, int]:
    """The number of rows of each file that there is."""
    counts: dict[str, int] = {}
    for block in blocks:
        counts[file_of(block)] = counts.get(file_of(block), 0) + block.values.size
    return counts


def read_all_signals(folder: Path) -> Iterator[SignalEvidence]:
    """The blocks of both files in a folder."""
    for name in SIGNAL_FILES:
        yield from read_signals(folder / f"{name}.parquet")


def read_signals(path: Path) -> Iterator[SignalEvidence]:
    """The blocks of a file of signals; none where there is no such file."""
    if not path.exists():
        return
    table, layout = read_table(path)
    names = ("run", "client", "subject", "value")
    column = {name: numbers(table.column(name).combine_chunks()) for name in names}
    end = 0
    for block in layout:
        models, examples = block["shape"]
        start, end = end, end + models * examples
        rows = {name: values[start:end] for name, values in column.items()}
        set_name = block.get("set", "audit")
        yield SignalEvidence(
            round=block["round"],
            level=block["level"],
            name=block["name"],
            run=rows["run"][::examples].astype(np.int32),
            client=rows["client"][::examples].astype(np.int32),
            values=rows["value"].reshape(models, examples),
            set=set_name,
            rows=None if set_name == "audit" else rows["subject"][:examples].astype(np.int64),
        )
