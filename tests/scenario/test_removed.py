"""Tests of `fedmem/scenario/removed.py`: what is removed is part of a scenario's id."""

from __future__ import annotations

from tests.tiny import tiny


def test_ids_say_what_is_removed_and_how() -> None:
    some = [{"examples": [1]}, {"examples": [2]}, {"examples": [1], "exclusion": "remove"}]
    assert len({tiny(removed=removed).id for removed in [None, *some]}) == 4
    assert tiny(removed=None).id == tiny().id
