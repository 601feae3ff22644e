"""Tests of `fedmem/studies/not_significant.py`."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from fedmem.studies.comparison import Comparison
from fedmem.studies.not_significant import not_significant_note
from tests.studies.test_comparison import EXPOSURE, SCATTER, compared, series


def kept(share: float) -> Comparison:
    """Two settings that differ in what they retain."""
    local = 2.0 + 0.05 * np.stack([SCATTER, SCATTER[::-1]])
    shares = np.array([0.5, share])[:, None] + 0.05 * np.stack([SCATTER, np.roll(SCATTER, 2)])
    part = series(replace(EXPOSURE, level="local"), local, null=np.zeros(local.shape), paired=shares * local)
    return compared(part)


def test_differences_of_retention_are_counted_and_have_verdicts() -> None:
    for share, verdict in ((0.9, "higher"), (0.1, "lower"), (0.52, "not significant")):
        comparison = kept(share)
        assert [entry.verdict for entry in comparison.retention] == ["", verdict]
        weak, total = map(int, re.findall(r"\d+", not_significant_note(comparison))[:2])
        assert (weak, total) == (1 + (verdict == "not significant"), 2)
        assert ("retention of exposure 1 (detects 0." in not_significant_note(comparison)) == (share == 0.52)
