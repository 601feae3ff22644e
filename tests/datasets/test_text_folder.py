"""Tests of `fedmem/datasets/text_folder.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmem.datasets.text_folder import TextFolder
from fedmem.errors import ComponentError
from fedmem.modalities.text.vocabulary import Vocabulary
from fedmem.modalities.texts import Texts
from tests.datasets.texts_helpers import load, written
from tests.narrowing import instance, present


def test_a_file_is_what_one_client_wrote(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfbee\r\n" * 20)
    (tmp_path / "a.txt").write_text("ay " * 40)
    for other in (".hidden.txt", "c.md"):
        (tmp_path / other).write_text("not me")
    (tmp_path / "d.txt").mkdir()
    data = load(TextFolder(path=str(tmp_path), length=9))
    texts = written(data.train, Vocabulary.of(instance(data.modality, Texts).vocabulary))
    assert {text[:2] for text, owner in zip(texts, present(data.natural), strict=True) if owner == 0} <= {
        "ay",
        "y ",
        " a",
    }
    assert "".join(texts).count("bee\n") > 5
    assert present(data.natural).max() == 1


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "has no file that ends in .txt"),
        ({"a.txt": b"", "b.txt": b"b" * 99}, "client 'a' has no text"),
        ({"a.txt": b"ok" * 40 + b"\xff"}, "is not UTF-8 at byte 80"),
    ],
)
def test_wrong_folders_of_texts_are_refused(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ComponentError, match=said):
        load(TextFolder(path=str(tmp_path), length=9))
    with pytest.raises(ComponentError, match="there is no folder"):
        load(TextFolder(path=str(tmp_path / "nowhere")))
