"""The decoder: causal, the same token by token, by hand, and as a stack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedmem.clients.dp_sgd import DpSgd
from fedmem.clients.sgd import Sgd
from fedmem.contracts.client import PrivateAlgorithm
from fedmem.contracts.data import Examples
from fedmem.contracts.model import StepwiseNetwork
from fedmem.errors import ComponentError
from fedmem.modalities.text.language_model import causal
from fedmem.models.transformer import Transformer
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import Stacked, Task
from tests.models.transformer_helpers import LENGTH, VOCABULARY, network, texts


def test_the_future_changes_nothing_before_it() -> None:
    module, rows = network().double(), texts()
    logits = module(rows)
    assert logits.shape == (3, LENGTH, VOCABULARY)
    for place in range(LENGTH):
        changed = rows.clone()
        changed[:, place:] = (changed[:, place:] + 1) % VOCABULARY
        other = module(changed)
        torch.testing.assert_close(other[:, :place], logits[:, :place])
        assert not torch.allclose(other[:, place:], logits[:, place:])
        torch.testing.assert_close(module(rows[:, : place + 1]), logits[:, : place + 1])


def test_a_token_far_back_and_where_it_stands_are_heeded() -> None:
    module, rows = network().double(), texts(1)
    first = rows.clone()
    first[:, 0] = (first[:, 0] + 1) % VOCABULARY
    assert not torch.allclose(module(first)[:, -1], module(rows)[:, -1])
    swapped = rows[:, [1, 0, *range(2, LENGTH)]]
    assert rows[0, 0] != rows[0, 1]
    assert not torch.allclose(module(swapped)[:, -1], module(rows)[:, -1])


def test_token_by_token_is_all_at_once() -> None:
    module, rows = network().double(), texts()
    assert isinstance(module, StepwiseNetwork)
    logits, state = module(rows), module.start(3)
    for place in range(LENGTH):
        step, after = module.advance(state, rows[:, place])
        torch.testing.assert_close(step, logits[:, place])
        again, _ = module.advance(state, rows[:, place])
        assert torch.equal(step, again), "a state that was handed out is never written to"
        state = after
    model = causal(module, dict(module.named_parameters()))
    chosen = torch.tensor([2, 0, 2])
    _, first = model.advance(model.start(3), rows[:, 0])
    step, _ = model.advance(model.select(first, chosen), rows[chosen, 1])
    torch.testing.assert_close(step, logits[chosen, 1])


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.parametrize(
    "client",
    [
        Sgd(lr=0.3, epochs=2, batch_size=4),
        Sgd(lr=0.2, momentum=0.9, steps=3, batch_size=3),
        DpSgd(lr=0.5, batch_size=4, steps=3, clip=0.3, noise_multiplier=0.5),
    ],
    ids=["sgd", "momentum", "private"],
)
def test_a_stack_of_clients_is_each_alone(client: Any) -> None:
    rng, model = np.random.default_rng(0), network()
    rows = texts(30).numpy()
    targets = np.where(rng.random(rows.shape) < 0.2, -1, np.roll(rows, -1, axis=1))
    store = Examples(inputs=rows, targets=targets, ids=np.arange(30))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    tasks = [
        Task(
            run=i,
            round=1,
            client=i,
            before=before,
            rows=rng.permutation(30)[:size],
            batches=client.batches(size, np.random.default_rng(i)),
            payload={"round": torch.tensor(1.0)},
        )
        for i, size in enumerate([7, 1, 20])
    ]
    plain = OneByOne(model, client, store).train(tasks)
    for one, other in zip(plain, Stacked(model, client, store).train(tasks), strict=True):
        for name, value in one.outcome.sent.items():
            torch.testing.assert_close(other.outcome.sent[name], value, rtol=1e-5, atol=1e-5)
        assert one.loss == pytest.approx(other.loss, rel=1e-5, nan_ok=True)
    assert isinstance(client, PrivateAlgorithm) or not torch.allclose(
        plain[2].outcome.sent["blocks.0.asks.weight"], before["blocks.0.asks.weight"], rtol=1e-3
    )


def test_transformer_refuses_images_and_indivisible_widths() -> None:
    with pytest.raises(ComponentError, match="inputs have shape"):
        Transformer().build((1, 8, 8), 10)
    with pytest.raises(ComponentError, match="10 cannot be divided among 4 heads; use 8 or 12"):
        Transformer(width=10, heads=4)
