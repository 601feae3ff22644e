"""Tests of `fedmem/scenario/section.py`."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fedmem.scenario.section import Positive, Section, count_from_start


class Lengths(Section):
    """A section of one value."""

    rounds: Positive = 1


def test_a_section_is_frozen_and_knows_its_keys() -> None:
    for wrong in ({"rounds": 0}, {"rounds": 10**7}, {"rounds": True}, {"rouds": 3}):
        with pytest.raises(ValidationError):
            Lengths(**wrong)
    with pytest.raises(ValidationError, match="frozen"):
        Lengths().rounds = 3


def test_minus_one_is_the_last_round() -> None:
    assert count_from_start((0, 9, -1, -10), 9) == (0, 9, 9, 0)
