"""Tests of `fedmem/probes/leave_one_out.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from fedmem.contracts.arrays import Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import NO_CLIENT, Labels, Measurement, Reading
from fedmem.contracts.probe import probe_declaration
from fedmem.errors import ComponentError, ScenarioError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.observation import aggregates
from fedmem.probes import leave_one_out
from fedmem.probes.leave_one_out import LeaveOneOut
from fedmem.scenario.scenario import Scenario
from fedmem.training import replayed_work
from tests.observation.replay_helpers import looked_at
from tests.tiny import tiny

LR = 0.4
STEP = {"kind": "sgd", "lr": LR, "steps": 1, "batch_size": 500}
TYPICAL = {"kind": "typical", "per_client": 3}

Found = list[tuple[Transition, Reading]]


def whole_step(**changes: Any) -> Scenario:
    """Logistic regression with one step on all rows of a client, whose leave-one-out has a closed form."""
    settings: dict[str, Any] = {
        "runs": 2, "rounds": 1, "clients": 4, "population": 0, "model": {"kind": "logistic"}, "client": STEP,
        "injections": [TYPICAL], "exclusion": "remove", "observe": {"every": 1, "levels": ["local", "global"]},
        "partition": {"kind": "quantity_skew", "alpha": 1.0},
    }  # fmt: skip
    return tiny(**{**settings, **changes})


def gradient(context: Any, params: Params, row: int) -> Params:
    """The gradient of the loss on a row of the store, in float64."""
    leaves = {name: value.double().requires_grad_() for name, value in params.items()}
    store = context.federation.store
    outputs = functional_call(context.federation.model, leaves, (torch.from_numpy(store.inputs[[row]]).double(),))
    loss = functional.cross_entropy(outputs, torch.from_numpy(store.targets[[row]]))
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def loss_of(context: Any, params: Params, subject: int) -> float:
    examples = context.federation.audit.examples
    inputs = torch.from_numpy(examples.inputs[[subject]]).double()
    outputs = functional_call(context.federation.model, {n: v.double() for n, v in params.items()}, (inputs,))
    return float(functional.cross_entropy(outputs, torch.from_numpy(examples.targets[[subject]])))


def rows_of(context: Any, subject: int) -> list[int]:
    federation = context.federation
    return federation.trained_rows[federation.audit.subject == subject].tolist()  # type: ignore[no-any-return]


def readings(probe: LeaveOneOut, transition: Transition, context: Any, metric: str) -> dict[int, float]:
    found = probe.observe([transition], context)
    assert all(about is transition for about, _ in found)
    return {int(r.subject): r.value for _, r in found if r.metric == metric}


def closed_form(probe: LeaveOneOut, level: str, seen: list[int], **changes: Any) -> None:
    """Compare all readings of a level with the closed form: the real step plus η/n times the gradients left out."""

    def look(transition: Transition, context: Any) -> None:
        if transition.round == 0:
            return
        senders = [transition] if level == "local" else context.senders(transition)
        found = {
            metric: readings(probe, transition, context, metric)
            for metric in ("participation_loss", "participation_probability", "participation_accuracy")
        }
        audit, expected = context.federation.audit, 0
        for sender in senders:
            weight = 1.0 if level == "local" else sender.num_examples / sum(s.num_examples for s in senders)
            for subject in np.flatnonzero((audit.owner == sender.client) & audit.is_in[sender.run]).tolist():
                without = {name: value.double() for name, value in transition.kept.items()}
                for row in rows_of(context, subject):
                    step = gradient(context, sender.before, row)
                    without = {n: v + weight * LR / sender.num_examples * step[n] for n, v in without.items()}
                real, other = (loss_of(context, params, subject) for params in (transition.kept, without))
                assert found["participation_loss"][subject] == pytest.approx(other - real, abs=3e-6)
                assert found["participation_probability"][subject] == pytest.approx(
                    np.exp(-real) - np.exp(-other), abs=3e-6
                )
                assert found["participation_loss"][subject] > 0, "a step on an example lowers its own loss"
                assert found["participation_accuracy"][subject] in (-1, 0, 1)
                expected += 1
        assert len(found["participation_loss"]) == expected, "examples that are out have no reading"
        seen.append(expected)

    looked_at(whole_step(**changes), look, level)
    assert sum(seen) > 5


@pytest.mark.parametrize("level", ["local", "global"])
def test_one_step_of_logistic_regression_has_a_closed_form(level: str) -> None:
    closed_form(LeaveOneOut(), level, [])


@pytest.mark.parametrize("executor", ["stacked", "one_by_one"])
def test_all_copies_are_left_out_together(executor: str) -> None:
    closed_form(LeaveOneOut(), "local", [], injections=[{**TYPICAL, "copies": 3}], speed={"executor": executor})


def _sign(monkeypatch: pytest.MonkeyPatch) -> None:
    effects = leave_one_out._effects
    monkeypatch.setattr(leave_one_out, "_effects", lambda *arguments: -effects(*arguments))


def _mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayed_work, "_with_change", lambda rows, change, left_out: rows)


def _renormalised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayed_work, "LEFT_OUT", -1)


def _server(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = vars(aggregates)["Round"]
    monkeypatch.setattr(aggregates, "Round", lambda weights, **others: real(weights=torch.ones_like(weights), **others))


@pytest.mark.parametrize("broken", [_sign, _mask, _renormalised, _server])
def test_closed_form_notices_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    broken(monkeypatch)
    with pytest.raises(Exception, match="gives another" if broken is _server else "participation_loss|AssertionError"):
        closed_form(LeaveOneOut(), "global", [])
    if broken is _server:
        # without the comparison with the real aggregate, the closed form fails by itself
        monkeypatch.setattr(aggregates.Aggregates, "_require_equal", lambda *arguments: None)
        with pytest.raises(Exception, match="AssertionError"):
            closed_form(LeaveOneOut(), "global", [])


@pytest.mark.parametrize("level", ["local", "global"])
def test_at_small_learning_rates_it_is_tracin(level: str) -> None:
    """The effect over η tends to |∇ℓ|² / n at the model before, times the weight of the client at level global."""
    rate, effects, products = 2e-4, list[float](), list[float]()

    def look(transition: Transition, context: Any) -> None:
        senders = [transition] if level == "local" else context.senders(transition) if transition.round else []
        total = sum(sender.num_examples for sender in senders)
        found = readings(LeaveOneOut(), transition, context, "participation_loss") if transition.round else {}
        owner = context.federation.audit.owner
        for sender in senders:
            for subject, value in found.items():
                if owner[subject] == sender.client:
                    (row,) = rows_of(context, subject)
                    square = sum(float(g.square().sum()) for g in gradient(context, sender.before, row).values())
                    batches, _ = context.batches_and_payload(sender)
                    visits = ((batches == row).sum(axis=1) / (batches >= 0).sum(axis=1)).sum()
                    effects.append(value)
                    products.append(rate * square * visits * sender.num_examples / total)

    injections = [TYPICAL, {"kind": "mislabelled", "per_client": 4}]
    client = {"kind": "sgd", "lr": rate, "epochs": 1, "batch_size": 8}
    changes = {"injections": injections, "exclusion": "replace", "runs": 4, "sampler": {"kind": "everyone"}}
    looked_at(whole_step(client=client, **changes), look, level)
    assert len(effects) >= 50
    assert np.corrcoef(effects, products)[0, 1] > 0.999
    assert np.array(effects) == pytest.approx(products, rel=0.03)


def test_alone_in_its_federation_local_equals_global() -> None:
    scenario = whole_step(
        clients=1, partition={"kind": "iid"}, sampler={"kind": "everyone"}, probes=[{"kind": "leave_one_out"}]
    )
    bank = simulate(scenario, build(scenario))
    values: dict[str, list[tuple[Any, ...]]] = {
        level: [
            (m.run, m.reading.metric, m.reading.subject, m.reading.value) for m in bank.measurements if m.level == level
        ]
        for level in ("local", "global")
    }
    assert values["local"] == values["global"]
    assert values["local"]


def test_examples_outside_all_batches_have_no_reading() -> None:
    counts: list[tuple[int, int]] = []

    def look(transition: Transition, context: Any) -> None:
        found = readings(LeaveOneOut(), transition, context, "participation_loss")
        used = context.used_rows(transition.run, transition.client, transition.round)
        audit = context.federation.audit
        held = np.flatnonzero((audit.owner == transition.client) & audit.is_in[transition.run]).tolist()
        assert set(found) == {subject for subject in held if np.isin(rows_of(context, subject), used).any()}
        counts.append((len(found), len(held)))

    client = {"kind": "sgd", "lr": 0.1, "steps": 2, "batch_size": 20}
    looked_at(whole_step(client=client, injections=[{**TYPICAL, "per_client": 8}]), look)
    assert 0 < sum(found for found, _ in counts) < sum(held for _, held in counts)


def test_a_row_that_nobody_trains_on_has_an_effect_of_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same way, for a row of the client that is in none of its batches."""

    def look(transition: Transition, context: Any) -> None:
        rows = context.rows(transition.run, transition.client, transition.round)
        used = context.used_rows(transition.run, transition.client, transition.round)
        unused = int(np.setdiff1d(rows, used)[0])
        monkeypatch.setattr(leave_one_out, "trained_rows", lambda *place: {0: [unused]})
        monkeypatch.setattr(context, "used_rows", lambda *place: np.array([unused]))
        found = LeaveOneOut().observe([transition], context)
        monkeypatch.undo()
        assert [reading.value for _, reading in found] == [0.0, 0.0, 0.0]

    looked_at(whole_step(client={"kind": "sgd", "lr": 0.1, "steps": 2, "batch_size": 5}), look)


