"""Tidy tables as CSV files, with a description of every column."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.contracts.export import ColumnType, ExportContent, ExportTable

if TYPE_CHECKING:
    import pandas as pd


class Csv:
    """Each table as `NAME.csv`, in UTF-8 with a header; `datapackage.json` and `README.md` describe the columns.

    A float has as many digits as give the same float again. An undefined or missing value is an empty cell, and an
    infinite one is `inf` or `-inf`. The description follows the standard for tabular data packages.
    """

    extra = ""
    package = ""
    has_tables = True
    open_with = "less {folder}/README.md"

    def write(self, content: ExportContent, folder: Path, place: Path) -> None:
        """Writes one table after the other; only one is in memory at a time."""
        resources = [_write_table(table, folder) for table in content.tables]
        package = {
            "profile": "tabular-data-package",
            "name": content.id.lower(),
            "title": f"{content.title} {content.id}",
            "resources": resources,
        }
        text = json.dumps(package, indent=1, ensure_ascii=False) + "\n"
        (folder / "datapackage.json").write_text(text, encoding="utf-8")
        (folder / "README.md").write_text("\n".join(_readme(content, resources)) + "\n", encoding="utf-8")


def _write_table(table: ExportTable, folder: Path) -> dict[str, Any]:
    """Writes a table and returns its description."""
    import pyarrow as pa
    from pyarrow import csv

    frame = table.frame()
    columns = [
        {
            "name": str(name),
            "type": _type_of(frame[name]),
            "description": table.meanings.get(str(name), table.other),
        }
        for name in frame.columns
    ]
    rows = pa.Table.from_pandas(frame, preserve_index=False).unify_dictionaries()
    plain = [
        item.with_type(item.type.value_type) if pa.types.is_dictionary(item.type) else item for item in rows.schema
    ]
    csv.write_csv(rows.cast(pa.schema(plain)), folder / f"{table.name}.csv")
    return {
        "name": table.name,
        "path": f"{table.name}.csv",
        "profile": "tabular-data-resource",
        "description": f"A row is {table.means}.",
        "rows": len(frame),
        "encoding": "utf-8",
        "schema": {"fields": columns, "missingValues": [""]},
    }


def _type_of(column: pd.Series[Any]) -> ColumnType:
    import pandas as pd

    if pd.api.types.is_bool_dtype(column):
        return "boolean"
    if pd.api.types.is_integer_dtype(column):
        return "integer"
    return "number" if pd.api.types.is_float_dtype(column) else "string"


def _readme(content: ExportContent, resources: list[dict[str, Any]]) -> Iterator[str]:
    yield from (f"# {_inline(content.title)} {_inline(content.id)}", "")
    yield "Tables of a finished fedmem run or study. An empty cell is undefined or missing."
    for resource in resources:
        yield from ("", f"## {resource['path']}", "")
        yield f"{resource['description']} There are {resource['rows']} rows."
        yield from ("", "| column | type | holds |", "|---|---|---|")
        for column in resource["schema"]["fields"]:
            yield f"| {_inline(column['name'])} | {column['type']} | {_inline(column['description'])} |"


def _inline(text: str) -> str:
    """A text in one line of Markdown, as it is."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return "".join(f"\\{character}" if character in "\\`*[]<>|#&" else character for character in line)
