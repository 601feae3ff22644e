"""The records of a bank as Arrow tables and back, bit for bit: the columns of every parquet file of a run.

Tables are long. Facts that are not in the rows are stored as the *layout* in the metadata of the file. These are where
a block of evidence ends, the order of canaries in a block, and the shape of an image.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.coin_law import BALANCED, CoinLaw
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Participation, ReferenceEvidence
from fedmem.contracts.measurement import Labels, LabelValue, Measurement, Reading
from fedmem.results.arrow import Column, Lists, Nullable, Text, column, is_present, label_type, numbers
from fedmem.results.conditions import COLUMN as CONDITION

if TYPE_CHECKING:
    import pyarrow as pa

LAYOUT = b"fedmem.layout"
"""The key of the layout in the metadata of a file."""

_COLUMNS: Mapping[str, str] = {
    "measurements": "scope:text run:int32 round:int32 level:text client:int32 subject:text source:text metric:text "
    "value:float64 low:float64 high:float64 n:int64",
    "references": "run:int32 round:int32 level:text client:int32 family:text label:int64 count:int32 "
    "subjects:[int64] less:[int32] ties:[int32] quantiles:[float32]",
    "audit": "subject:int64 injection:int32 kind:text role:text owner:int32 copies:int32 start:int32 stop:int32 "
    "target:int64 id:int64 is_in:[bool] inputs:[float32]",
    "participation": "run:int32 round:int32 client:int32 num_examples:int32 failed:bool probability:float64",
}
"""The columns of each table and their types; square brackets hold a list."""


ALWAYS: Mapping[str, str] = {"place": "text", "statistic": "text", "attack": "text", "fpr": "float64"}
"""The labels that have a column in every file, also where no row has them, with its type."""


def measurement_rows(measurements: Sequence[Measurement], condition: str = "") -> pa.Table:
    """One row per measurement, in the order given, with a column for each label that any of them has.

    With a `condition` there is a further column, which has it in every row.
    """
    readings = [row.reading for row in measurements]
    columns: dict[str, Column] = {
        "scope": Text.of([row.scope for row in measurements]),
        "run": _some([row.run for row in measurements]),
        "round": _some([row.round for row in measurements]),
        "level": Text.of([row.level for row in measurements]),
        "client": np.array([row.client for row in measurements], dtype=np.int32),
        "subject": Text.of([reading.subject for reading in readings]),
        "source": Text.of([row.source for row in measurements]),
        "metric": Text.of([reading.metric for reading in readings]),
        "value": np.array([reading.value for reading in readings], dtype=np.float64),
        "low": np.array([reading.low for reading in readings], dtype=np.float64),
        "high": np.array([reading.high for reading in readings], dtype=np.float64),
        "n": np.array([reading.n for reading in readings], dtype=np.int64),
    }
    values: dict[str, list[LabelValue | None]] = {name: [None] * len(readings) for name in ALWAYS}
    for row, reading in enumerate(readings):
        for name, value in reading.labels.items:
            # a column is as long as the table, so that it is made once and not for each row
            if name not in values:
                values[name] = [None] * len(readings)
            values[name][row] = value
    spec = [_COLUMNS["measurements"]]
    for name in (*ALWAYS, *sorted(values.keys() - ALWAYS.keys())):
        kind = label_type(name, values[name]) or ALWAYS[name]
        columns[name] = Text.of([str(value or "") for value in values[name]]) if kind == "text" else _some(values[name])
        spec.append(f"{name}:{kind}")
    if condition:
        columns[CONDITION] = Text.repeat_word(condition, len(readings))
        spec.append(f"{CONDITION}:text")
    return make_table(schema_of(" ".join(spec)), columns)


def _some(values: Sequence[LabelValue | None]) -> Nullable:
    """Numbers of which some are missing."""
    missing = np.array([value is None for value in values], dtype=bool)
    return Nullable(values=np.array([value or 0 for value in values]), missing=missing)


def read_measurements(path: Path) -> list[Measurement]:
    """The rows of `measurements.parquet`, in its order."""
    table, _ = read_table(path)
    column = {name: table.column(name).to_pylist() for name in table.column_names}
    fixed_columns = {part.partition(":")[0] for part in _COLUMNS["measurements"].split()}
    labels = [name for name in table.column_names if name not in {*fixed_columns, CONDITION}]
    reading = ("metric", "value", "low", "high", "n", "subject")
    return [
        Measurement(
            **{name: column[name][i] for name in ("run", "round", "level", "client", "source")},
            reading=Reading(
                **{name: column[name][i] for name in reading},
                labels=Labels.of({name: column[name][i] for name in labels}),
            ),
        )
        for i in range(table.num_rows)
    ]


def _group_by_label(subjects: NDArray[Any], labels: NDArray[Any], audit: AuditSet) -> tuple[NDArray[Any], NDArray[Any]]:
    """The order that brings the canaries of a family together by label, and how many each label has."""
    of_label = audit.examples.labels[subjects][None, :] == labels[:, None]
    assert (of_label.sum(axis=0) == 1).all(), "every canary has exactly one of the labels of its family"
    return np.argsort(of_label.argmax(axis=0), kind="stable") if len(labels) else subjects, of_label.sum(axis=1)


def reference_rows(block: ReferenceEvidence, audit: AuditSet) -> pa.Table:
    """One row per transition and label, with a list over the canaries of that label."""
    models, labels, points = block.quantiles.shape
    order, counts = _group_by_label(block.subjects, block.labels, audit)
    sizes = np.tile(counts, models)
    is_missing = np.isnan(block.quantiles).all(axis=2).ravel()
    quantiles = block.quantiles.reshape(-1, points)[~is_missing].ravel()
    return make_table(
        "references",
        {
            "run": np.repeat(block.run.astype(np.int32), labels),
            "round": np.full(models * labels, block.round, dtype=np.int32),
            "level": Text.repeat_word(block.level, models * labels),
            "client": np.repeat(block.client.astype(np.int32), labels),
            "family": Text.repeat_word(block.family, models * labels),
            "label": np.tile(block.labels, models),
            "count": np.full(models * labels, block.count, dtype=np.int32),
            "subjects": Lists(values=np.tile(block.subjects[order], models), sizes=sizes),
            "less": Lists(values=block.less[:, order].ravel(), sizes=sizes),
            "ties": Lists(values=block.ties[:, order].ravel(), sizes=sizes),
            "quantiles": Lists(values=quantiles, sizes=np.where(is_missing, 0, points), missing=is_missing),
        },
    )


def reference_layout(block: ReferenceEvidence) -> dict[str, Any]:
    """The layout of a block that its rows do not show, above all the order of its canaries."""
    scalars = {name: getattr(block, name) for name in ("round", "level", "family", "count")}
    arrays = ("subjects", "labels") if block.run.size * block.labels.size else ("subjects", "labels", "run", "client")
    return {**scalars, **{name: getattr(block, name).tolist() for name in arrays}, "shape": block.quantiles.shape}


def read_references(path: Path, audit: AuditSet) -> Iterator[ReferenceEvidence]:
    """The blocks of `references.parquet`."""
    table, layout = read_table(path)
    end = 0
    for block in layout:
        models, labels, points = block["shape"]
        start, end = end, end + models * labels
        rows = table.slice(start, end - start).combine_chunks()
        column = {name: rows.column(name).combine_chunks() for name in ("run", "client", "less", "ties", "quantiles")}
        subjects, names = (np.array(block[name], dtype=np.int64) for name in ("subjects", "labels"))
        order, _ = _group_by_label(subjects, names, audit)
        quantiles = np.full((models * labels, points), np.nan, dtype=np.float32)
        quantiles[is_present(column["quantiles"])] = numbers(column["quantiles"].flatten()).reshape(-1, points)
        less, ties = np.empty((2, models, len(subjects)), dtype=np.int32)
        for ranks, name in ((less, "less"), (ties, "ties")):
            ranks[:, order] = numbers(column[name].flatten()).reshape(models, len(subjects))
        yield ReferenceEvidence(
            round=block["round"],
            level=block["level"],
            family=block["family"],
            count=block["count"],
            run=np.array(block.get("run", numbers(column["run"])[:: labels or 1]), dtype=np.int32),
            client=np.array(block.get("client", numbers(column["client"])[:: labels or 1]), dtype=np.int32),
            subjects=subjects,
            less=less,
            ties=ties,
            labels=names,
            quantiles=quantiles.reshape(models, labels, points),
        )


def audit_rows(audit: AuditSet) -> pa.Table:
    """One row per audit example; `is_in` has one coin per run, `inputs` the values in C order."""
    size = audit.examples.inputs[0].size if len(audit) else 0

    def lists(values: NDArray[Any], width: int) -> Lists:
        return Lists(values=values.ravel(), sizes=np.full(len(audit), width))

    return make_table(
        "audit",
        {
            "subject": np.arange(len(audit), dtype=np.int64),
            "injection": audit.injection,
            "kind": Text.of(audit.kind.tolist()),
            "role": Text.of(audit.role.tolist()),
            "owner": audit.owner,
            "copies": audit.copies,
            "start": audit.start,
            "stop": audit.stop,
            "target": audit.examples.labels,
            "id": audit.examples.ids,
            "is_in": lists(audit.is_in.T, audit.runs),
            "inputs": lists(audit.examples.inputs, size),
        },
    )


def read_audit(path: Path) -> AuditSet:
    """The audit set of `audit.parquet`."""
    table, layout = read_table(path)
    column = {name: table.column(name).combine_chunks() for name in table.column_names}
    coins = numbers(column["is_in"].flatten())
    targets_in_layout = "asked" in layout
    # the numbers of tokens are few enough to be exact among float32
    kind = np.int64 if targets_in_layout else np.float32
    return AuditSet(
        examples=Examples(
            inputs=numbers(column["inputs"].flatten()).astype(kind).reshape(layout["inputs"]),
            targets=np.array(layout["asked"], dtype=np.int64) if targets_in_layout else numbers(column["target"]),
            ids=numbers(column["id"]),
        ),
        kind=np.array(column["kind"].to_pylist(), dtype=np.str_),
        role=np.array(column["role"].to_pylist(), dtype=np.str_),
        owner=numbers(column["owner"]),
        copies=numbers(column["copies"]),
        start=numbers(column["start"]),
        stop=numbers(column["stop"]),
        injection=numbers(column["injection"]),
        is_in=np.ascontiguousarray(coins.reshape(table.num_rows, layout["runs"]).T),
        client_in=np.array(layout["client_in"], dtype=np.bool_) if "client_in" in layout else None,
        copy_owner=np.array(layout["copy_owner"], dtype=np.int32) if "copy_owner" in layout else None,
        not_uniform=tuple(layout.get("not_uniform", ())),
        coin_row=np.array(layout["coin_row"], dtype=np.int64) if "coin_row" in layout else None,
        coin_group=np.array(layout["coin_group"], dtype=np.int64) if "coin_group" in layout else None,
        aims_at=np.array(layout["aims_at"], dtype=np.int64) if "aims_at" in layout else None,
        coin_law=CoinLaw(**layout["coin_law"]) if "coin_law" in layout else BALANCED,
        inclusion_rates=np.array(layout["inclusion_rates"]) if "inclusion_rates" in layout else None,
        relearnt=np.array(layout["relearnt"], dtype=np.bool_) if "relearnt" in layout else None,
    )


def read_targets(path: Path) -> dict[str, NDArray[np.int64]]:
    """The labels of other sets of examples, by name, which are stored with the audit set."""
    _, layout = read_table(path)
    return {name: np.array(labels, dtype=np.int64) for name, labels in layout.get("targets", {}).items()}


def read_label_counts(path: Path) -> NDArray[np.int64] | None:
    """The labels of the base rows of clients, which are stored with the audit set; None where they are not."""
    _, layout = read_table(path)
    return np.array(layout["label_counts"], dtype=np.int64) if "label_counts" in layout else None


def participation_rows(participation: Sequence[Participation]) -> pa.Table:
    """One row per client, round and run; no probability where it is not known."""
    names = ("run", "round", "client", "num_examples", "failed")
    known = [row.probability for row in participation]
    return make_table(
        "participation",
        {
            **{name: np.array([getattr(row, name) for row in participation]) for name in names},
            "probability": Nullable(
                values=np.array([0.0 if probability is None else probability for probability in known], np.float64),
                missing=np.array([probability is None for probability in known], dtype=np.bool_),
            ),
        },
    )


def read_participation(path: Path) -> list[Participation]:
    """The rows of `participation.parquet`, in its order."""
    table, _ = read_table(path)
    columns = [table.column(item.name).to_pylist() for item in fields(Participation)]
    names = [item.name for item in fields(Participation)]
    return [Participation(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def schema_of(columns: str) -> pa.Schema:
    """The Arrow schema of columns, each written as `name:type`."""
    import pyarrow as pa

    def field(text: str) -> pa.Field:
        column, kind = text.split(":")
        if kind == "text":
            return pa.field(column, pa.dictionary(pa.int32(), pa.string()))
        if kind.startswith("["):
            return pa.field(column, pa.list_(pa.type_for_alias(kind.strip("[]"))))
        return pa.field(column, pa.type_for_alias(kind))

    return pa.schema([field(text) for text in columns.split()])


def make_table(schema: pa.Schema | str, columns: Mapping[str, Column]) -> pa.Table:
    """An Arrow table; NaN stays NaN."""
    import pyarrow as pa

    schema = schema_of(_COLUMNS[schema]) if isinstance(schema, str) else schema
    assert list(columns) == schema.names
    return pa.Table.from_arrays([column(columns[field.name], field.type) for field in schema], schema=schema)


def write_measurements(folder: Path, measurements: Sequence[Measurement], condition: str = "") -> None:
    """Writes `measurements.parquet`, with a column for each label."""
    table = measurement_rows(measurements, condition)
    write_table(folder, "measurements", [table], schema=table.schema)


def write_table(
    folder: Path,
    name: str,
    tables: Iterable[pa.Table],
    layout: Any = None,
    *,
    schema: pa.Schema | None = None,
    steady: Sequence[str] = (),
) -> None:
    """Writes tables of this schema (that of `name`) below each other, one row group each.

    Floats are split by byte: exact, and it packs them best. Of columns of whole numbers in `steady` the differences of
    neighbours are stored.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = (schema or schema_of(_COLUMNS[name])).with_metadata({LAYOUT: json.dumps(layout)})
    paths = {f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name: field for field in schema}
    floats = [path for path, field in paths.items() if "float" in str(field.type) or "double" in str(field.type)]
    with pq.ParquetWriter(
        folder / f"{name}.parquet",
        schema,
        compression="zstd",
        use_dictionary=[path for path in paths if path not in (*floats, *steady)],
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT") | dict.fromkeys(steady, "DELTA_BINARY_PACKED"),
    ) as parquet_file:
        for table in tables:
            parquet_file.write_table(table.cast(schema), row_group_size=max(table.num_rows, 1))


def read_table(path: Path) -> tuple[pa.Table, Any]:
    """A table with the layout that was stored with it."""
    import pyarrow.parquet as pq

    # not `read_table`, which takes any data set and loads pandas for it
    with pq.ParquetFile(path) as file:
        table = file.read()
    return table, json.loads(table.schema.metadata[LAYOUT])
