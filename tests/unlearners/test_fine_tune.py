"""Tests of `fedmem/unlearners/fine_tune.py`."""

from __future__ import annotations

from fedmem.unlearners.fine_tune import FineTune
from tests.unlearners.unlearner_helpers import three_clients


def test_models_stay_as_they_are() -> None:
    context = three_clients(forget=1)
    assert FineTune().unlearn(context)[0] is context.history[-1]
    assert context.trained == 0
