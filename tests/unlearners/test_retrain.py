"""Tests of `fedmem/unlearners/retrain.py`."""

from __future__ import annotations

from fedmem.unlearners.retrain import Retrain
from tests.unlearners.unlearner_helpers import three_clients


def test_models_are_the_initial_weights() -> None:
    context = three_clients(forget=1)
    assert Retrain().unlearn(context)[0] is context.initial
    assert context.trained == 0
