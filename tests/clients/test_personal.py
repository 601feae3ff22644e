"""Tests of `fedmem/clients/_personal.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedmem.contracts.arrays import Params
from fedmem.errors import FedmemError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from tests.clients.clients_helpers import PERSONAL, personal, turns
from tests.engines.seams_helpers import same, watched
from tests.tiny import tiny


@pytest.mark.parametrize("kind", PERSONAL)
@pytest.mark.parametrize("server", ["messages", "rule"])
def test_own_layers_stay_and_begin_as_they_ended(kind: str, server: str) -> None:
    scenario = personal(kind)
    federation = build(scenario)
    own = scenario.client.personal_parameters(federation.initial)
    finished, seen, work = watched(scenario, server)
    for (run, client), models in turns(seen.local).items():
        last: Params = {}
        for one in models:
            given = work.stored_work(run, one.round, client).memory_of(0)
            assert given.keys() == last.keys()
            assert all(torch.equal(given[name], value) for name, value in last.items())
            for name, value in one.before.items():
                assert torch.equal(one.sent[name], value) == (name in own)
                assert not torch.equal(one.kept[name], value)
                assert name in own or torch.equal(one.sent[name], one.kept[name])
            last = {name: one.kept[name] for name in own}
    for params in finished.params:
        for name in own:
            torch.testing.assert_close(params[name], federation.initial[name], rtol=1e-5, atol=1e-6)


def test_fedper_without_personal_layers_equals_sgd() -> None:
    none, plain = (
        simulate(scenario, build(scenario))
        for scenario in (personal("fedper", client={"kind": "fedper", "layers": 0, "lr": 0.2, "batch_size": 8}),
                         personal("fedper", client={"kind": "sgd", "lr": 0.2, "batch_size": 8}))
    )  # fmt: skip
    assert same(none.params, plain.params)
    for one, other in zip(none.bank.evidence, plain.bank.evidence, strict=True):
        assert np.array_equal(one.loss, other.loss)
        assert np.array_equal(one.client, other.client)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client": {"kind": "fedper", "layers": 2}}, "client.layers.* the network has 2 with parameters"),
        ({"client": {"kind": "local_norm"}}, "client.kind.* keeps normalisation layers .* the network has none"),
    ],
)
def test_layers_that_are_not_there_are_an_error(changes: dict[str, Any], message: str) -> None:
    scenario = tiny(**changes)
    with pytest.raises(FedmemError, match=message):
        simulate(scenario, build(scenario))