def test_replacement_trains_on_a_row_that_stands_in_elsewhere() -> None:
    """Closed form: the gradient of the replacement row comes in the place of that of the example."""
    probe, seen = LeaveOneOut(instead="replacement"), list[int]()

    def look(transition: Transition, context: Any) -> None:
        federation, run = context.federation, transition.run
        audit = federation.audit
        rows = set(context.rows(run, transition.client, transition.round).tolist())
        found = probe.observe([transition], context)
        assert {reading.labels.get("instead") for _, reading in found} <= {"replacement"}
        for subject, value in readings(probe, transition, context, "participation_loss").items():
            (copy,) = np.flatnonzero(audit.subject == subject)
            others = [int(row) for row in federation.replacement[:, copy] if row >= 0 and int(row) not in rows]
            (row,) = rows_of(context, subject)
            expected = []
            for other in set(others):
                own, instead = (gradient(context, transition.before, one) for one in (row, other))
                factor = LR / transition.num_examples
                model = {n: v.double() + factor * (own[n] - instead[n]) for n, v in transition.kept.items()}
                expected.append(loss_of(context, model, subject) - loss_of(context, transition.kept, subject))
            assert min(abs(value - one) for one in expected) < 3e-6
            seen.append(subject)

    looked_at(whole_step(exclusion="replace", runs=4), look)
    assert len(seen) > 5


