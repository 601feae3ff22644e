"""Tests of `fedmem/scenario/observed_sets.py`."""

from __future__ import annotations

from typing import Any

from tests.tiny import tiny


def test_settings_at_their_defaults_change_no_id() -> None:
    default = tiny(observe={"test": {"levels": None, "rows": None, "precision": "float64"}, "population": {}})
    assert default.id == tiny(observe={}).id
    changes: list[dict[str, Any]] = [
        {"test": {"levels": ["local", "global"]}}, {"test": {"rows": 10}}, {"test": {"precision": "float32"}},
        {"population": {"levels": ["global"]}},
    ]  # fmt: skip
    assert len({tiny(observe=change).id for change in [{}, *changes]}) == 5
