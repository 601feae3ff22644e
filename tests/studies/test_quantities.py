"""Tests of `fedmem/studies/quantities.py`."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest

from fedmem.estimation.learning import Learning, learning_of_stored, learning_warnings
from fedmem.reporting.measures import Variant, shipped_measures
from fedmem.studies.quantities import _short_title, warned_settings
from tests.labelling import labels


@pytest.mark.parametrize(
    ("about", "title"),
    [("attack=lira", "LiRA TPR at the smallest FPR"), ("attack=lira fpr=0.1", "LiRA TPR at FPR 0.1")],
)
def test_true_positive_rates_are_titled_by_their_fpr(about: str, title: str) -> None:
    measure = Variant(measure=shipped_measures()["tpr"], title="LiRA TPR at FPR 0.0078", null=0.1, labels=labels(about))
    assert _short_title(measure) == title
    assert _short_title(replace(measure, title="LiRA AUC")) == "LiRA AUC"


def test_warnings_have_their_settings_and_the_serious_come_first() -> None:
    learning = {"level": "global", "on": "test", "verdict": "not shown"}
    record = dict.fromkeys((field.name for field in fields(Learning)), 0) | learning
    (serious,) = learning_warnings([learning_of_stored(record)])

    def run(*texts: str) -> Any:
        return SimpleNamespace(manifest={"warnings": texts, "learning": [record] * (serious in texts)}, scenario={})

    warned = warned_settings({(0, 0): run("other"), (0, 1): run("other"), (1, 0): run("other", serious)})
    assert list(warned.items()) == [(f"WARNING: {serious}", (1,)), ("WARNING: other", (0, 1))]