def test_without_replacement_rows_there_is_no_reading() -> None:
    def look(transition: Transition, context: Any) -> None:
        assert not LeaveOneOut(instead="replacement").observe([transition], context)

    looked_at(whole_step(), look)


def test_few_examples_of_a_client_are_drawn_alike_at_both_levels() -> None:
    probe = {"kind": "leave_one_out", "max_examples": 2}
    scenario = whole_step(probes=[probe], injections=[{**TYPICAL, "per_client": 8}], rounds=3)
    bank = simulate(scenario, build(scenario))
    chosen: dict[tuple[Any, ...], set[str]] = {}
    for one in bank.measurements:
        if one.run is not None:
            place = one.level, one.run, one.round, one.reading.labels.get("owner")
            chosen.setdefault(place, set()).add(one.reading.subject)
    assert {len(subjects) for subjects in chosen.values()} <= {1, 2}
    for key, subjects in chosen.items():
        assert chosen[("global" if key[0] == "local" else "local", *key[1:])] == subjects
    by_round = {place[2]: subjects for place, subjects in chosen.items() if place[:2] == ("local", 0)}
    assert len({tuple(sorted(subjects)) for subjects in by_round.values()}) > 1, "each round draws its own"


def test_owners_read_the_aggregate_with_their_own_layers() -> None:
    def look(transition: Transition, context: Any) -> None:
        if transition.round == 0:
            return
        senders = {sender.client: sender for sender in context.senders(transition)}
        found = readings(LeaveOneOut(), transition, context, "participation_loss")
        assert bool(found) <= (transition.client in senders)
        total = sum(sender.num_examples for sender in senders.values())
        personal = context.federation.personal_names(context.client)
        assert personal
        for subject, value in found.items():
            sender = senders[transition.client]
            outcome = context.replay(sender, without=rows_of(context, subject))
            model = {
                name: outcome.kept[name]
                if name in personal
                else kept.double() + sender.num_examples / total * (outcome.sent[name] - sender.sent[name])
                for name, kept in transition.kept.items()
            }
            expected = loss_of(context, model, subject) - loss_of(context, transition.kept, subject)
            assert value == pytest.approx(expected, abs=3e-6)

    scenario = whole_step(model={"kind": "mlp", "hidden": [6]}, client={"kind": "fedper", "lr": 0.2})
    looked_at(scenario, look, "global")


