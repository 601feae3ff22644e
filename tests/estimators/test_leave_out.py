from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import View
from fedmem.contracts.evidence import Bank, Evidence, TrainedBank
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import Reading
from fedmem.estimation.estimates import estimate
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.views import views
from fedmem.estimators.client_influence import ClientInfluence
from fedmem.estimators.memorisation import Memorisation
from fedmem.execution.bank import simulate
from fedmem.execution.run import measure, run
from fedmem.federation import build as federations
from fedmem.results.read import read, read_bank
from fedmem.scenario.scenario import Scenario
from tests.narrowing import present
from tests.tiny import tiny

LEFT = {"clients": [1, 3]}


@pytest.fixture(scope="module")
def banks() -> tuple[Scenario, Federation, TrainedBank]:
    scenario = tiny(runs=8, leave_out=LEFT, sampler={"kind": "everyone"})
    federation = federations.build(scenario)
    return scenario, federation, simulate(scenario, federation)


def shown(bank: Bank) -> dict[tuple[int | None, str, str], View]:
    return {(v.round, v.level, v.place): v for v in views(bank, permute_coins(bank.audit, 5, np.random.default_rng(0)))}


# Coins


def test_coins_are_balanced_and_only_of_the_clients_listed(banks: tuple[Scenario, Federation, TrainedBank]) -> None:
    _, federation, _ = banks
    there = federation.audit.client_in
    assert present(there)[:, [1, 3]].sum(0).tolist() == [4, 4]
    assert present(there)[:, [0, 2, 4]].all()


@pytest.mark.parametrize(("clients", "listed"), [("all", 5), (2, 2), (0, 0), ([], 0), ([4], 1)])
def test_listed_clients_only_have_a_coin(clients: str | int | list[int], listed: int) -> None:
    there = federations.build(tiny(leave_out={"clients": clients})).audit.client_in
    assert (0 if there is None else int((~there.all(0)).sum())) == listed


def test_coins_of_clients_change_nothing_else() -> None:
    with_, without = (federations.build(tiny(leave_out=leave)) for leave in ({"clients": "all"}, {}))
    np.testing.assert_array_equal(with_.audit.is_in, without.audit.is_in)
    np.testing.assert_array_equal(with_.replacement, without.replacement)
    np.testing.assert_array_equal(with_.store.ids, without.store.ids)


# Training


@pytest.mark.parametrize("server", ["messages", "rule"])
def test_left_out_client_joins_no_round_and_is_not_replaced(server: str) -> None:
    scenario = tiny(runs=4, leave_out={"clients": "all"}, speed={"server": server})
    federation = federations.build(scenario)
    done = simulate(scenario, federation).bank.participation
    everybody = simulate(tiny(runs=4, speed={"server": server}), federations.build(tiny(runs=4))).bank.participation
    there = federation.audit.client_in
    expected = {(p.run, p.round, p.client) for p in everybody if present(there)[p.run, p.client]}
    assert {(p.run, p.round, p.client) for p in done} == expected
    assert len(expected) < len(everybody)


