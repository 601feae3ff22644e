"""Files as messages name them."""

from pathlib import Path

import pytest

from fedmem.guards.places import shorten_path


def test_files_below_the_folder_are_named_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shorten_path(str(tmp_path / "nets" / "mine.py")) == "nets/mine.py"
    assert shorten_path("/elsewhere/mine.py") == "/elsewhere/mine.py"
