"""Tests of `fedmem/federation/prefix.py`: when outputs of frozen layers are stored, and that nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fedmem
from fedmem.contracts.federation import digest
from fedmem.execution.bank import simulate
from fedmem.execution.memory_budget import unlimited_plan
from fedmem.execution.memory_plan import needs_of, phases
from fedmem.federation import prefix as subject
from fedmem.federation.build import build
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Scenario
from tests.training.prefix_helpers import WIDTH, Routed


def scenario(**changes: Any) -> Scenario:
    document = {
        "name": "frozen",
        "runs": 2,
        "rounds": 2,
        "clients": 2,
        "dataset": {"kind": "digits"},
        "partition": {"kind": "iid"},
        "population": 40,
        "model": {"kind": "mlp", "hidden": [16, 12]},
        "freeze": ["hidden*"],
        "client": {"kind": "sgd", "lr": 0.1, "epochs": 1, "batch_size": 64},
        "injections": [{"kind": "mislabelled", "per_client": 2}, {"kind": "typical", "per_client": 2}],
        "probes": [{"kind": "utility"}],
        "save": {"params": True},
        "estimators": [{"kind": "memorisation"}],
    }
    return parse_scenario(json.dumps({**document, **changes}), "frozen")


def test_numbers_are_those_without_but_for_rounding() -> None:
    speed = {"executor": "one_by_one", "workers": 1}
    on, off = (scenario(speed={**speed, "cache_prefix": value}) for value in ("auto", "off"))
    assert on.id == off.id
    federations = build(on), build(off)
    assert federations[0].prefix is not None
    assert federations[1].prefix is None
    assert digest(federations[0]) == digest(federations[1])
    banks = [simulate(each, federation) for each, federation in zip((on, off), federations, strict=True)]
    for one, other in zip(*(bank.bank.evidence for bank in banks), strict=True):
        np.testing.assert_allclose(one.loss, other.loss, rtol=1e-4, atol=1e-6)
    for one, other in zip(*(bank.params for bank in banks), strict=True):
        torch.testing.assert_close(dict(one), dict(other))
    # the network itself is as it was, for attacks that read gradients
    assert not any("forward" in vars(part) for part in federations[0].model.modules())


@pytest.mark.parametrize(
    "changes",
    [
        {"freeze": []},
        {"freeze": ["hidden2.*"]},
        {"client": {"kind": "dp_sgd", "lr": 0.1, "epochs": 1, "batch_size": 64, "clip": 1.0, "noise_multiplier": 1.0}},
        {"speed": {"cache_prefix": "off"}},
    ],
    ids=["nothing frozen", "a trained layer first", "clipped examples", "off"],
)
def test_nothing_is_stored(changes: dict[str, Any]) -> None:
    assert build(scenario(**changes)).prefix is None


def test_experts_behind_a_trained_router_are_not_stored() -> None:
    # `argmax` hides the dependence from gradients, and small changes leave the choice as it is
    assert build(scenario(model={"kind": f"{__name__}:RoutedPixels"}, freeze=["routed.experts*"])).prefix is None


class RoutedPixels(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.routed = Routed()
        self.output = nn.Linear(self.routed.head.out_features, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.routed(x.flatten(1)[:, 16 : 16 + WIDTH]))
        return logits


def test_sets_that_do_not_fit_are_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedmem.training import prefix_store

    federation = build(scenario())
    assert federation.prefix is not None
    row = federation.prefix.prefix.row_bytes
    assert row == 12 * 4
    rows = len(federation.store) + len(federation.test) + len(federation.population)
    for limit, others in ((rows * row, 2), (rows * row - 1, 0)):
        monkeypatch.setattr(prefix_store, "STORED_BYTES", limit)
        found = subject.prefix_of(scenario(), federation)
        assert found is not None
        assert len(found._others) == others
    monkeypatch.setattr(prefix_store, "STORED_BYTES", len(federation.store) * row - 1)
    assert subject.prefix_of(scenario(), federation) is None


def test_the_memory_plan_has_what_is_stored() -> None:
    given = scenario()
    federation = build(given)
    assert federation.prefix is not None
    needs = needs_of(given, federation, 2)
    whole = needs_of(given, build(scenario(speed={"cache_prefix": "off"})), 2)
    assert needs.stored == federation.prefix.nbytes
    assert needs.row == whole.row + federation.prefix.prefix.row_bytes
    planned = phases(needs, unlimited_plan(needs, 2, 1))
    assert planned["training"]["outputs of frozen layers"] == needs.stored
    assert "outputs of frozen layers" not in phases(whole, unlimited_plan(whole, 2, 1))["training"]


@pytest.mark.slow
def test_workers_and_shards_change_no_byte(tmp_path: Path) -> None:
    files = []
    for workers, shard in ((1, 4), (2, 2)):
        given = scenario(runs=4, speed={"workers": workers, "shard": shard, "executor": "one_by_one"})
        folder = Path(fedmem.run(given, out=tmp_path / str(workers)))
        files.append((folder / "measurements.parquet").read_bytes())
    assert files[0] == files[1]