@pytest.mark.parametrize(
    "changes",
    [
        {"central": "shuffled", "sampler": {"kind": "everyone"}, "client": {"kind": "sgd"}},
        {"client": {"kind": "dp_sgd", "steps": 2}},
        {"client": {"kind": "sgd", "deduplicate": "exact"}, "injections": [{**TYPICAL, "copies": 2}]},
        {"defences": [{"kind": "clip", "norm": 0.5}, {"kind": "noise", "multiplier": 0.1, "norm": 0.5}]},
        {"strategy": {"kind": "dp_fedavg", "expected_cohort_size": 3}, "speed": {"server": "messages"}},
        {"leave_out": {"clients": "all"}, "runs": 4},
    ],
    ids=["central", "private", "deduplicated", "defended", "noisy server", "clients left out"],
)
def test_every_example_that_is_in_is_read_once_at_each_level(changes: dict[str, Any]) -> None:
    probe = {"kind": "leave_one_out", "levels": ["local", "global"]}
    scenario = whole_step(probes=[probe], **changes)
    federation = build(scenario)
    bank = simulate(scenario, federation)
    for level in ("local", "global"):
        own = [one for one in bank.measurements if one.run is not None and one.level == level]
        places = [(one.run, one.round, one.reading.subject, one.reading.metric) for one in own]
        assert len(places) == len(set(places)) > 0
        assert all(federation.audit.is_in[one.run, int(one.reading.subject)] for one in own)
        assert all(np.isfinite(one.reading.value) for one in own)


def test_sums_and_rounds_that_are_not_asked_for_have_no_reading() -> None:
    probe = {"kind": "leave_one_out", "rounds": [2], "levels": ["local", "sum"]}
    observe = {"every": 1, "levels": ["local", "sum"], "sums": [2]}
    scenario = whole_step(probes=[probe], observe=observe, rounds=3)
    rows = [one for one in simulate(scenario, build(scenario)).measurements if one.run is not None]
    assert {(one.round, one.level) for one in rows} == {(2, "local")}


def test_means_are_over_participations_by_kind() -> None:
    def row(run: int, round_number: int, value: float, kind: str = "typical") -> Measurement:
        labels = Labels.of(owner=run, kind=kind)
        reading = Reading(metric="participation_loss", value=value, n=1, subject="0", labels=labels)
        return Measurement(
            run=run, round=round_number, level="local", client=run, source="leave_one_out", reading=reading
        )

    rows = [row(0, 1, 1.0), row(0, 1, 2.0), row(1, 1, 3.0), row(1, 2, 6.0), row(0, 2, float("nan")), row(0, 2, 9, "x")]
    found = {(m.round, m.reading.subject): m for m in LeaveOneOut().summarise(rows, 0)}
    assert {key: (m.reading.value, m.reading.n) for key, m in found.items()} == {
        (1, "typical"): (2.0, 3),
        (2, "typical"): (6.0, 1),
        (2, "x"): (9.0, 1),
        (None, "typical"): (3.0, 4),
        (None, "x"): (9.0, 1),
    }
    assert all((m.run, m.client) == (None, NO_CLIENT) for m in found.values())
    assert found[1, "typical"].reading.low < 2.0 < found[1, "typical"].reading.high
    assert not LeaveOneOut().summarise([], 0)


def test_strategies_with_a_state_are_refused_at_level_global() -> None:
    changes = {"strategy": {"kind": "fedavgm"}, "runs": 2, "observe": {}}
    with pytest.raises(ScenarioError, match=r"probes\[0\].levels: leave_one_out recomputes .* levels: \[local\]"):
        tiny(**changes, probes=[{"kind": "leave_one_out"}])
    tiny(**changes, probes=[{"kind": "leave_one_out", "levels": ["local"]}])  # is not refused
    assert not probe_declaration(LeaveOneOut(levels=("local",))).recomputes_aggregates

    def look(transition: Transition, context: Any) -> None:
        if transition.round:
            with pytest.raises(ComponentError, match="fedavgm carries a state of the server"):
                context.aggregates(transition, [{}])

    looked_at(tiny(**changes, rounds=1), look, "global")
