"""Tests of `fedmem/execution/executors.py`."""

from __future__ import annotations

import pytest

from fedmem.contracts.model import is_trained_stacked
from fedmem.execution.auto import is_stacked
from fedmem.scenario.catalogue import build
from tests.tiny import tiny

KINDS = {
    **dict.fromkeys(("mlp", "logistic", "small_vit", "transformer"), (True, True, True)),
    **dict.fromkeys(("small_cnn", "lenet", "resnet8", "conv1d"), (False, True, False)),
    "char_rnn": (False, False, False),
}
"""Whether clients are trained as a stack on cpu, cuda and mps."""


@pytest.mark.parametrize("kind", KINDS)
def test_model_and_device_decide_about_stacks(kind: str) -> None:
    model = build("model", {"kind": kind})
    assert tuple(is_trained_stacked(model, device) for device in ("cpu", "cuda", "mps")) == KINDS[kind]


def test_only_stackable_models_in_lockstep_are_stacked() -> None:
    cnn = {"kind": "small_cnn"}
    assert is_stacked(tiny())
    assert not is_stacked(tiny(speed={"executor": "one_by_one"}))
    assert not is_stacked(tiny(model=cnn))
    assert is_stacked(tiny(model=cnn, speed={"device": "cuda"}))
    assert is_stacked(tiny(model=cnn, speed={"device": "cuda", "executor": "stacked"}))
    assert not is_stacked(tiny(model=cnn, speed={"device": "cuda", "executor": "one_by_one"}))
    assert not is_stacked(tiny(model=cnn, speed={"device": "mps"}))
    assert not is_stacked(tiny(speed={"engine": "flower"}))
