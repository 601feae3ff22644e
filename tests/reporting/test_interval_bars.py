"""Tests of `fedmem/reporting/interval_bars.py`."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from fedmem.reporting.cells import Value
from fedmem.reporting.interval_bars import interval_bars


def value(middle: float, low: float, high: float) -> Value:
    return Value(value=middle, low=low, high=high, n=9)


def test_ends_and_middle_are_in_proportion() -> None:
    text = interval_bars({"local": value(0.0, -0.5, 1.0), "global": value(1.0, 0.5, 1.0)}, (-1.0, 1.0), 0.0)
    ElementTree.fromstring(text)
    assert '<g class="local"><path d="M55 7H202"/><circle cx="104"' in text
    assert '<g class="global"><path d="M153 17H202"/><path d="M202 17' in text
    assert '<path class="null" d="M104 0V24"/>' in text


def test_values_beyond_the_ends_are_cut() -> None:
    text = interval_bars({"local": value(9.0, -9.0, 9.0), "global": value(math.nan, 0.0, 1.0)}, (0.0, 1.0))
    assert '<path d="M6 7H202"/><circle cx="202"' in text
    assert "global" not in text
    assert "null" not in text
    alone = interval_bars({"local": value(0.5, math.nan, math.nan)}, (0.0, 1.0))
    assert '<path d=""/><circle cx="104"' in alone
    assert not re.search("nan|inf", interval_bars({"local": value(0.0, -math.inf, math.inf)}, (0.0, 0.0)))
