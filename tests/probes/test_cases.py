"""Tests of `fedmem/probes/_cases.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedmem.clients.sgd import Sgd
from fedmem.privacy.secure_aggregation import sums_of
from fedmem.probes.leakage import Leakage
from tests.lab import Lab, federation, gradient_of, transition
from tests.probes.leakage_helpers import QUICK, Answers, Asks, ins, outs


def test_first_step_victims_are_those_of_the_batch() -> None:
    lab = Lab()
    local = lab.local()
    readings = Leakage(attack=QUICK, victims=3).observe(local, lab)
    first = [
        (t.run, int(r.subject), r.labels.get("coin"))
        for t, r in readings
        if r.subject and r.labels.get("view") == "first_step"
    ]
    audit, start = lab.federation.audit, lab.federation.audit_start
    rows = {t.run: np.concatenate([lab.first_step(u)[1] for u in local if u.run == t.run]) for t in local}
    expected = {(run, j) for run in rows for j in range(len(audit)) if start + j in rows[run]}
    assert {(run, j) for run, j, coin in first if coin is None} == expected
    stood_in = {(run, j) for run in rows for j in range(len(audit)) if lab.federation.replacement[run, j] in rows[run]}
    assert {(run, j) for run, j, coin in first if coin == "out"} == stood_in
    assert expected
    assert stood_in


def test_rows_outside_the_batches_of_a_round_are_not_attacked() -> None:
    """Where `steps` end before an epoch does, nobody is a victim of an update that never saw it."""
    lab = Lab(client=Sgd(lr=0.1, steps=1, batch_size=5))
    local = lab.local()
    probe = Leakage(attack=QUICK, victims=3)
    messages, first = (probe._cases(view, local, lab) for view in ("message", "first_step"))
    assert [sorted(case.rows) for case in messages] == [sorted(case.rows) for case in first]
    assert [case.victims.tolist() for case in messages] == [case.victims.tolist() for case in first]
    assert {case.target.num_images for case in messages} == {5}
    (together,) = probe._cases("aggregate", lab.aggregated(lab.local(runs=(0,))), lab)
    assert len(together.rows) == 5 * len(lab.federation.base)
    longer = Lab(client=Sgd(lr=0.1, steps=4, batch_size=5))
    for case in probe._cases("message", longer.local(), longer):
        assert sorted(case.rows) == sorted(longer.rows(case.transition.run, case.transition.client))


def test_weight_decay_is_taken_off() -> None:
    client = Sgd(lr=0.1, steps=1, batch_size=100, weight_decay=0.1)
    lab = Lab(client=client)
    before, rows = lab.federation.initial, lab.rows(0, 1)
    store = lab.federation.store
    exact = gradient_of(lab.federation.model, before, store.inputs[rows], store.targets[rows])
    after = client.step(client.init(before, {}, {}), lambda params: exact)["params"]
    (case,) = Leakage(attack=QUICK)._cases("message", [transition(0, 2, 1, before, after, len(rows))], lab)
    assert all(torch.allclose(case.target.gradient[name].float(), value, atol=2e-6) for name, value in exact.items())


def test_a_learning_rate_that_decays_is_that_of_its_round() -> None:
    client = Sgd(lr=0.1, decay=0.5, steps=1, batch_size=100)
    lab = Lab(client=client)
    before, rows = lab.federation.initial, lab.rows(0, 1)
    store = lab.federation.store
    exact = gradient_of(lab.federation.model, before, store.inputs[rows], store.targets[rows])
    offer = {"round": torch.tensor(3.0)}
    after = client.step(client.init(before, offer, {}), lambda params: exact)["params"]
    (case,) = Leakage(attack=QUICK)._cases("message", [transition(0, 3, 1, before, after, len(rows))], lab)
    assert all(torch.allclose(case.target.gradient[name].float(), value, atol=5e-6) for name, value in exact.items())


def test_a_message_is_scaled_by_its_number_of_steps() -> None:
    lab = Lab()
    local = lab.local(runs=(0,), clients=(1,))
    (case,) = Leakage(attack=QUICK)._cases("message", local, lab)
    steps = lab.client.num_steps(len(lab.rows(0, 1)))
    assert steps > 1
    update = {name: local[0].before[name] - local[0].sent[name] for name in local[0].sent}
    for name, value in update.items():
        assert torch.allclose(case.target.gradient[name].float() * 0.1 * steps, value, atol=1e-6)


@pytest.mark.parametrize("alone", [0, 256])
def test_controls_of_a_large_batch_take_their_places_at_once(alone: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmem.probes._victims.ALONE", alone)
    lab = Lab()
    local = lab.local(runs=(0,), clients=(0,))
    truth = lab.federation.store.inputs[lab.rows(0, 0)]
    found = Leakage(attack=Answers(truth)).observe(local, lab)
    assert {r.value for r in ins(found) if r.metric == "psnr" and r.labels.get("view") == "message"} == {100.0}
    assert max(r.value for r in outs(found) if r.metric == "psnr") < 40
    (case,) = Leakage(attack=QUICK)._cases("message", local, lab)
    assert [int(case.rows[control.places].item()) for control in case.controls.values()] == [
        lab.federation.replacement[0, j] for j in case.controls
    ]
    assert (lab.federation.store.inputs[lab.rows(0, 0)] == truth).all(), "the store is left as it was"


def test_without_replacement_rows_a_row_of_the_owner_is_used() -> None:
    built = federation(copies=2)
    lab = Lab(federation=replace(built, replacement=np.full_like(built.replacement, -1)))
    probe, audit = Leakage(attack=QUICK, victims=3), built.audit
    local = lab.local(runs=(0, 1, 2, 3))
    for case in probe._cases("message", local, lab):
        run, client = case.transition.run, case.transition.client
        assert list(case.controls) == np.flatnonzero((audit.owner == client) & ~audit.is_in[run]).tolist()
        places = np.concatenate([np.empty(0, dtype=int), *(control.places for control in case.controls.values())])
        assert len(set(places)) == len(places) == 2 * len(case.controls), "two copies, two rows, no row twice"
        assert np.isin(case.rows[places], built.base[client]).all()
        for first in probe._cases("first_step", [case.transition], lab):
            for subject, at in first.controls.items():
                places = case.controls[subject].places
                assert set(first.rows[at.places]) <= set(case.rows[places]), "the same rows at every view"
    crowded = replace(
        built, replacement=np.full_like(built.replacement, -1), base=tuple(rows[:3] for rows in built.base)
    )
    lab = Lab(federation=crowded)
    for case in probe._cases("message", lab.local(), lab):
        assert (
            len(case.controls) == 1
            or crowded.audit.is_in[case.transition.run][crowded.audit.owner == case.transition.client].all()
        )


@pytest.mark.parametrize("weighting", ["size", "uniform"])
def test_the_gradient_of_a_sum_is_a_mean_of_those_of_its_clients(weighting: str) -> None:
    """Clients of unlike sizes take unlike numbers of steps; their shares in the gradient add up to 1 all the same."""
    uneven = replace(federation(), base=(np.arange(12), np.arange(12, 14), np.arange(24, 30)))
    lab = Lab(federation=uneven, client=Sgd(lr=0.1, epochs=1, batch_size=2), weighting=weighting)
    local, shy = lab.local(runs=(0,)), Asks((), [])
    probe = Leakage(attack=shy, victims=3, first_step=False, levels=("local", "sum"))
    probe.observe(local, lab)
    probe.observe(sums_of(local, (3,), weighting, lab.seed, uneven.audit), lab)
    *parts, together = shy.shown
    sizes = np.array([len(lab.rows(0, client)) for client in range(3)])
    shares = (sizes if weighting == "size" else np.ones(3)) * [lab.client.num_steps(size) for size in sizes]
    shares = shares / shares.sum()
    assert len(set(sizes.tolist())) == len(parts) == 3
    for name, value in together.gradient.items():
        mean = sum(share * part.gradient[name] for share, part in zip(shares, parts, strict=True))
        assert torch.allclose(value, mean, atol=1e-5)
