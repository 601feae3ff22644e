from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import NO_CLIENT, Level, Measurement, Reading
from fedmem.probes.client_gap import ClientGap, _final
from tests.lab import Lab, federation, measured
from tests.probes.test_utility import Asked, naive, trained


def means(transitions: Sequence[Transition], lab: Lab, round_number: int = 2) -> list[Measurement]:
    """What is summarised of one round."""
    rows = ClientGap().summarise(measured(ClientGap().observe(transitions, lab), round_number=round_number), 0)
    return [row for row in rows if row.round is not None]


def values(transitions: Sequence[Transition], lab: Lab) -> dict[tuple[str, str], Reading]:
    return {(row.reading.metric, row.reading.subject): row.reading for row in means(transitions, lab)}


def loss(lab: Lab, model: Params, inputs: NDArray[np.float32], targets: IntArray) -> float:
    """Mean cross-entropy, row by row."""
    total = []
    for x, y in zip(inputs, targets, strict=True):
        z = lab.logits([model], x[None])[0, 0]
        total.append(math.log(np.exp(z - z.max()).sum()) + z.max() - z[y])
    return float(np.mean(total))


def test_against_a_naive_loop_at_both_levels() -> None:
    lab = Lab()
    local = trained(lab)
    store, test, base = lab.federation.store, lab.federation.test, lab.federation.base
    for transitions in (local, lab.aggregated(local)):
        found = values(transitions, lab)
        single = {(t.run, r.metric, r.subject): r.value for t, r in ClientGap().observe(transitions, lab)}
        everything: dict[str, list[Any]] = {"client_accuracy_gap": [], "client_loss_gap": []}
        for client in range(3):
            own = [t for t in transitions if t.level == "global" or t.client == client]
            rows = store.inputs[base[client]], store.targets[base[client]]
            at_test = test.inputs, test.targets
            accuracy = [naive(lab, t.kept, *rows) - naive(lab, t.kept, *at_test) for t in own]
            losses = [loss(lab, t.kept, *at_test) - loss(lab, t.kept, *rows) for t in own]
            for metric, pair in (("client_accuracy_gap", accuracy), ("client_loss_gap", losses)):
                row = found[metric, f"client {client}"]
                assert row.value == pytest.approx(np.mean(pair))
                assert row.n == 2
                half = 12.7062 * abs(pair[0] - pair[1]) / 2
                assert (row.low, row.high) == pytest.approx((np.mean(pair) - half, np.mean(pair) + half), abs=1e-4)
                assert [single[run, metric, f"client {client}"] for run in (0, 1)] == pytest.approx(pair)
                everything[metric] += pair
        for metric, pairs in everything.items():
            assert found[metric, ""].value == pytest.approx(np.mean(pairs))
            assert found[metric, ""].n == 6
        assert min(row.value for row in found.values()) > 0  # a wrong sign of either would show


def test_client_fits_its_own_rows_better_than_the_aggregate() -> None:
    lab = Lab()
    local = trained(lab)
    here, there = (values(t, lab)["client_loss_gap", ""].value for t in (local, lab.aggregated(local)))
    assert here > there


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    local = lab.local()
    whole = ClientGap().observe(local, lab)
    monkeypatch.setattr("fedmem.probes._pieces.LOGITS", 70)
    for (_, one), (_, other) in zip(whole, ClientGap().observe(local, lab), strict=True):
        assert (one.metric, one.subject, one.n) == (other.metric, other.subject, other.n)
        assert one.value == pytest.approx(other.value, abs=1e-6)


def test_gap_asks_a_model_equal_rows_alone_and_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmem.probes._pieces.LOGITS", 400)
    local = Lab().local()
    for transitions in (local, Lab().aggregated(local)):
        together, alone = Asked(), Asked()
        ClientGap().observe(transitions, together)
        for transition in transitions:
            ClientGap().observe([transition], alone)
        assert together.asked == alone.asked


def test_without_rows_there_is_nothing_to_read() -> None:
    base = federation()
    bare = Lab(federation=replace(base, test=base.test.take(np.arange(0))))
    assert ClientGap().observe(bare.local(), bare) == ()
    assert ClientGap().summarise([], 0) == []
    lab = Lab(federation=replace(base, base=(*base.base[:2], np.empty(0, np.int64))))
    assert {r.subject for _, r in ClientGap().observe(lab.local(clients=(0, 2)), lab)} == {"client 0"}
    assert {subject for _, subject in values(lab.local(clients=(0, 2)), lab)} == {"client 0", ""}
    alone = values(lab.local(runs=(0,), clients=(0,)), lab)["client_loss_gap", ""]
    assert math.isnan(alone.low)


