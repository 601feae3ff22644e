"""Tests of `fedmem/studies/quantities.py`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedmem.reporting.measures import Variant, shipped_measures
from fedmem.studies.quantities import _short_title
from tests.labelling import labels


@pytest.mark.parametrize(
    ("about", "title"),
    [("attack=lira", "LiRA TPR at the smallest FPR"), ("attack=lira fpr=0.1", "LiRA TPR at FPR 0.1")],
)
def test_true_positive_rates_are_titled_by_their_fpr(about: str, title: str) -> None:
    measure = Variant(measure=shipped_measures()["tpr"], title="LiRA TPR at FPR 0.0078", null=0.1, labels=labels(about))
    assert _short_title(measure) == title
    assert _short_title(replace(measure, title="LiRA AUC")) == "LiRA AUC"
