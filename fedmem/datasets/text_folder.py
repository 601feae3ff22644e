"""Your own texts in a folder, one file for each client."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import annotated_types

from fedmem.datasets._texts import Author, Texts
from fedmem.errors import ComponentError


@dataclass(frozen=True, kw_only=True)
class TextFolder(Texts):
    """A folder of text files in UTF-8: a file has the texts of one client, and its name without the ending is the
    client's.

    Files with other endings, folders and what starts with a dot are passed over. A file whose text is too short for
    `min_chars` is no client, an empty one is an error.

    Fields

    - `path`: the folder, from the folder in which fedmem is started.
    - `ending`: how the names of the files end.

    Errors: `ComponentError` if there is no such folder, it has no such file, a file is empty or is not UTF-8.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("ada", "ben"):
    ...         _ = Path(folder, f"{name}.txt").write_text(f"I am {name}. " * 20)
    ...     data = TextFolder(path=folder, length=20).load(np.random.default_rng(0))
    >>> data.train.inputs.shape[1], data.natural.max() + 1
    (20, np.int64(2))
    """

    path: str = "texts"
    ending: Annotated[str, annotated_types.MinLen(1)] = ".txt"
    clients: Annotated[int, annotated_types.Ge(1)] | None = None
    min_chars: Annotated[int, annotated_types.Ge(1)] = 1
    max_chars: Annotated[int, annotated_types.Ge(1)] | None = None

    def input_files(self) -> tuple[Path, ...]:
        """The files of all authors, and that of the tokenizer; a missing folder stands for itself."""
        return (*(self._files() or (Path(self.path).expanduser(),)), *super().input_files())

    def _authors(self) -> list[Author]:
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            message = f"there is no folder {folder.absolute()}; write the path of your folder of texts"
            raise ComponentError("dataset.path", message)
        files = self._files()
        if not files:
            message = f"{folder.absolute()} has no file that ends in {self.ending}; put one there for each client"
            raise ComponentError("dataset.path", message)
        return [Author(name=file.name.removesuffix(self.ending), text=_read_text(file)) for file in files]

    def _files(self) -> list[Path]:
        """The files with the ending, sorted; none where there is no such folder."""
        folder = Path(self.path).expanduser()
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        return [
            file
            for file in entries
            if file.is_file() and file.name.endswith(self.ending) and not file.name.startswith(".")
        ]


def _read_text(file: Path) -> str:
    """The text of a file, whatever its line ends."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{file} is not UTF-8 at byte {error.start}; save it in UTF-8, or take it out of the folder"
        raise ComponentError("dataset.path", message) from error
    except OSError as error:
        raise ComponentError("dataset.path", f"{file} cannot be read: {error.strerror}; make it readable") from error
