from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedmem.contracts.arrays import Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import NO_CLIENT, Reading
from fedmem.probes.utility import Utility
from tests.lab import Lab, federation, measured, transition


def summed(transitions: list[Transition], lab: Lab) -> dict[str, Reading]:
    """The means over these models, by metric."""
    rows = Utility().summarise(measured(Utility().observe(transitions, lab)), 0)
    return {row.reading.metric: row.reading for row in rows if row.round is not None}


def naive(lab: Lab, model: Params, inputs: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """One model, one row at a time."""
    right = []
    for x, y in zip(inputs, targets, strict=True):
        logits = lab.logits([model], x[None])[0, 0]
        right.append(all(logits[y] > logits[c] for c in range(10) if c != y))
    return float(np.mean(right))


def trained(lab: Lab) -> list[Transition]:
    """Local models with something learnt, so that accuracies differ."""
    found = []
    for t in lab.local(runs=(0, 1)):
        params = t.before
        for epoch in range(20):
            params = lab.descend(params, lab.batches(t.run, epoch, t.client))
        found.append(replace(t, sent=params, kept=params))
    return found


def test_against_a_naive_loop_at_both_levels() -> None:
    lab = Lab()
    local = trained(lab)
    store, test = lab.federation.store, lab.federation.test
    for transitions in (local, lab.aggregated(local)):
        tests, trains = [], []
        for t in transitions:
            clients = range(3) if t.level == "global" else [t.client]
            rows = np.concatenate([lab.rows(t.run, client) for client in clients])
            tests.append(naive(lab, t.kept, test.inputs, test.targets))
            trains.append(naive(lab, t.kept, store.inputs[rows], store.targets[rows]))
        readings = Utility().observe(transitions, lab)
        assert [about for about, reading in readings if reading.metric == "test_accuracy"] == transitions
        for metric, expected in (("test_accuracy", tests), ("train_accuracy", trains)):
            assert [reading.value for _, reading in readings if reading.metric == metric] == pytest.approx(expected)
        values = summed(transitions, lab)
        assert values["test_accuracy"].value == pytest.approx(np.mean(tests))
        assert values["train_accuracy"].value == pytest.approx(np.mean(trains))
        assert values["generalisation_gap"].value == pytest.approx(np.mean(trains) - np.mean(tests))
        assert {reading.n for reading in values.values()} == {len(transitions)}
        assert values["generalisation_gap"].value > 0.1, "the models have fitted their own rows"


def test_the_gap_in_loss_is_test_less_training_loss() -> None:
    """Mean cross-entropy in nats, each training row as often as it is trained on; torch says what it is."""
    lab = Lab(federation=federation(copies=3))
    local = trained(lab)
    store, test = lab.federation.store, lab.federation.test

    def loss(model: Params, inputs: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
        logits = torch.from_numpy(lab.logits([model], inputs)[0])
        return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets)))

    for transitions in (local, lab.aggregated(local)):
        gaps, losses = [], []
        for t in transitions:
            clients = range(3) if t.level == "global" else [t.client]
            rows = np.concatenate([lab.rows(t.run, client) for client in clients])
            losses.append(loss(t.kept, test.inputs, test.targets))
            gaps.append(losses[-1] - loss(t.kept, store.inputs[rows], store.targets[rows]))
        on_test = [r.value for _, r in Utility().observe(transitions, lab) if r.metric == "test_loss"]
        assert on_test == pytest.approx(losses, rel=1e-9)
        found = [r.value for _, r in Utility().observe(transitions, lab) if r.metric == "generalisation_loss_gap"]
        assert found == pytest.approx(gaps, rel=1e-9)
        mean = summed(transitions, lab)["generalisation_loss_gap"]
        assert mean.value == pytest.approx(np.mean(gaps))
        assert mean.value > 0.1, "the models have fitted their own rows"
        assert mean.n == len(transitions)


def test_the_gap_in_loss_is_not_bounded() -> None:
    sure = np.where(np.arange(10) == 3, 50.0, 0.0)
    lab = Scripted(table={0: sure, 1: -sure})
    first, second = (summed([decreed(run)], lab)["generalisation_loss_gap"].value for run in (0, 1))
    assert first * second < 0
    assert max(abs(first), abs(second)) > 1, "no share, but nats"


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    local = trained(lab)
    whole = Utility().observe(local, lab)
    monkeypatch.setattr("fedmem.probes._pieces.LOGITS", 7 * 60)
    assert Utility().observe(local, lab) == whole