def test_a_diverged_model_is_not_seen() -> None:
    lab = Lab()
    (t, *_) = lab.local()
    broken = replace(t, kept={name: value * math.nan for name, value in t.kept.items()})
    found = {r.metric: r for _, r in ClientGap().observe([broken], lab)}
    for some in (found, {metric: row for (metric, subject), row in values([broken], lab).items() if not subject}):
        for metric in ("client_accuracy_gap", "client_loss_gap"):
            assert (math.isnan(some[metric].value), some[metric].n) == (True, 0)


def test_final_is_the_last_round_of_each_client() -> None:
    """With a single level, whose clients all count."""
    lab = Lab()
    shown = ((2, lab.local()), (4, lab.local(clients=(1,))))
    rows = [
        m for round_number, local in shown for m in measured(ClientGap().observe(local, lab), round_number=round_number)
    ]
    found = ClientGap().summarise(rows, 0)
    assert {(m.run, m.client) for m in found} == {(None, NO_CLIENT)}
    early, late, final = ([m for m in found if m.round == round_number] for round_number in (2, 4, None))
    assert [m.reading for m in final if m.reading.subject == "client 0"] == [
        m.reading for m in early if m.reading.subject == "client 0"
    ]
    assert [m.reading for m in final if m.reading.subject == "client 1"] == [
        m.reading for m in late if m.reading.subject == "client 1"
    ]
    for metric in ("client_accuracy_gap", "client_loss_gap"):
        (mean,) = [m.reading for m in final if (m.reading.metric, m.reading.subject) == (metric, "")]
        own = [m.reading for m in final if m.reading.metric == metric and m.reading.subject]
        assert [r.subject for r in own] == ["client 0", "client 2", "client 1"]
        assert mean.value == pytest.approx(np.mean([r.value for r in own]))
        assert mean.n == 6
        assert (mean.low, mean.high) == pytest.approx(np.mean([(r.low, r.high) for r in own], axis=0))


def reading(value: float, subject: str, metric: str = "client_loss_gap", width: float = 1.0) -> Reading:
    return Reading(metric=metric, value=value, low=value - width, high=value + width, n=4, subject=subject)


def summary(reading: Reading, round_number: int) -> Measurement:
    return Measurement(run=None, round=round_number, level="global", client=-1, source="probe", reading=reading)


def table(rows: Sequence[tuple[int, int, float]], level: Level) -> list[Measurement]:
    """Rows (round, client, value) at a level, with a mean of each round, which must not matter."""
    found = [summary(reading(value, f"client {client}"), r) for r, client, value in rows]
    found += [summary(reading(99.0, ""), r) for r in {r for r, *_ in rows}]
    return [replace(one, level=level) for one in found]


def test_summary_compares_levels_in_equal_rounds_and_clients() -> None:
    local = table([(1, 0, 5.0), (1, 1, 6.0), (2, 0, 7.0), (3, 3, 2.0)], "local")
    # The aggregate is observed for all clients, and later; client 3 is never seen at both levels in one round.
    whole = table([(r, c, 10.0 * r + c) for r in (1, 2, 4) for c in range(4)], "global")
    final = _final([*local, *whole])
    values = {(m.level, m.reading.subject): m.reading.value for m in final}
    assert values == {
        ("local", "client 0"): 7.0,
        ("global", "client 0"): 20.0,
        ("local", "client 1"): 6.0,
        ("global", "client 1"): 11.0,
        ("global", "client 2"): 42.0,  # the last of its level
        ("local", "client 3"): 2.0,
        ("global", "client 3"): 43.0,
        ("local", ""): 6.5,
        ("global", ""): 15.5,
    }
    assert {m.round for m in final} == {None}
    assert {m.reading.n for m in final if not m.reading.subject} == {8}
    late = {client: 40.0 + client for client in (0, 1)}  # what the last round of the aggregate would have given
    assert all(values["global", f"client {client}"] != value for client, value in late.items())


def test_summary_means_skip_clients_unknown_at_one_level() -> None:
    local = table([(1, 0, 5.0), (1, 1, math.nan)], "local")
    whole = table([(1, 0, 3.0), (1, 1, 4.0)], "global")
    means = {m.level: m.reading for m in _final([*local, *whole]) if not m.reading.subject}
    assert {level: (r.value, r.low, r.high) for level, r in means.items()} == {
        "local": (5.0, 4.0, 6.0),
        "global": (3.0, 2.0, 4.0),
    }
    nobody = _final([*table([(1, 0, math.nan)], "local"), *table([(1, 0, 1.0)], "global")])
    for one in nobody:
        if not one.reading.subject:
            assert math.isnan(one.reading.value)
            assert one.reading.n == 0
