"""Tests of `fedmem/training/own_entries.py`."""

from __future__ import annotations

import torch

from fedmem.contracts.client import Outcome
from fedmem.contracts.training_mode import TrainingMode
from fedmem.training.own_entries import join_outcome, start_of


def test_entries_of_a_client_go_and_come_back() -> None:
    mode = TrainingMode(statistics=("s",), personal=("s", "g"))
    before = {"w": torch.tensor(0.0), "g": torch.tensor(0.0), "s": torch.tensor(0.0)}
    start = start_of(mode, before, {"norm:g": torch.tensor(2.0), "other": torch.tensor(3.0)})
    assert (float(start.params["g"]), float(start.statistics["s"]), list(start.memory)) == (2.0, 0.0, ["other"])
    trained = {"w": torch.tensor(1.0), "g": torch.tensor(5.0)}
    outcome = join_outcome(mode, before, Outcome(sent=trained, kept=trained), {"s": torch.tensor(7.0)})
    assert {name: float(value) for name, value in outcome.sent.items()} == {"w": 1.0, "g": 0.0, "s": 0.0}
    assert {name: float(value) for name, value in outcome.kept.items()} == {"w": 1.0, "g": 5.0, "s": 7.0}
    assert {name: float(value) for name, value in outcome.memory.items()} == {"norm:s": 7.0, "norm:g": 5.0}


def test_without_statistics_everything_is_as_it_was() -> None:
    before = {"w": torch.tensor(0.0)}
    start = start_of(TrainingMode(draws=True), before, {"norm:w": torch.tensor(1.0)})
    assert start.params is before
    assert list(start.memory) == ["norm:w"]
    outcome = Outcome(sent=before, kept=before)
    assert join_outcome(TrainingMode(draws=True), before, outcome, {}) is outcome
