"""Your own texts in a table, with a column of classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedmem.datasets._frames import raise_problems, read_frame
from fedmem.datasets._labelled import LabelledText, TextsWithClasses
from fedmem.shipped.files import data_path


@dataclass(frozen=True, kw_only=True)
class LabelledTexts(TextsWithClasses):
    """Rows of a CSV or parquet file, with a text and its class each, for models that classify texts.

    Nothing is drawn but the test set. For texts without classes, whose next tokens are predicted: `kind: text_table`.

    Fields

    - `path`: the file, which ends in `.csv` (commas, with a header, in UTF-8) or `.parquet`.
    - `text`: the column of texts.
    - `target`: the column of classes; class names are its values, in order.
    - `client`: the column of natural owners, for `partition: {kind: natural}`; empty for none.

    Errors: `ComponentError` if the file cannot be read, a column is missing, a cell is empty, or there is one class.

    >>> LabelledTexts(path="reviews.csv", text="review", target="stars", tokenizer="models/minilm").max_tokens
    64
    """

    path: str = "texts.csv"
    text: str = "text"
    target: str = "label"
    client: str = ""

    def input_files(self) -> tuple[Path, ...]:
        """The table, and the file of the tokenizer."""
        return (data_path(self.path), *super().input_files())

    def _texts(self) -> list[LabelledText]:
        frame = read_frame(self.path, "dataset.path")
        columns = {key: frame.column(getattr(self, key), key) for key in ("text", "target")}
        if self.client:
            columns["client"] = frame.column(self.client, "client")
        raise_problems(
            [
                (
                    f"dataset.{key}",
                    f"{frame.place(row)} has an empty cell in column {getattr(self, key)!r}; fill it, or drop the row",
                )
                for key, cells in columns.items()
                for row in [i for i, cell in enumerate(cells) if not cell.strip()]
            ]
        )
        clients = columns.get("client", [""] * len(frame))
        return [
            LabelledText(text=text, label=label, client=client, row=row)
            for row, (text, label, client) in enumerate(zip(columns["text"], columns["target"], clients, strict=True))
        ]
