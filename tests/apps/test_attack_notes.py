"""Tests of `fedmem/apps/attack_notes.py`."""

from __future__ import annotations

import torch
from torch import nn

from fedmem.apps.attack_notes import contradictions, evaluation_mode, fewer_inputs


def test_batch_norm_is_noted_unless_the_client_was_in_mode_eval() -> None:
    normed, plain = nn.BatchNorm1d(2), nn.Linear(2, 2)
    assert "in evaluation mode" in evaluation_mode(normed, "train")[0]
    assert evaluation_mode(normed, "eval") == evaluation_mode(plain, "train") == ()


def test_changed_statistics_and_frozen_parameters_are_noted() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert contradictions(before, before, model, "eval") == ()
    moved = before | {"1.running_mean": torch.ones(2)}
    assert "mode eval is granted" in contradictions(before, moved, model, "eval")[0]
    assert contradictions(before, moved, model, "train") == ()
    trained = before | {"0.bias": torch.ones(2)}
    assert "the model freezes '0.bias'" in contradictions(before, trained, model, "train")[0]


def test_another_number_of_true_inputs_is_noted() -> None:
    assert fewer_inputs(0, 4) == fewer_inputs(4, 4) == ()
    assert "there are 2 true inputs" in fewer_inputs(2, 4)[0]
