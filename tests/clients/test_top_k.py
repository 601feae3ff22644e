"""Tests of `fedmem/clients/top_k.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmem.clients.top_k import TopK
from fedmem.contracts.arrays import Params
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.training.one_by_one import OneByOne
from tests.clients.clients_helpers import turns
from tests.engines.seams_helpers import watched
from tests.tiny import tiny


def sum_of(moves: list[Params]) -> Params:
    return {name: torch.stack([move[name] for move in moves]).sum(0) for name in moves[0]}


def apart(one: Params, other: Params) -> Params:
    return {name: value - other[name] for name, value in one.items()}


def test_top_k_residual_over_two_rounds_equals_hand_calculation() -> None:
    client, zero = TopK(share=0.5), {"w": torch.zeros(4)}
    first = client.final(client.init(zero, {}, {}) | {"params": {"w": torch.tensor([1.0, -3.0, 2.0, 0.5])}}, zero)
    assert first.sent["w"].tolist() == [0.0, -3.0, 2.0, 0.0]
    assert first.memory["w"].tolist() == [1.0, 0.0, 0.0, 0.5]
    before = {"w": torch.full((4,), 10.0)}
    trained = {"w": before["w"] + torch.tensor([1.5, 0.25, -1.0, 2.0])}
    second = client.final(client.init(before, {}, first.memory) | {"params": trained}, before)
    # u + e = [2.5, 0.25, -1, 2.5]
    assert (second.sent["w"] - 10).tolist() == [2.5, 0.0, 0.0, 2.5]
    assert second.memory["w"].tolist() == [0.0, 0.25, -1.0, 0.0]
    assert second.kept is trained


@pytest.mark.parametrize("share", [1e-9, 0.1, 0.3, 0.5, 1.0])
def test_the_number_of_values_that_are_sent(share: float) -> None:
    rng = np.random.default_rng(0)
    zero = {"a": torch.zeros(20, 5), "b": torch.zeros(7)}
    trained = {n: torch.from_numpy(rng.normal(size=tuple(v.shape)).astype(np.float32)) for n, v in zero.items()}
    client = TopK(share=share)
    sent = client.final(client.init(zero, {}, {}) | {"params": trained}, zero).sent
    for value in sent.values():
        assert int((value != 0).sum()) == max(1, int(np.ceil(share * value.numel() - 1e-6)))


@pytest.mark.parametrize("server", ["messages", "rule"])
def test_sent_updates_and_residual_add_up_to_all_updates(server: str) -> None:
    """Over all turns of a client, whatever the server makes of them; with the residual lost they would not."""
    scenario = tiny(client={"kind": "top_k", "share": 0.1, "lr": 0.3, "batch_size": 8}, rounds=5, runs=2)
    _, seen, work = watched(scenario, server)
    federation = build(scenario)
    reference = OneByOne(federation.model, scenario.client, federation.store)
    more_than_once = 0
    for (run, client), own in turns(seen.local).items():
        given = work.stored_work(run, own[-1].round, client)
        (last,) = reference.train_all(given).outcomes()
        sent, moved = (sum_of([apart(getattr(t, part), t.before) for t in own]) for part in ("sent", "kept"))
        for name, value in moved.items():
            torch.testing.assert_close(sent[name] + last.memory[name], value, rtol=1e-4, atol=1e-6)
        if len(own) > 1:
            more_than_once += 1
            assert any(not torch.allclose(sent[n], moved[n], atol=1e-3) for n in moved)
        for one in own:
            for value in apart(one.sent, one.before).values():
                assert int((value != 0).sum()) <= int(np.ceil(0.1 * value.numel()))
    assert more_than_once > 3


def test_sending_everything_is_sgd() -> None:
    whole, plain = (
        simulate(scenario, build(scenario)).params
        for scenario in (tiny(client={"kind": "top_k", "share": 1.0, "lr": 0.2, "batch_size": 8}), tiny())
    )
    for one, other in zip(whole, plain, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6)
