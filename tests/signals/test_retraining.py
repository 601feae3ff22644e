"""Tests of `fedmem/signals/_retraining.py`; `test_block_swap.py` has its oracles."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch

from fedmem.contracts.arrays import Params
from fedmem.signals._retraining import Retraining
from tests.signals.signals_helpers import Bench

LAST = ("output.weight", "output.bias")


def retrained(lab: Bench, count: int, statistics: Collection[str] = (), **fields: Any) -> tuple[Params, Params]:
    """A model before and after its last block was trained again on so many rows."""
    model = lab.params(1)
    train = Retraining(**{"epochs": 3, "lr": 0.1, "batch_size": 4, **fields})
    rows = lab.federation.store.take(np.arange(count))
    order = np.random.default_rng(0)
    return model, train(lab.reader._network, model, lab.federation.initial, LAST, rows, order, statistics)


def test_other_blocks_stay_and_the_block_has_its_type() -> None:
    lab = Bench()
    model, after = retrained(lab, 10)
    assert all(torch.equal(after[name], value) for name, value in model.items() if name not in LAST)
    for name in LAST:
        assert not torch.equal(after[name], lab.federation.initial[name])
        assert after[name].dtype == model[name].dtype
    assert not any(value.requires_grad for value in after.values())


def test_without_rows_the_block_is_the_initial_one() -> None:
    lab = Bench()
    after = retrained(lab, 0)[1]
    assert all(torch.equal(after[name], lab.federation.initial[name]) for name in LAST)


def test_running_statistics_are_reset_and_not_trained() -> None:
    lab = Bench()
    after = retrained(lab, 10, statistics=["output.bias"])[1]
    assert torch.equal(after["output.bias"], lab.federation.initial["output.bias"])
    assert not torch.equal(after["output.weight"], lab.federation.initial["output.weight"])


def test_more_passes_lower_the_loss_of_the_rows() -> None:
    lab = Bench()
    rows = lab.federation.store.take(np.arange(10))
    losses = []
    for epochs in (1, 30):
        after = retrained(lab, 10, epochs=epochs, lr=0.02)[1]
        logits = torch.from_numpy(lab._executor.logits([after], rows.inputs)[0])
        losses.append(float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(rows.targets))))
    assert losses[1] < losses[0]
