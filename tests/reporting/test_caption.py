"""Tests of `fedmem/reporting/caption.py`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fedmem.reporting.caption import caption_of
from fedmem.reporting.cells import Section


def text_of(levels: list[str], *labels: str) -> str:
    run: Any = SimpleNamespace(scenario={"observe": {"levels": levels}})
    block = ("memorisation", tuple((label, "4", "0.5") for label in labels))
    return caption_of(run, [Section(title="LOCAL AND GLOBAL", columns=("", "n", "local"), blocks=(block,))])


@pytest.mark.parametrize(("levels", "other"), [(["local"], "global"), (["global"], "local")])
def test_one_level_is_explained_alone(levels: list[str], other: str) -> None:
    text = text_of(levels, "typical")
    assert text.startswith(f"{levels[0]}: the ")
    assert f"{other}:" not in text
    assert "of the same round" not in text
    assert "released" not in text


def test_released_is_explained_where_it_stands() -> None:
    both = ["local", "global"]
    assert "released is the last aggregate" in text_of(both, "typical", "typical, released")
    assert "released" not in text_of(both, "typical")
    assert "global: the aggregate of the same round" in text_of(both, "typical")
