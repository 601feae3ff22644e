"""What Flower's own aggregation does, and why some strategies are ours. A failure here tells of a change there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as stock
from flwr.serverapp.strategy.multikrum import compute_distances, select_multikrum

from fedmem.engines._flower import FIRST_NODE, LocalGrid, in_process, local_record
from fedmem.strategies._rule import ALONE
from fedmem.strategies._selection import distances
from fedmem.strategies.bulyan import Bulyan
from fedmem.strategies.multikrum import MultiKrum
from tests.cohorts import Cohort, by_messages, cohort, flat, models, one_round, stacked


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


class Stock:
    """A class of Flower's in the place of one of ours."""

    def __init__(self, kind: str, **fields: Any) -> None:
        self._kind, self._fields = kind, fields

    def make(self, cohort_size: int) -> Any:
        return getattr(stock, self._kind)(**ALONE, **self._fields)


def replies_of(strategy: Any, there: Cohort, before: Any) -> tuple[Any, list[Message]]:
    """A strategy of Flower's after one round, and the replies that it was given."""
    flower = strategy.make(len(there.who))
    grid = LocalGrid(len(there.who), lambda messages: [])
    messages = {
        m.metadata.dst_node_id: m for m in flower.configure_train(1, local_record(before), ConfigRecord(), grid)
    }
    replies = [
        Message(
            RecordDict({"arrays": ArrayRecord(model), "metrics": MetricRecord({"num-examples": n, "train_loss": 1.0})}),
            reply_to=messages[FIRST_NODE + k],
        )
        for k, (model, n) in enumerate(zip(there.sent, there.sizes, strict=True))
    ]
    return flower.aggregate_train(1, replies), replies


@pytest.mark.parametrize(
    ("strategy", "emptied"),
    [
        (Stock("FedAvg"), 0),
        (Stock("FedMedian"), 8),
        (Stock("FedTrimmedAvg"), 8),
        (Stock("QFedAvg", client_learning_rate=0.1), 8),
        (Stock("Bulyan", num_malicious_nodes=1), 6),
        (Stock("MultiKrum", num_malicious_nodes=1, num_nodes_to_select=3), 0),
        (MultiKrum(f=1), 0),
        (Bulyan(f=1), 0),
    ],
    ids=lambda value: getattr(value, "_kind", str(value)),
)
def test_flower_classes_that_empty_replies_are_known(strategy: Any, emptied: int) -> None:
    """So whoever watches copies them first (`Observed`); ours leave them whole."""
    rng = np.random.default_rng(0)
    _, replies = replies_of(strategy, cohort(rng, 8), models(rng, 1)[0])
    assert sum(not reply.content.array_records["arrays"] for reply in replies) == emptied


def test_flower_krum_loses_small_updates_of_large_float32_models() -> None:
    """METHODS: a million weights of deviation 0.05, updates of length 0.01; here a tenth of it."""
    rng = np.random.default_rng(1)
    shapes = {"w": (100_000,)}
    base = models(rng, 1, shapes)[0]["w"] * 0.05
    steps = [model["w"] / model["w"].norm() * 0.003 for model in models(rng, 6, shapes)]
    there = cohort(rng, 6).sending([{"w": base + step} for step in steps])
    theirs = compute_distances([ArrayRecord(model) for model in there.sent])
    exact = distances(stacked(1, [there], {"w": base[None]}))[0].numpy()
    np.fill_diagonal(exact, 0.0)
    direct = [[((a["w"].double() - b["w"].double()) ** 2).sum().item() for a in there.sent] for b in there.sent]
    np.testing.assert_allclose(exact, direct, rtol=1e-9)
    assert np.abs(theirs - exact).max() > exact.max()
    # the nearest of each, which Flower drops as being itself, is another
    assert any(int(np.argsort(row)[0]) != place for place, row in enumerate(theirs))


def contents(there: Cohort) -> list[RecordDict]:
    return [
        RecordDict({"arrays": ArrayRecord(model), "metrics": MetricRecord({"num-examples": size})})
        for model, size in zip(there.sent, there.sizes, strict=True)
    ]


def test_flower_multikrum_agrees_with_equal_sizes_only() -> None:
    rng = np.random.default_rng(2)
    before, there = models(rng, 1)[0], cohort(rng, 7)
    chosen = select_multikrum(contents(there), num_malicious_nodes=1, num_nodes_to_select=3)
    picked = np.mean([flat(c.array_records["arrays"].to_torch_state_dict()) for c in chosen], axis=0)
    ours = flat(one_round(MultiKrum(f=1, keep=3), there, before))
    np.testing.assert_allclose(ours, picked, rtol=1e-5, atol=1e-6)
    theirs = Stock("MultiKrum", num_malicious_nodes=1, num_nodes_to_select=3)
    assert not np.allclose(flat(by_messages(theirs, [there], before)[0]), ours, rtol=1e-3)
    even = replace(there, sizes=[5] * 7)
    np.testing.assert_allclose(flat(by_messages(theirs, [even], before)[0]), ours, rtol=1e-5, atol=1e-6)


def test_flowers_bulyan_chooses_once_and_skips_small_rounds() -> None:
    """Seeds in which the choice makes no difference agree; others do not, and ours is the naive one in all."""
    agreed = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        before, there = models(rng, 1)[0], cohort(rng, 7)
        theirs = flat(by_messages(Stock("Bulyan", num_malicious_nodes=1), [there], before)[0])
        agreed.append(np.allclose(flat(one_round(Bulyan(f=1), there, before)), theirs, rtol=1e-4, atol=1e-5))
    assert any(agreed)
    assert not all(agreed)
    (nothing, _), _ = replies_of(Stock("Bulyan", num_malicious_nodes=1), cohort(np.random.default_rng(0), 6), before)
    assert nothing is None


def test_flower_averages_integer_counters_into_fractions() -> None:
    """Ours keep them whole: tests/contracts/test_strategy.py."""
    rng = np.random.default_rng(3)
    there = cohort(rng, 2)
    there = there.sending([{**m, "seen": torch.tensor(n)} for m, n in zip(there.sent, (4, 7), strict=True)])
    for kind in ("FedAvg", "FedMedian"):
        after = by_messages(Stock(kind), [there], {**models(rng, 1)[0], "seen": torch.tensor(3)})[0]
        assert after["seen"].dtype == torch.float64
        assert after["seen"].item() % 1 != 0


def test_flowers_adam_moves_the_statistics_of_normalisation() -> None:
    """Variances of 1 on both sides and 2 before: Adam steps beyond what anybody has seen, by its own step size."""
    rng = np.random.default_rng(4)
    there = cohort(rng, 2)
    there = there.sending([{**m, "norm.running_var": torch.ones(1)} for m in there.sent])
    before = {**models(rng, 1)[0], "norm.running_var": torch.full((1,), 1.01)}
    theirs = by_messages(Stock("FedAdam", eta=0.5), [there], before)[0]
    assert theirs["norm.running_var"].item() < 0.9
    from fedmem.strategies.fedadam import FedAdam

    assert by_messages(FedAdam(server_lr=0.5), [there], before)[0]["norm.running_var"].item() == 1.0
