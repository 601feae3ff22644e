"""Tests of `fedmem/clients/selective.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.clients.selective import Selective
from fedmem.errors import ScenarioError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from tests.tiny import tiny

CLIENT: dict[str, Any] = {"lr": 0.2, "batch_size": 8}


def params(client: dict[str, Any], **changes: Any) -> list[np.ndarray]:
    scenario = tiny(client=client, **changes)
    return [value.numpy() for run in simulate(scenario, build(scenario)).params for value in run.values()]


def test_a_share_of_zero_is_plain_descent_bit_for_bit() -> None:
    plain = params({"kind": "sgd", **CLIENT})
    for by in ("loss", "el2n", "random"):
        same = params({"kind": "selective", "share": 0.0, "by": by, **CLIENT})
        assert all(np.array_equal(one, other) for one, other in zip(plain, same, strict=True))
    fewer = params({"kind": "selective", "share": 0.25, **CLIENT})
    assert not all(np.array_equal(one, other) for one, other in zip(plain, fewer, strict=True))


@pytest.mark.parametrize("by", ["loss", "random"])
def test_stacked_clients_equal_single_ones(by: str) -> None:
    client = {"kind": "selective", "share": 0.3, "by": by, **CLIENT}
    stacked, single = (params(client, speed={"executor": kind}) for kind in ("stacked", "one_by_one"))
    for one, other in zip(stacked, single, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_steps_and_batches_are_those_of_the_rows_that_are_kept() -> None:
    client = Selective(share=0.5, batch_size=4, epochs=2)
    assert client.num_steps(16) == 4
    batches = client.batches(16, np.random.default_rng(0))
    assert batches.shape == (4, 4)
    assert sorted(batches[:2].ravel().tolist()) == list(range(8))
    assert client.num_steps(0) == 0
    assert client.batches(1, np.random.default_rng(0)).max() == 0, "of one row, one is kept"


def test_what_reads_all_rows_of_the_objective_is_refused() -> None:
    client = {"kind": "selective"}
    with pytest.raises(ScenarioError, match="with client selective a client trains on fewer rows than the objective"):
        tiny(client=client, signals=[{"kind": "influence_function"}])
    with pytest.raises(ScenarioError, match="less than 1"):
        tiny(client={"kind": "selective", "share": 1.0})
