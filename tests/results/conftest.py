"""Fixtures of several files of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.results.provenance_helpers import OWN


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the user's whose number stands in another one, which it imports by a third."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").touch()
    (tmp_path / "own_package" / "middle.py").write_text("def _rate():\n    from . import deep\n    return deep.RATE\n")
    (tmp_path / "own_package" / "deep.py").write_text("RATE = 0.1\n")
    with (tmp_path / "own_package" / "middle.py").open("a") as file:
        file.write("RATE = _rate()\n")
    (tmp_path / "own_client.py").write_text(OWN)
    return tmp_path
