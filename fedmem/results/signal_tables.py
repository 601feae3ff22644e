"""The values of signals as an Arrow table and back, bit for bit: `signals.parquet`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.evidence import SignalEvidence
from fedmem.results.arrow import Text, numbers
from fedmem.results.tables import make_table, read_table, schema_of, write_table

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = "run:int32 round:int32 level:text client:int32 name:text subject:int32 value:float64"


def signal_rows(block: SignalEvidence) -> pa.Table:
    """One row per transition and audit example, transition by transition."""
    models, examples = block.values.shape
    return make_table(
        schema_of(_COLUMNS),
        {
            "run": np.repeat(block.run.astype(np.int32), examples),
            "round": np.full(block.values.size, block.round, dtype=np.int32),
            "level": Text.repeat_word(block.level, block.values.size),
            "client": np.repeat(block.client.astype(np.int32), examples),
            "name": Text.repeat_word(block.name, block.values.size),
            "subject": np.tile(np.arange(examples, dtype=np.int32), models),
            "value": block.values.ravel(),
        },
    )


def signal_layout(block: SignalEvidence) -> dict[str, Any]:
    """Which rows are a block."""
    return {"round": block.round, "level": block.level, "name": block.name, "shape": block.values.shape}


def write_signals(folder: Path, blocks: Sequence[SignalEvidence]) -> None:
    """Writes `signals.parquet` where there are signals."""
    if blocks:
        layout = [signal_layout(block) for block in blocks]
        write_table(folder, "signals", map(signal_rows, blocks), layout, schema=schema_of(_COLUMNS))


def read_signals(path: Path) -> Iterator[SignalEvidence]:
    """The blocks of `signals.parquet`; none where there is no such file."""
    if not path.exists():
        return
    table, layout = read_table(path)
    column = {name: numbers(table.column(name).combine_chunks()) for name in ("run", "client", "value")}
    end = 0
    for block in layout:
        models, examples = block["shape"]
        start, end = end, end + models * examples
        rows = {name: values[start:end] for name, values in column.items()}
        yield SignalEvidence(
            round=block["round"],
            level=block["level"],
            name=block["name"],
            run=rows["run"][::examples].astype(np.int32),
            client=rows["client"][::examples].astype(np.int32),
            values=rows["value"].reshape(models, examples),
        )
