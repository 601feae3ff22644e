"""Your own texts in a table, with a column that says who wrote each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import annotated_types
import numpy as np

from fedmem.datasets._texts import Author, Texts
from fedmem.errors import ComponentError
from fedmem.wording import choices

_SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Table(Texts):
    """Rows of a CSV or parquet file, with a text each; what one client wrote is one text, a line for each row.

    Nothing is drawn but the test set. Empty texts are left out.

    Fields

    - `path`: the file, which ends in `.csv` (with a header, in UTF-8) or `.parquet`.
    - `client`: the column that says whose text it is.
    - `text`: the column of texts.
    - `attributes`: columns of what is known of a client, alike in all its rows; they become sensitive attributes.

    Errors: `ComponentError` if the file cannot be read, a column is missing, a client has no text, or an attribute
    changes within a client.

    >>> Table(path="mails.csv", client="sender", text="body").tokens
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
        """The file."""
        return (Path(self.path).expanduser(),)

    def _authors(self) -> list[Author]:
        frame = self._frame()
        for key, names in (("client", [self.client]), ("text", [self.text]), ("attributes", self.attributes)):
            for name in names:
                if name not in frame.columns:
                    message = f"{self.path} has no column {name!r}{choices(name, list(frame.columns))}"
                    raise ComponentError(f"dataset.{key}", message)
        nobody = np.flatnonzero(frame[self.client].isna() | (frame[self.client].astype(str) == ""))
        if len(nobody):
            message = f"row {nobody[0] + 1} of {self.path} says no client in column {self.client!r}; fill or drop it"
            raise ComponentError("dataset.client", message)
        return [self._author(str(name), rows) for name, rows in frame.groupby(frame[self.client].astype(str))]

    def _author(self, name: str, rows: Any) -> Author:
        """One client from its rows."""
        attributes = {}
        for column in self.attributes:
            values = sorted(set(rows[column].astype(str)))
            if len(values) > 1:
                message = f"client {name!r} has several values of {column!r}, {values[0]!r} and {values[1]!r}"
                raise ComponentError(
                    "dataset.attributes", f"{message}; make them alike in all rows of a client, or leave the column out"
                )
            attributes[column] = values[0]
        texts = [str(text) for text in rows[self.text].dropna() if str(text).strip()]
        return Author(name=name, text="\n".join(texts), attributes=attributes)

    def _frame(self) -> Any:
        """The table as it is in the file; every cell of a CSV is text."""
        import pandas as pd

        path = Path(self.path).expanduser()
        if path.suffix not in _SUFFIXES:
            raise ComponentError("dataset.path", f"{self.path} should end in one of {', '.join(_SUFFIXES)}")
        if not path.is_file():
            raise ComponentError("dataset.path", f"there is no file {path.absolute()}; write the path of your table")
        try:
            if path.suffix == ".parquet":
                return pd.read_parquet(path)
            return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        except (OSError, ValueError, pd.errors.ParserError) as error:
            kind = "a table of comma-separated UTF-8" if path.suffix == ".csv" else "parquet"
            raise ComponentError("dataset.path", f"{self.path} cannot be read as {kind}: {error}") from error
