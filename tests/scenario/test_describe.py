"""Tests of `fedmem/scenario/describe.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmem.scenario import catalogue, describe


def test_component_without_module_docstring_uses_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "folder", lambda family: tmp_path)
    (tmp_path / "bare.py").write_text(
        'class _Part:\n    """No."""\n\nclass Bare:\n    """Says it.\n\n    More.\n    """\n'
    )
    (tmp_path / "mute.py").write_text("class Mute:\n    pass\n")
    (tmp_path / "told.py").write_text('"""Of the file."""\n\nclass Told:\n    """Of the class."""\n')
    assert [describe.summary("sampler", kind) for kind in ("bare", "mute", "told")] == ["Says it.", "", "Of the file."]


def test_text_is_wrapped_but_examples_and_lists_keep_their_lines() -> None:
    text = "A first line that is\nbroken.\n\n- `one`: item that is longer\n  than this;\n- two.\n\n>>> f(\n...  1)\n2\n"
    assert describe.wrap_docstring(text, 24).splitlines() == [
        "A first line that is",
        "broken.",
        "",
        "- `one`: item that is",
        "  longer than this;",
        "- two.",
        "",
        ">>> f(",
        "...  1)",
        "2",
    ]
    assert describe.wrap_docstring("Fields:\n    lr: a rate\n        of steps.\n    b: c.", 80).splitlines() == [
        "Fields:",
        "    lr: a rate of steps.",
        "    b: c.",
    ]