@dataclass
class Asked(Lab):
    """Remembers the rows that each model was asked about."""

    asked: dict[int, list[bytes]] = field(default_factory=dict)

    def logits(self, models: Any, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        for model in models:
            self.asked.setdefault(id(model), []).append(inputs.tobytes())
        return super().logits(models, inputs)


def test_utility_asks_equal_rows_alone_and_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """On other rows beside it a row may get another last digit, so all runs are asked about the rows of all."""
    monkeypatch.setattr("fedmem.probes._pieces.LOGITS", 400)
    local = Lab().local(runs=(0, 1))
    for transitions in (local, Lab().aggregated(local)):
        together, alone = Asked(), Asked()
        Utility().observe(transitions, together)
        for one in transitions:
            Utility().observe([one], alone)
        assert together.asked == alone.asked
        assert len(alone.asked) == len(transitions)
        assert min(map(len, alone.asked.values())) > 2


def test_copies_weigh_as_often_as_they_are_trained_on() -> None:
    lab = Lab(federation=federation(copies=5))
    (t, *_) = trained(lab)
    rows = lab.rows(t.run, t.client)
    assert len(rows) > len(np.unique(rows))
    store = lab.federation.store
    (reading,) = [r for _, r in Utility().observe([t], lab) if r.metric == "train_accuracy"]
    assert reading.value == pytest.approx(naive(lab, t.kept, store.inputs[rows], store.targets[rows]))


def test_level_sum_is_about_the_clients_listed() -> None:
    lab = Lab()
    local = trained(lab)
    together = replace(local[0], level="sum", client=NO_CLIENT, clients=(0, 2))
    rows = np.concatenate([lab.rows(0, 0), lab.rows(0, 2)])
    store = lab.federation.store
    (reading,) = [r for _, r in Utility().observe([together], lab) if r.metric == "train_accuracy"]
    assert reading.value == pytest.approx(naive(lab, together.kept, store.inputs[rows], store.targets[rows]))


@dataclass
class Scripted(Lab):
    """Logits by decree: each run's model says the same of every row."""

    table: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    def logits(self, models: Any, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        rows = [self.table[int(model["run"])] for model in models]
        return np.stack([np.tile(row, (len(inputs), 1)) for row in rows])


def decreed(run: int, client: int = 0) -> Transition:
    params = {"run": torch.tensor(run)}
    return transition(run, 2, client, params, params, 15)


def test_a_tie_is_not_right() -> None:
    values = {r.metric: r.value for _, r in Utility().observe([decreed(0)], Scripted(table={0: np.zeros(10)}))}
    assert abs(values.pop("generalisation_loss_gap")) < 1e-12, "a constant model fits nothing"
    assert values.pop("test_loss") == pytest.approx(np.log(10))
    assert values == {"test_accuracy": 0.0, "train_accuracy": 0.0, "generalisation_gap": 0.0}


def test_a_model_that_has_diverged_is_neither_right_nor_wrong() -> None:
    """One of four models answers: the mean is its own, and n says that it is one."""
    broken = {1: np.full(10, np.nan), 2: np.where(np.arange(10) == 3, np.nan, 0.0), 3: np.full(10, np.inf)}
    lab = Scripted(table={0: np.eye(10)[0], **broken})
    for run in broken:
        for _, reading in Utility().observe([decreed(run)], lab):
            assert (math.isnan(reading.value), reading.n) == (True, 0), reading.metric
    found = summed([decreed(run) for run in range(4)], lab)
    assert found["test_accuracy"].value == pytest.approx(np.mean(lab.federation.test.targets == 0))
    assert {reading.n for reading in found.values()} == {1}


def test_the_interval_takes_runs_as_clusters() -> None:
    lab = Scripted(table={0: np.eye(10)[0], 1: np.eye(10)[1]})
    share = [float(np.mean(lab.federation.test.targets == label)) for label in (0, 1)]
    assert share[0] != share[1]
    once = [decreed(0), decreed(1)]
    twice = [decreed(run, client) for run in (0, 1) for client in (0, 1)]
    (first, second) = (summed(some, lab)["test_accuracy"] for some in (once, twice))
    half = 12.7062 * abs(share[0] - share[1]) / 2
    ends = (max(0.0, np.mean(share) - half), min(1.0, np.mean(share) + half))
    assert (first.low, first.high) == pytest.approx(ends, abs=1e-4)
    assert (second.low, second.high) == pytest.approx((first.low, first.high)), "clients of a run add no certainty"
    assert (first.n, second.n) == (2, 4)
    alone = summed([decreed(0)], lab)["test_accuracy"]
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


def test_empty_clients_and_empty_test_sets() -> None:
    base = federation()
    audit = replace(base.audit, owner=np.where(base.audit.owner == 2, -1, base.audit.owner).astype(np.int32))
    lab = Lab(federation=replace(base, base=(*base.base[:2], np.empty(0, dtype=np.int64)), audit=audit))
    assert len(lab.rows(0, 2)) == 0
    initial = lab.federation.initial
    models = [transition(0, 2, client, initial, initial, 0) for client in (0, 2)]
    values = summed(models, lab)
    assert (values["test_accuracy"].n, values["train_accuracy"].n, values["generalisation_gap"].n) == (2, 1, 1)
    alone = summed(models[1:], lab)
    assert (alone["train_accuracy"].n, math.isnan(alone["train_accuracy"].value)) == (0, True)

    bare = Lab(federation=replace(base, test=base.test.take(np.arange(0))))
    values = summed(models[:1], bare)
    assert math.isnan(values["test_accuracy"].value)
    assert not math.isnan(values["train_accuracy"].value)


def test_summary_repeats_the_means_of_each_levels_last_round() -> None:
    lab = Lab()
    local = lab.local()
    everywhere = lab.aggregated(local)
    rows = [m for round_number in (2, 3) for m in measured(Utility().observe(local, lab), round_number=round_number)]
    rows += [
        m for round_number in (2, 4) for m in measured(Utility().observe(everywhere, lab), round_number=round_number)
    ]
    found = Utility().summarise(rows, 0)
    assert {(m.run, m.client) for m in found} == {(None, NO_CLIENT)}
    places = [(m.level, m.round) for m in found if m.reading.metric == "generalisation_gap"]
    assert places == [*[("local", 2), ("local", 3), ("global", 2), ("global", 4)], ("local", None), ("global", None)]
    for level, last in (("local", 3), ("global", 4)):
        final, own = (
            [m.reading for m in found if (m.level, m.round) == (level, round_number)] for round_number in (None, last)
        )
        assert final == own
        assert len(final) == 5
    assert Utility().summarise([], 0) == []