def test_both_paths_agree_when_clients_are_missing() -> None:
    params = []
    for server in ("messages", "rule"):
        scenario = tiny(runs=2, leave_out={"clients": "all"}, speed={"server": server})
        params.append(simulate(scenario, federations.build(scenario)).params)
    for one, other in zip(*params, strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(value.numpy(), other[name].numpy())


def test_left_out_client_has_no_rows(banks: tuple[Scenario, Federation, TrainedBank]) -> None:
    _, federation, _ = banks
    for r, row in enumerate(present(federation.audit.client_in)):
        for client, there in enumerate(row):
            assert (len(federation.rows(r, client, 1)) > 0) == there


def test_leave_out_changes_the_id_only_if_set() -> None:
    assert tiny().id == tiny(leave_out={}).id != tiny(leave_out=LEFT).id


# What is read


def test_examples_are_read_only_where_their_owner_exists(banks: tuple[Scenario, Federation, TrainedBank]) -> None:
    _, federation, done = banks
    holder_in = federation.audit.owner_in
    for (round_number, level, place), view in shown(done.bank).items():
        seen = ~np.isnan(view.margin).all(1)
        assert not (seen & ~holder_in).any()
        if (level, place) != ("local", "owner") or round_number is None:
            assert (seen == holder_in).all() or place == "others"
    owner = shown(done.bank)[None, "local", "owner"]
    np.testing.assert_array_equal(~np.isnan(owner.margin[:, 0]), holder_in)


def test_estimates_count_the_runs_that_they_have(banks: tuple[Scenario, Federation, TrainedBank]) -> None:
    _, federation, done = banks
    rows = estimate(done.bank, [Memorisation()], 20)
    single = {
        int(r.reading.subject): r.reading.n
        for r in rows
        if r.reading.subject.isdigit() and r.level == "global" and not r.reading.labels
    }
    for j, n in single.items():
        assert n == federation.audit.owner_in[:, j].sum()
    assert {4, 8} == set(single.values())


def test_unobserved_owner_is_not_read_locally(
    banks: tuple[Scenario, Federation, TrainedBank],
) -> None:
    _, federation, done = banks
    run_in = int(np.flatnonzero(present(federation.audit.client_in)[:, 1])[0])

    def without(part: Evidence) -> Evidence:
        keep = ~((part.run == run_in) & (part.client == 1))
        return replace(part, **{n: getattr(part, n)[keep] for n in ("run", "client", "loss", "margin", "correct")})

    bank = replace(done.bank, evidence=tuple(without(e) for e in done.bank.evidence), references=())
    view = shown(bank)[None, "local", "owner"]
    held = federation.audit.owner == 1
    assert np.isnan(view.margin[:, :, held]).all()
    assert not np.isnan(view.margin[:, :, federation.audit.owner == 0]).any()


EVERY_ESTIMATOR: list[dict[str, Any]] = [
    {"kind": "memorisation"},
    {"kind": "exposure"},
    {"kind": "exposure_skewnormal"},
    {"kind": "cross_influence"},
    {"kind": "client_influence"},
    {"kind": "membership", "attack": {"kind": "lira"}},
    {"kind": "membership", "attack": {"kind": "rmia"}},
]


def test_leave_out_run_is_measured_again_to_the_last_bit(tmp_path: Path) -> None:
    scenario = tiny(runs=8, leave_out={"clients": "all"}, estimators=EVERY_ESTIMATOR)
    folder = run(scenario, out=tmp_path)
    bank, federation = read_bank(folder), federations.build(scenario)
    np.testing.assert_array_equal(bank.audit.client_in, federation.audit.client_in)
    np.testing.assert_array_equal(bank.targets["test"], federation.test.targets)
    before = read(folder).rows()
    assert repr(read(measure(folder)).rows()) == repr(before)
    assert {row.source for row in before} == {estimator["kind"] for estimator in EVERY_ESTIMATOR}
    keys = [(r.run, r.round, r.level, r.source, r.reading.metric, r.reading.subject, r.reading.labels) for r in before]
    assert len(set(keys)) == len(keys)


def test_probes_run_with_clients_left_out(tmp_path: Path) -> None:
    probes = [
        {"kind": "utility"},
        {"kind": "client_gap"},
        {"kind": "leakage", "attack": {"kind": "inverting_gradients", "steps": 2}},
    ]
    rows = read(run(tiny(leave_out={"clients": "all"}, probes=probes, runs=2), out=tmp_path)).rows()
    assert {row.source for row in rows} == {"utility", "client_gap", "leakage"}


# Client influence


def _read_at(reading: Reading) -> str | None:
    """What an influence is read at; of one class its number."""
    target = reading.labels.get("target")
    return reading.labels.text("statistic") if target is None else f"class={target}"


def influences(view: View) -> dict[tuple[str, str | None], Reading]:
    return {(r.subject, _read_at(r)): r for _, r in ClientInfluence().tests(view)}


def test_client_influence_is_the_difference_of_the_means(banks: tuple[Scenario, Federation, TrainedBank]) -> None:
    _, federation, done = banks
    audit, there = federation.audit, federation.audit.client_in
    found = influences(shown(done.bank)[None, "global", ""])
    last = {e.set: e for e in done.bank.evidence if (e.level, e.round) == ("global", 4)}
    test, own = last["test"], last["audit"]
    order, labels = np.argsort(test.run), federation.test.targets
    correct, loss = test.correct[order].astype(float), test.loss[order]
    audited = own.correct[np.argsort(own.run)].astype(float)
    for client in (1, 3):
        coin, held = present(there)[:, client], audit.owner == client

        def gap(values: FloatArray, coin: BoolArray = coin) -> float:
            return float(
                np.mean([v for v, c in zip(values, coin, strict=True) if c])
                - np.mean([v for v, c in zip(values, coin, strict=True) if not c])
            )

        expected = {
            "accuracy": gap(correct.mean(1)),
            "loss": gap(loss.mean(1)),
            "own": gap(audited[:, held].mean(1)),
            "own_in": gap(np.array([audited[r, held & audit.is_in[r]].mean() for r in range(8)])),
            **{f"class={c}": gap(correct[:, labels == c].mean(1)) for c in np.unique(labels)},
        }
        for read_at, value in expected.items():
            row = found[f"client {client}", read_at]
            assert row.value == pytest.approx(value)
            assert row.n == 8
            # where all runs agree there is no spread to take an interval from
            assert row.low <= row.value <= row.high or (row.value == 0 and np.isnan([row.low, row.high]).all())
    assert {subject for subject, _ in found} == {"client 1", "client 3", ""}
    mean = found["", "loss"]
    assert mean.value == pytest.approx(np.mean([found[f"client {k}", "loss"].value for k in (1, 3)]))
    assert (mean.n, mean.low <= mean.value <= mean.high) == (2, True)
    assert found["client 1", "loss"].value != pytest.approx(-found["client 1", "loss"].value)


def test_client_influence_needs_no_audit_example(tmp_path: Path) -> None:
    scenario = tiny(leave_out=LEFT, injections=[], estimators=[{"kind": "client_influence"}])
    bank = read_bank(run(scenario, out=tmp_path))
    rows = estimate(bank, [ClientInfluence()], 20)
    assert {(r.round, r.level, r.source) for r in rows} == {(None, "global", "client_influence")}
    assert {"accuracy", "loss"} <= {r.reading.labels.get("statistic") for r in rows}
    assert not any(r.reading.labels.text("statistic").startswith("own") for r in rows)


def test_without_coins_of_clients_there_is_nothing_to_say(banks: tuple[Scenario, Federation, TrainedBank]) -> None:
    _, _, done = banks
    bank = replace(done.bank, audit=replace(done.bank.audit, client_in=None))
    assert all(ClientInfluence().tests(view) == () for view in shown(bank).values())
    everywhere = [view for key, view in shown(done.bank).items() if key != (None, "global", "")]
    assert all(ClientInfluence().tests(view) == () for view in everywhere)
