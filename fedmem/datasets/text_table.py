"""Your own texts in a table, with a column of their authors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.datasets._frames import Frame, raise_problems, read_frame
from fedmem.datasets._texts import Author, Texts
from fedmem.errors import ComponentError
from fedmem.shipped.files import data_path


@dataclass(frozen=True, kw_only=True)
class TextTable(Texts):
    """Rows of a CSV or parquet file, with a text each; the texts of one client become one text, a line for each row.

    Nothing is drawn but the test set. Empty texts are left out. For a table of numbers and categories: `kind: csv`.

    Fields

    - `path`: the file, which ends in `.csv` (commas, with a header, in UTF-8) or `.parquet`.
    - `client`: the column that says whose text it is.
    - `text`: the column of texts.
    - `attributes`: columns of attributes of a client, alike in all its rows; they become sensitive attributes.

    Errors: `ComponentError` if the file cannot be read, a column is missing, a client has no text, or an attribute
    changes within a client.

    >>> TextTable(path="mails.csv", client="sender", text="body").tokens
    'characters'
    """

    path: str = "texts.csv"
    client: str = "client"
    text: str = "text"
    attributes: tuple[str, ...] = ()
    clients: Annotated[int, annotated_types.Ge(1)] | None = None
    min_chars: Annotated[int, annotated_types.Ge(1)] = 1
    max_chars: Annotated[int, annotated_types.Ge(1)] | None = None

    def input_files(self) -> tuple[Path, ...]:
        """The file, and that of the tokenizer."""
        return (data_path(self.path), *super().input_files())

    def _authors(self) -> list[Author]:
        frame = read_frame(self.path, "dataset.path")
        owners = frame.column(self.client, "client")
        texts = self._texts(frame)
        attributes = {name: frame.column(name, "attributes") for name in self.attributes}
        raise_problems(
            [
                ("dataset.client", f"{frame.place(row)} names no client in column {self.client!r}; fill or drop it")
                for row in np.flatnonzero(owners == "").tolist()
            ]
        )
        names, client = np.unique(owners, return_inverse=True)
        order = np.argsort(client, kind="stable")
        rows_by_client = np.split(order, np.cumsum(np.bincount(client))[:-1])
        return [
            Author(
                name=str(name),
                text="\n".join(text for text in texts[rows] if text),
                attributes={key: _common_value(str(name), key, values[rows]) for key, values in attributes.items()},
            )
            for name, rows in zip(names, rows_by_client, strict=True)
        ]

    def _texts(self, frame: Frame) -> NDArray[np.object_]:
        """The column of texts."""
        try:
            return frame.column(self.text, "text")
        except ComponentError as error:
            message = f"{error.message}; a table of numbers and categories without texts is read by `kind: csv`"
            raise ComponentError(error.path, message) from error


def _common_value(client: str, column: str, values: NDArray[np.object_]) -> str:
    """The value that all rows of a client have in a column."""
    distinct = sorted(set(values))
    if len(distinct) > 1:
        message = f"client {client!r} has several values of {column!r}, {distinct[0]!r} and {distinct[1]!r}"
        raise ComponentError(
            "dataset.attributes", f"{message}; make them alike in all rows of a client, or leave the column out"
        )
    return str(distinct[0])
