from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Level, Reading
from fedmem.execution.bank import simulate
from fedmem.execution.run import run
from fedmem.federation.build import build
from fedmem.privacy.secure_aggregation import by_size, in_order, label_size, sums_of, with_size
from fedmem.results.read import read
from fedmem.scenario.catalogue import kinds, load
from fedmem.scenario.scenario import Scenario
from fedmem.strategies.fedavg import FedAvg
from tests.lab import Lab, measured
from tests.labelling import labels
from tests.tiny import tiny

LEVELS = ["local", "sum", "global"]


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


def uneven(lab: Lab) -> list[Transition]:
    """One round of two runs, in which clients count 1, 2 and 3 times as much."""
    return [replace(one, num_examples=10 * (one.client + 1)) for one in lab.local()]


def test_a_sum_is_the_weighted_mean_of_what_its_clients_sent(lab: Lab) -> None:
    local = uneven(lab)
    for weighting, weights in (("size", [1.0, 2.0, 3.0]), ("uniform", [1.0, 1.0, 1.0])):
        for one in sums_of(local, (2, 3), weighting, 0, lab.federation.audit):
            members = [t for t in local if t.run == one.run and t.client in one.clients]
            own = [weights[t.client] for t in members]
            for name, value in one.sent.items():
                expected = torch.stack([w * t.sent[name].double() for w, t in zip(own, members, strict=True)]).sum(
                    0
                ) / sum(own)
                assert torch.allclose(value.double(), expected, atol=1e-7)
            assert one.kept is one.sent
            assert one.before is members[0].before
            assert one.num_examples == sum(t.num_examples for t in members)
            assert (one.level, one.client, one.round) == ("sum", NO_CLIENT, 2)


def test_sums_by_size_and_uniform_weights_differ(lab: Lab) -> None:
    by_weighting = [sums_of(uneven(lab), (3,), w, 0, lab.federation.audit)[0].sent for w in ("size", "uniform")]
    assert any(not torch.allclose(value, by_weighting[1][name], atol=1e-5) for name, value in by_weighting[0].items())


def test_clients_without_examples_have_equal_weights(lab: Lab) -> None:
    local = [replace(one, num_examples=0) for one in lab.local(runs=(0,))]
    (one,) = sums_of(local, (3,), "size", 0, lab.federation.audit)
    for name, value in one.sent.items():
        assert torch.allclose(value, torch.stack([t.sent[name] for t in local]).mean(0), atol=1e-6)


def test_larger_sums_contain_the_smaller_and_small_cohorts_none(lab: Lab) -> None:
    found = sums_of(lab.local(), (5, 3, 2), "size", 0, lab.federation.audit)
    assert [(one.run, len(one.clients)) for one in found] == [(0, 2), (0, 3), (1, 2), (1, 3)]
    for small, large in (found[:2], found[2:]):
        assert set(small.clients) < set(large.clients)
        assert list(small.clients) == sorted(small.clients)
    assert sums_of([], (2,), "size", 0, lab.federation.audit) == []


def test_order_in_sums_is_independent_of_coins_with_owners_first(lab: Lab) -> None:
    audit = lab.federation.audit
    flipped = replace(audit, is_in=~audit.is_in)
    clients = list(range(40))
    orders = [in_order(0, run, 2, clients, audit).tolist() for run in range(30)]
    assert orders == [in_order(0, run, 2, clients[::-1], flipped).tolist() for run in range(30)]
    assert all(set(order[:3]) == {0, 1, 2} for order in orders), "the three holders of audit examples"
    assert len({tuple(order[:3]) for order in orders}) == 6, "in every order"
    assert len({order[3] for order in orders}) > 10
    later = replace(audit, start=np.where(audit.owner == 1, 9, 0).astype(np.int32))
    assert set(in_order(0, 0, 2, clients, later).tolist()[:2]) == {0, 2}, (
        "who trains on examples only later is no holder"
    )


def test_sums_of_each_size_are_summarised_separately() -> None:
    pairs = []
    for size, value in ((2, 1.0), (5, 3.0)):
        about = Transition(
            run=0, round=2, level="sum", client=-1, before={}, sent={}, kept={}, num_examples=1,
            clients=tuple(range(size)),
        )  # fmt: skip
        pairs.append(
            (about, label_size(Reading(metric="m", value=value, labels=labels("view=x" if size == 5 else "")), about))
        )
    assert [reading.labels for _, reading in pairs] == [labels("clients=2"), labels("clients=5 view=x")]
    everywhere = replace(pairs[0][0], level="global")
    reading = Reading(metric="m", value=2.0, labels=labels("view=a"))
    assert label_size(reading, everywhere) is reading
    groups = dict(by_size(measured([*pairs, (everywhere, reading)])))
    assert {size: [one.reading.labels for one in own] for size, own in groups.items()} == {
        2: [labels()],
        5: [labels("view=x")],
        None: [labels("view=a")],
    }
    again = [with_size(own[0], size).reading.labels for size, own in groups.items()]
    assert again == [labels("clients=2"), labels("clients=5 view=x"), labels("view=a")]


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """A probe that says of whom each model is, and how far it is from the aggregate of the locals shown before."""

    measures: ClassVar[tuple[Measure, ...]] = (Measure(name="norm", title="norm", means="Squared distance."),)

    every: int | None = None
    levels: tuple[Level, ...] = ("local", "sum", "global")

    def observe(self, transitions: Any, context: Any) -> Any:
        found = []
        for one in transitions:
            norm = sum(float((value - one.before[name]).double().square().sum()) for name, value in one.sent.items())
            found.append((one, Reading(metric="norm", value=norm, subject=",".join(map(str, one.clients)))))
        return found

    def summarise(self, measurements: Any, seed: int) -> Any:
        return []


