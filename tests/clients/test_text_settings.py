"""Goldfish loss and deduplication, as clients train: the same in all executors, servers and messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.clients.dp_sgd import DpSgd
from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Examples
from fedmem.errors import RunError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.modalities.text.goldfish import goldfish_targets
from fedmem.scenario.scenario import Scenario
from fedmem.training.executor import training_targets
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import Stacked
from tests.engines.seams_helpers import same
from tests.lab import digits, network
from tests.tiny import tiny
from tests.training.stacked_helpers import initial, make_tasks

TEXTS: dict[str, Any] = {
    "dataset": {"kind": "shakespeare", "length": 16, "clients": 3, "max_chars": 300},
    "partition": {"kind": "natural"},
    "model": {"kind": "char_rnn", "hidden": 6, "embedding": 4},
    "injections": [{"kind": "secret", "template": "pin {digits:3}", "copies": 3, "per_client": 1}],
    "clients": 3,
    "runs": 2,
    "rounds": 1,
    "population": 0,
    "references": 5,
    "sampler": {"kind": "everyone"},
    "observe": {"rounds": []},
    "speed": {"executor": "one_by_one", "workers": 1},
}


def texts(kind: str = "sgd", **client: Any) -> Scenario:
    return tiny(**TEXTS, client={"kind": kind, "lr": 0.5, "batch_size": 4, **client})


@pytest.fixture(scope="module")
def passages() -> Examples:
    tokens = np.random.default_rng(0).integers(9, size=(60, 13))
    return Examples(inputs=tokens[:, :-1], targets=tokens[:, 1:].copy(), ids=np.arange(60))


def reader() -> nn.Module:
    """A network that predicts each token from the one before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9))


@pytest.mark.parametrize("cls", [Sgd, DpSgd])
def test_executors_train_as_on_rows_masked_by_hand(cls: Any, passages: Examples) -> None:
    settings = {"goldfish": 2, "goldfish_context": 3, "lr": 0.5, "batch_size": 4}
    client, plain, model = cls(**settings), cls(**{**settings, "goldfish": None}), reader()
    by_hand = replace(passages, targets=goldfish_targets(passages.inputs, passages.targets, 2, 3))
    tasks = make_tasks(client, initial(model), [10, 7, 10], np.random.default_rng(2))
    done, stacked = (executor(model, client, passages).train(tasks) for executor in (OneByOne, Stacked))
    sent = [one.outcome.sent for one in done]
    assert same(sent, [one.outcome.sent for one in OneByOne(model, plain, by_hand).train(tasks)])
    assert not same(sent, [one.outcome.sent for one in OneByOne(model, plain, passages).train(tasks)])
    for one, other in zip(sent, stacked, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(other.outcome.sent[name], value)


def test_servers_agree_and_evidence_asks_for_all_tokens() -> None:
    scenario, plain = texts(goldfish=3, goldfish_context=2, deduplicate="near"), texts(deduplicate="near")
    federation = build(scenario)
    store = federation.store
    by_hand = replace(store, targets=goldfish_targets(store.inputs, store.targets, 3, 2))
    assert (by_hand.targets != store.targets).any()
    found = simulate(scenario, federation)
    messages = scenario.model_copy(update={"speed": scenario.speed.model_copy(update={"server": "messages"})})
    assert same(found.params, simulate(messages, federation).params)
    expected = simulate(plain, replace(build(plain), store=by_hand))
    assert same(found.params, expected.params)
    pairs = zip(found.bank.evidence, expected.bank.evidence, strict=True)
    assert all(np.array_equal(one.loss, other.loss) for one, other in pairs)
    assert not same(found.params, simulate(plain, build(plain)).params)


@pytest.mark.parametrize("kind", ["sgd", "dp_sgd", "fedper", "top_k"])
def test_settings_at_their_defaults_are_no_part_of_the_id(kind: str) -> None:
    dumped = texts(kind).dump()["client"]
    assert dumped["deduplicate"] is None
    plain, explicit = texts(kind), texts(kind, goldfish=None, deduplicate=None, goldfish_context=13)
    assert plain.id == explicit.id
    assert texts(kind, goldfish=4).id != plain.id


def test_targets_that_a_client_changes_otherwise_are_refused() -> None:
    rows = digits()
    assert training_targets(Sgd(), rows) is rows.targets
    tokens = np.arange(30).reshape(5, 6)
    passages = Examples(inputs=tokens, targets=tokens + 1, ids=np.arange(5))

    class Other(Sgd):
        def training_targets(self, rows: Examples) -> IntArray:
            return rows.targets + 1

    class Fewer(Sgd):
        def training_targets(self, rows: Examples) -> IntArray:
            return rows.targets[:, :1]

    for client, text in ((Other(), "neither the row's nor -1"), (Fewer(), r"should be int64 of shape \(5, 6\)")):
        with pytest.raises(RunError, match=text):
            training_targets(client, passages)
    with pytest.raises(RunError, match="nothing to leave out"):
        OneByOne(network(), Other(), rows)


def test_private_client_declares_what_its_sgd_does() -> None:
    tokens = np.arange(60).reshape(2, 30)
    rows = Examples(inputs=tokens, targets=tokens + 1, ids=np.arange(2))
    private, plain = DpSgd(goldfish=2, goldfish_context=3), Sgd(goldfish=2, goldfish_context=3)
    np.testing.assert_array_equal(private.training_targets(rows), plain.training_targets(rows))
    assert private.text_fields == plain.text_fields == ("goldfish",)
    assert Sgd(deduplicate="exact").text_fields == ()
    assert Sgd(deduplicate="near").text_fields == ("deduplicate",)
