"""Tests of `fedmem/training/one_by_one.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.clients.sgd import Sgd
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import Stacked
from tests.training.stacked_helpers import initial, make_store, make_tasks, mlp


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_one_by_one_equals_torchs_own_sgd(momentum: float) -> None:
    rng = np.random.default_rng(3)
    model, store = mlp(4), make_store(rng)
    client = Sgd(lr=0.1, momentum=momentum, weight_decay=0.02, epochs=2, batch_size=6)
    task = make_tasks(client, initial(model), [17], rng)[0]
    ours = OneByOne(model, client, store).train([task])[0].outcome.sent
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum, weight_decay=0.02)
    for positions in task.batches:
        rows = task.rows[positions[positions >= 0]]
        optimizer.zero_grad()
        outputs = model(torch.from_numpy(store.inputs[rows]))
        loss = nn.functional.cross_entropy(outputs, torch.from_numpy(store.targets[rows]))
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch does not say its types
        optimizer.step()
    for name, value in model.named_parameters():
        torch.testing.assert_close(ours[name], value.detach(), rtol=1e-6, atol=1e-7)


def test_a_client_without_rows_sends_the_model_back() -> None:
    rng = np.random.default_rng(5)
    model, store, client = mlp(0), make_store(rng), Sgd()
    before = initial(model)
    for kind in (OneByOne, Stacked):
        result = kind(model, client, store).train(make_tasks(client, before, [0, 5], rng))
        assert all(torch.equal(result[0].outcome.sent[name], before[name]) for name in before)
        assert np.isnan(result[0].loss)
        assert any(not torch.equal(result[1].outcome.sent[name], before[name]) for name in before)
