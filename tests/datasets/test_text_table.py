"""Tests of `fedmem/datasets/text_table.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmem.datasets.text_table import TextTable
from fedmem.errors import ComponentError
from tests.datasets.texts_helpers import PEOPLE, load


@pytest.mark.parametrize(
    ("rows", "fields", "path", "said"),
    [
        ([*PEOPLE, ("c", "  ", "x")], {}, "dataset", "client 'c' has no text"),
        (PEOPLE, {"clients": 3}, "dataset.clients", "3 clients .* 2 of 2"),
        (PEOPLE, {"min_chars": 5000}, "dataset.min_chars", "the longest text has 162"),
        (PEOPLE, {"length": 120}, "dataset.length", "client 'a' has 1 windows of 121 tokens"),
        (PEOPLE, {"client": "sender"}, "dataset.client", "no column 'sender'"),
        (PEOPLE, {"text": "body"}, "dataset.text", "no column 'body'"),
        (PEOPLE, {"attributes": ("sex",)}, "dataset.attributes", "no column 'sex'"),
        ([*PEOPLE, ("a", "more", "x")], {"attributes": ("party",)}, "dataset.attributes", "several values of 'party'"),
        ([*PEOPLE, (None, "more", "x")], {}, "dataset.client", "row 3 .line 5. of .* names no client"),
    ],
)
def test_wrong_tables_are_refused_with_field_and_reason(
    table: Callable[..., TextTable],
    rows: list[tuple[str | None, str, str]],
    fields: dict[str, Any],
    path: str,
    said: str,
) -> None:
    with pytest.raises(ComponentError, match=said) as caught:
        load(table(rows, **fields))
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "should end in one of"),
        ("a.csv", None, "there is no file"),
        ("a.csv", b"client,text\na,\xff\xfe", "is not utf-8 at byte 14, in line 2"),
        ("a.parquet", b"PAR1", "cannot be read as parquet"),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ComponentError, match=said) as caught:
        load(TextTable(path=str(tmp_path / name)))
    assert caught.value.path == "dataset.path"