def watched(**changes: Any) -> Scenario:
    scenario = tiny(
        observe={"every": 2, "levels": LEVELS, "sums": [2, 3]}, probes=[{"kind": "utility", "levels": LEVELS}]
    )
    return scenario.model_copy(update={"probes": (Recorder(),), **changes})


def test_in_a_run_the_sum_over_the_whole_cohort_is_the_aggregate() -> None:
    """FedAvg by size and by client: the sum of all three clients of a cohort moves the model as the server does."""
    for weighting in ("size", "uniform"):
        scenario = watched(strategy=FedAvg(weighting=weighting))
        rows = simulate(scenario, build(scenario)).measurements
        for place in range(4):
            for round_number in (2, 4):
                own = [m for m in rows if (m.run, m.round) == (place, round_number)]
                (whole,) = [m for m in own if m.level == "sum" and m.reading.labels.get("clients") == 3]
                (aggregate,) = [m for m in own if m.level == "global"]
                assert whole.reading.value == pytest.approx(aggregate.reading.value, rel=1e-4)
                assert whole.reading.subject == aggregate.reading.subject
                assert whole.client == NO_CLIENT
                (pair,) = [m for m in own if m.level == "sum" and m.reading.labels.get("clients") == 2]
                assert abs(pair.reading.value / aggregate.reading.value - 1) > 1e-3


def test_sums_are_formed_only_on_request_and_change_nothing() -> None:
    plain = tiny(probes=[{"kind": "utility"}])
    summed = tiny(
        probes=[{"kind": "utility"}, {"kind": "utility", "levels": ["sum"]}],
        observe={"every": 2, "levels": LEVELS, "sums": [2]},
    )
    first, second = (simulate(one, build(one)) for one in (plain, summed))
    assert all(torch.equal(a[name], b[name]) for a, b in zip(first.params, second.params, strict=True) for name in a)
    assert [one.level for one in first.bank.evidence] == [one.level for one in second.bank.evidence]
    for one, other in zip(first.bank.evidence, second.bank.evidence, strict=True):
        np.testing.assert_array_equal(one.margin, other.margin)
    kept = [m for m in second.measurements if m.source == "utility"]
    assert repr(kept) == repr([m for m in first.measurements if m.source == "utility"])
    assert {m.level for m in second.measurements if m.source == "utility_2"} == {"sum"}
    assert not [m for m in first.measurements if m.level == "sum"]


def test_readings_of_sums_are_written_for_each_size(tmp_path: Path) -> None:
    probes = [{"kind": "utility", "levels": LEVELS}, {"kind": "client_gap", "levels": LEVELS}]
    scenario = tiny(probes=probes, observe={"every": 2, "levels": LEVELS, "sums": [2, 3]})
    frame = read(run(scenario, out=tmp_path)).measurements
    own = frame[(frame.level == "sum") & (frame.source == "utility") & (frame.metric == "test_accuracy")]
    assert set(own.clients) == {2, 3}
    singles = own[own.scope == "run"]
    assert len(singles) == 4 * 2 * 2, "runs, rounds and sizes; round 0 has nobody to sum"
    for size in (2, 3):
        final = own[(own.scope == "summary") & (own.clients == size)]
        last = singles[(singles["round"] == 4) & (singles.clients == size)]
        assert final.value.item() == pytest.approx(last.value.mean())
        assert final.n.item() == 4
    gaps = frame[(frame.level == "sum") & (frame.source == "client_gap") & (frame.scope == "summary")]
    assert set(gaps.clients) == {2, 3}
    keys = ["run", "round", "level", "client", "subject", "source", "metric", "clients"]
    assert not frame.duplicated(keys).any()


def test_every_strategy_weights_by_size_or_uniformly() -> None:
    found = {kind: getattr(load("strategy", kind), "weighting", "size") for kind in kinds("strategy")}
    assert set(found.values()) <= {"size", "uniform"}
    assert {kind for kind in ("fedmedian", "krum", "trimmed_mean") if found[kind] == "uniform"} == {
        "fedmedian",
        "krum",
        "trimmed_mean",
    }
    assert (found["fedavg"], found["fedadam"]) == ("size", "size")
