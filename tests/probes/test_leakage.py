from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.clients.fedper import FedPer
from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import EVERYWHERE, FINAL, Labels, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.errors import ComponentError, RunError
from fedmem.estimation.statistics import clopper_pearson
from fedmem.execution.run import measure, run
from fedmem.federation.build import build
from fedmem.modalities.numbers import psnr, squared_errors
from fedmem.modalities.pairing import assign
from fedmem.modalities.tables import Tables
from fedmem.privacy.secure_aggregation import sums_of
from fedmem.probes._cases import Case
from fedmem.probes._clusters import difference_interval, mean_interval
from fedmem.probes._galleries import Gallery
from fedmem.probes._victims import score
from fedmem.probes.leakage import Leakage
from fedmem.reporting.sections import sections
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.lab import Lab, digits, federation, gradient_of, transition
from tests.labelling import labels
from tests.narrowing import present
from tests.tiny import tiny

QUICK = InvertingGradients(steps=40)

SOURCES = ("leakage", "leakage_2")

METRICS = {"identified", "margin", "beats_prior", "psnr", "ssim", "mse"}


@dataclass(frozen=True)
class Answers:
    """An attack that returns the images it was made with, for every target."""

    images: NDArray[np.float32]
    knows: tuple[str, ...] = ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        labels = np.zeros(len(self.images), dtype=np.int64)
        return [Reconstruction(inputs=self.images, labels=labels, distance=0.0) for _ in targets]


@dataclass(frozen=True)
class Noise:
    """An attack that does not look."""

    knows: tuple[str, ...] = ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        return [
            Reconstruction(
                inputs=rng.random((target.num_images, *target.input_shape), dtype=np.float32),
                labels=np.arange(target.num_images) % target.num_classes,
                distance=1.0,
            )
            for target, rng in zip(targets, rngs, strict=True)
        ]


def clustered(population: int = 40) -> Federation:
    """The lab's federation, in which every example stands beside three near copies of itself."""
    built = federation(population=population, copies=4)
    near = np.setdiff1d(np.arange(len(built.trained_rows)), np.arange(0, len(built.trained_rows), 4))
    originals = built.store.take(built.trained_rows[near])
    extra = replace(originals, inputs=near_copies(originals.inputs, np.random.default_rng(0)))
    trained = built.trained_rows.copy()
    trained[near] = len(built.store) + np.arange(len(near))
    return replace(built, store=Examples.concatenate([built.store, extra]), trained_rows=trained)


def near_copies(inputs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    return np.clip(inputs + 0.05 * rng.standard_normal(inputs.shape), 0, 1).astype(np.float32)


def ins(readings: Sequence[tuple[Any, Reading]]) -> list[Reading]:
    return [reading for _, reading in readings if reading.subject and "coin" not in reading.labels]


def _among(reading: Reading) -> tuple[int, int, str]:
    """The size of the gallery, the peers in it, and the kind."""
    gallery, peers, kind = (reading.labels.get(name) for name in ("gallery", "peers", "kind"))
    return gallery, peers, kind


def outs(readings: Sequence[tuple[Any, Reading]]) -> list[Reading]:
    return [reading for _, reading in readings if reading.labels.get("coin") == "out"]


def test_readings_name_view_kind_and_knowledge() -> None:
    lab = Lab()
    readings = Leakage(attack=QUICK).observe(lab.local(), lab)
    victims = [(about, reading) for about, reading in readings if reading.subject]
    assert {reading.metric for _, reading in victims} == METRICS
    first = [reading.metric for _, reading in readings][:2]
    assert first == ["identified", "margin"], "the telling ones come first"
    assert {reading.labels.get("view") for _, reading in victims} == {"message", "first_step"}
    audit = lab.federation.audit
    for about, reading in victims:
        assert about is not None
        subject = int(reading.subject)
        assert audit.is_in[about.run, subject] != (reading.labels.get("coin") == "out"), "an out example is a control"
        assert audit.owner[subject] == about.client
        among = reading.metric == "identified"
        assert ("gallery" in reading.labels) == ("peers" in reading.labels) == among
        assert reading.labels.has(labels(owner=about.client, kind=str(audit.kind[subject])))
        assert reading.labels.get("knows").startswith("lr+")
    gallery = {_among(r) for _, r in victims if r.metric == "identified"}
    # 40 of the population, 60 of the test set and the 24 base rows of the two other clients
    assert gallery == {(124, 124, "typical"), (50, 50, "noise")}


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


def test_the_first_step_gradient_is_exact_and_the_message_of_one_step_equals_it() -> None:
    """With one step of all rows the three views are the same gradient."""
    lab = Lab(client=Sgd(lr=0.1, steps=1, batch_size=100))
    local = lab.local(runs=(0,), clients=(1,))
    probe = Leakage(attack=QUICK)
    (message,) = probe._cases("message", local, lab)
    (first,) = probe._cases("first_step", local, lab)
    (aggregate,) = probe._cases("aggregate", lab.aggregated(local), lab)
    store, rows = lab.federation.store, lab.rows(0, 1)
    exact = gradient_of(lab.federation.model, local[0].before, store.inputs[rows], store.targets[rows])
    for case in (message, first, aggregate):
        assert sorted(case.rows) == sorted(rows)
        for name, value in exact.items():
            assert torch.allclose(case.target.gradient[name].float(), value, atol=2e-6)


def test_rows_that_no_batch_of_the_round_held_are_no_part_of_the_message() -> None:
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


def test_the_message_of_a_single_small_batch_is_its_first_step_in_a_whole_run(tmp_path: Path) -> None:
    probe = {
        "kind": "leakage",
        "attack": {"kind": "inverting_gradients", "steps": 5},
        "victims": 3,
        "levels": ["local"],
    }
    client = {"kind": "sgd", "lr": 0.2, "steps": 1, "batch_size": 6}
    frame = read(run(tiny(client=client, probes=[probe]), out=tmp_path)).measurements
    seen = frame[(frame.metric == "label_accuracy") & (frame.scope == "summary")].set_index("view").value
    message, first = (seen[seen.index == view] for view in ("message", "first_step"))
    assert len(message) == len(first) == 1
    assert message.iloc[0] == first.iloc[0]


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


def test_aggregate_and_message_are_scored_on_the_same_victims() -> None:
    lab = Lab()
    probe = Leakage(attack=QUICK, victims=2)
    local = lab.local()
    of_message = {(t.run, r.subject) for t, r in probe.observe(local, lab) if r.labels.get("view") == "message"}
    of_aggregate = {(t.run, r.subject) for t, r in probe.observe(lab.aggregated(local), lab)}
    assert of_message == of_aggregate
    owners = {run: {int(lab.federation.audit.owner[int(s)]) for r, s in of_message if r == run and s} for run in (0, 1)}
    assert all(len(clients) == 2 for clients in owners.values())


def test_declared_rounds_runs_and_caps() -> None:
    lab = Lab(observed_rounds=(0, 2, 3, 4))
    probe = Leakage(attack=QUICK, victims=3)
    assert probe._attacked_rounds(lab) == (2, 4)
    assert Leakage(attack=QUICK, every=3)._attacked_rounds(lab) == (3, 4)
    assert Leakage(attack=QUICK, rounds=(3,))._attacked_rounds(lab) == (3,)
    assert Leakage(attack=QUICK)._attacked_rounds(Lab(observed_rounds=(0,))) == ()
    assert probe.observe(lab.local(round_number=3), lab) == []
    readings = Leakage(attack=QUICK, runs=1, max_images=4).observe(lab.local(), lab)
    assert {t.run for t, _ in readings} == {0}
    coverage = {r.value for _, r in readings if r.metric == "coverage" and r.labels.get("view") == "message"}
    assert coverage == {4 / 15}


def test_round_zero_and_an_empty_cohort_have_nothing_to_attack() -> None:
    lab = Lab()
    initial = lab.federation.initial
    start = replace(transition(0, 0, EVERYWHERE, initial, initial, 0), level="global")
    assert Leakage(attack=QUICK).observe([start], lab) == []
    assert Leakage(attack=QUICK).observe([replace(start, round=2)], lab) == []


def test_a_perfect_attack_is_capped_identified_and_above_every_prior() -> None:
    lab = Lab()
    local = lab.local(runs=(0,), clients=(0,))
    truth = lab.federation.store.inputs[lab.rows(0, 0)][::-1].copy()
    found = Leakage(attack=Answers(truth)).observe(local, lab)
    readings = [r for r in ins(found) if r.labels.get("view") == "message"]
    assert {r.value for r in readings if r.metric == "psnr"} == {100.0}
    assert {r.value for r in readings if r.metric == "identified"} == {1.0}
    assert all(r.value > 50 for r in readings if r.metric == "margin")
    others = [r for r in outs(found) if r.labels.get("view") == "message"]
    assert max(r.value for r in others if r.metric == "psnr") < 40
    assert max(r.value for r in others if r.metric == "identified") == 0.0


def test_an_attack_that_offers_a_prior_has_no_margin_over_it() -> None:
    lab = Lab()
    local = lab.local(runs=(0,))
    grey = np.full((1, 1, 8, 8), 0.5, dtype=np.float32)
    margins = [r for _, r in Leakage(attack=Answers(grey)).observe(local, lab) if r.metric == "margin"]
    assert max(r.value for r in margins) <= 0
    # the canaries are fair coins: grey is as good as their family's mean, up to that mean's own noise
    assert all(r.value == pytest.approx(0, abs=0.2) for r in margins if r.labels.get("kind") == "noise")


def test_many_real_images_are_a_prior_and_not_a_success() -> None:
    """Whoever offers many digits matches some by chance; the population, paired in the same way, cancels that."""
    lab = Lab()
    local, size = lab.local(runs=(0, 1)), len(lab.rows(0, 0))
    others = digits().take(np.arange(900, 900 + size)).inputs
    readings = [r for _, r in Leakage(attack=Answers(others)).observe(local, lab) if r.subject]
    margins = [r.value for r in readings if r.metric == "margin"]
    assert np.mean(margins) < 0
    # by symmetry the population alone would be beaten half of the time
    assert np.mean(np.array(margins) > 0) < 0.5


def test_the_population_itself_has_no_margin_over_the_population() -> None:
    size = len(Lab().rows(0, 0))
    lab = Lab(federation=federation(population=size))
    attack = Answers(lab.federation.population.inputs[::-1].copy())
    readings = [r for _, r in Leakage(attack=attack).observe(lab.local(), lab) if r.labels.get("view") == "message"]
    margins = [r.value for r in readings if r.metric == "margin"]
    assert max(margins) == 0.0, "the same images, paired in the same way, are as near"


def test_copies_count_with_the_best() -> None:
    lab = Lab(federation=federation(copies=2))
    local = lab.local(runs=(0,), clients=(0,))
    rows, start = lab.rows(0, 0), lab.federation.audit_start
    images = lab.federation.store.inputs[rows].copy()
    twice = np.flatnonzero(rows == start)
    assert len(twice) == 2
    images[twice[0]] = 0.0
    readings = Leakage(attack=Answers(images)).observe(local, lab)
    values = [
        r.value for _, r in readings if r.subject == "0" and r.metric == "psnr" and r.labels.get("view") == "message"
    ]
    assert values == [100.0]


def test_no_population_means_fewer_priors_and_a_smaller_gallery() -> None:
    lab = Lab(federation=federation(population=0))
    readings = Leakage(attack=QUICK).observe(lab.local(), lab)
    identified = [r for _, r in readings if r.metric == "identified"]
    assert {_among(r) for r in identified} == {
        (84, 84, "typical"),
        (50, 50, "noise"),
    }
    bare = replace(lab.federation, test=lab.federation.test.take(np.arange(0)))
    together = Leakage(attack=QUICK).observe(lab.aggregated(lab.local()), Lab(federation=bare))
    kinds = {r.labels.get("kind") for _, r in together if r.metric == "identified"}
    assert kinds == {"noise"}, "all clients are attacked, so that no real image is left"
    assert all(math.isfinite(r.value) for _, r in readings if r.metric == "margin")


def test_the_sheet_is_kept_and_bounded() -> None:
    lab = Lab()
    local = lab.local(runs=(0, 1))
    Leakage(attack=QUICK).observe(local, lab)
    prefix = "round_2/local/message/run_1"
    kinds = lab.kept[f"{prefix}/kind"].tolist()
    assert max(kinds.count(kind) for kind in kinds) <= 4
    for key in ("original", "reconstruction", "prior"):
        assert lab.kept[f"{prefix}/{key}"].shape == (len(kinds), 1, 8, 8)
    assert lab.kept[f"{prefix}/labels"].dtype.kind == "U"
    own = squared_errors(lab.kept[f"{prefix}/reconstruction"], lab.kept[f"{prefix}/original"]).diagonal()
    assert psnr(own) == pytest.approx(lab.kept[f"{prefix}/psnr"])
    prior = squared_errors(lab.kept[f"{prefix}/prior"], lab.kept[f"{prefix}/original"]).diagonal()
    assert psnr(prior) == pytest.approx(lab.kept[f"{prefix}/prior_psnr"])


def test_observing_changes_nothing_and_repeats_itself() -> None:
    lab = Lab()
    local = lab.local()
    before = copy.deepcopy([t.sent for t in local])
    first = Leakage(attack=QUICK).observe(local, lab)
    second = Leakage(attack=QUICK).observe(local, lab)
    # by their text, in which not a number is like itself
    assert [str(r) for _, r in first] == [str(r) for _, r in second]
    assert all(torch.equal(t.sent[n], b[n]) for t, b in zip(local, before, strict=True) for n in b)


def test_a_client_that_does_not_say_its_learning_rates_is_refused() -> None:
    @dataclass(frozen=True)
    class Other:
        batch_size: int = 5

        def num_steps(self, num_examples: int) -> int:
            return 1

        def batches(self, num_examples: int, rng: np.random.Generator) -> NDArray[Any]:
            return np.arange(num_examples)[None]

    lab = Lab()
    local = lab.local()
    lab.client = Other()
    with pytest.raises(ComponentError, match=r"Other has no method schedule\("):
        Leakage(attack=QUICK, levels=("local",)).observe(local, lab)


@pytest.mark.parametrize("images", [np.zeros((0, 1, 8, 8)), np.full((2, 1, 8, 8), np.nan)])
def test_an_attack_that_returns_nonsense_is_refused(images: NDArray[Any]) -> None:
    lab = Lab()
    with pytest.raises(RunError, match="view message must return finite images"):
        Leakage(attack=Answers(images.astype(np.float32))).observe(lab.local(), lab)


def victim(
    run: int,
    round_number: int,
    value: float,
    metric: str = "margin",
    kind: str = "typical",
    owner: int = 0,
    coin: str = "in",
) -> Measurement:
    own = Labels.of(view="aggregate", knows="lr", coin="out" if coin == "out" else None, owner=owner, kind=kind)
    reading = Reading(metric=metric, value=value, subject="3", labels=own)
    return Measurement(run=run, round=round_number, level="global", client=-1, source="leakage", reading=reading)


def test_summaries_by_kind_round_and_final() -> None:
    rows = [
        victim(0, 2, 1.0), victim(0, 2, 3.0, owner=1), victim(1, 2, 5.0), victim(0, 4, 7.0),
        victim(0, 4, -1.0, kind="a, b"),
    ]  # fmt: skip
    found = {(m.round, m.reading.subject): m for m in Leakage(attack=QUICK).summarise(rows, 0)}
    assert found.keys() == {(2, "typical"), (4, "typical"), (FINAL, "typical"), (4, "a, b"), (FINAL, "a, b")}
    final = found[FINAL, "typical"]
    assert (final.run, final.client, final.level, final.source) == (-1, -1, "global", "leakage")
    assert final.reading.labels == labels("view=aggregate knows=lr")
    assert (final.reading.value, final.reading.n) == (4.0, 4)
    assert final.reading.low < 4.0 < final.reading.high
    assert (found[2, "typical"].reading.value, found[2, "typical"].reading.n) == (3.0, 3)
    alone = found[4, "typical"].reading
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


@pytest.mark.parametrize(
    ("metric", "values", "least", "most"),
    [("psnr", (2.0, 0.5), 0.0, 100.0), ("psnr", (100.0, 90.0), 0.0, 100.0), ("margin", (99.0, 20.0), -100.0, 100.0)],
)
def test_intervals_of_decibels_hold_nothing_impossible(
    metric: str, values: tuple[float, float], least: float, most: float
) -> None:
    """An image in [0, 1] is no further off than 0 dB and no nearer than the cap."""
    rows = [victim(i, 2, value, metric=metric, owner=i) for i, value in enumerate(values)]
    reading = Leakage(attack=QUICK).summarise(rows, 0)[0].reading
    low, high = mean_interval(np.array(values), range(2))
    assert low < least or high > most, "unbounded it would leave"
    assert (reading.low, reading.high) == (max(low, least), min(high, most))


def test_identification_rates_have_an_honest_interval_at_zero() -> None:
    rows = [victim(run, 2, 0.0, metric="identified") for run in range(4)]
    reading = Leakage(attack=QUICK).summarise(rows, 0)[0].reading
    assert (reading.value, reading.low) == (0.0, 0.0)
    assert reading.high > 0.4


def test_the_difference_by_hand() -> None:
    """Two holders: e = (1 - 3) / 2 - (0 - 1) / 2 and its opposite, so that half = t_1 sqrt(2 * 2 * 0.5^2)."""
    rows = [
        victim(0, 2, 1.0), victim(0, 2, 5.0, owner=1),
        victim(0, 2, 0.0, coin="out"), victim(0, 2, 2.0, owner=1, coin="out"),
    ]  # fmt: skip
    found = {(m.reading.metric, m.reading.labels): m.reading for m in Leakage(attack=QUICK).summarise(rows, 0)}
    about = labels("view=aggregate knows=lr")
    difference_of = about.plus(contrast="coins", minus="out")
    assert set(found) == {
        ("margin", about),
        ("margin", about.plus(coin="out")),
        ("margin.difference", difference_of),
    }
    assert found["margin", about].value == 3.0
    assert found["margin", about.plus(coin="out")].value == 1.0
    difference = found["margin.difference", difference_of]
    assert (difference.value, difference.n, difference.subject) == (2.0, 4, "typical")
    assert difference.high - 2.0 == pytest.approx(12.7062 * 1.0, rel=1e-4)
    assert 2.0 - difference.low == pytest.approx(12.7062 * 1.0, rel=1e-4)


def test_one_example_attacked_in_many_runs_and_rounds_is_one_cluster() -> None:
    """Four holders with an effect each, seen in 4 runs and 2 rounds: worth four values, not 32."""
    effects = (-3.0, -1.0, 1.0, 3.0)
    rows = [victim(r, t, effects[h], owner=h) for r in range(4) for t in (2, 4) for h in range(4)]
    (final,) = (m.reading for m in Leakage(attack=QUICK).summarise(rows, 0) if m.round == FINAL)
    assert (final.low, final.high) == pytest.approx(mean_interval(np.array(effects), range(4)))
    # and an effect of the run, the same for all holders, is as little diluted by them
    rows = [victim(r, t, effects[r], owner=h) for r in range(4) for t in (2, 4) for h in range(4)]
    (final,) = (m.reading for m in Leakage(attack=QUICK).summarise(rows, 0) if m.round == FINAL)
    assert (final.low, final.high) == pytest.approx(mean_interval(np.array(effects), range(4)))


def test_the_difference_of_rates_has_an_honest_interval_at_one() -> None:
    rows = [
        victim(run, 2, float(coin == "in"), metric="identified", owner=run, coin=coin)
        for run in range(4) for coin in ("in", "out")
    ]  # fmt: skip
    readings = {m.reading.metric: m.reading for m in Leakage(attack=QUICK).summarise(rows, 0)}
    difference = readings["identified.difference"]
    assert (difference.value, difference.high) == (1.0, 1.0)
    assert 0.1 < difference.low < 0.6


@pytest.mark.parametrize("built", [federation(), federation(copies=2), clustered()], ids=["once", "twice", "near"])
@pytest.mark.parametrize("subject", [0, 7])
def test_an_example_is_sought_in_the_same_batch_whatever_its_coin(subject: int, built: Federation) -> None:
    """The coin of one example alone is turned: an attack that did not look scores it the same to the last bit."""
    values, copies = [], built.audit.copies
    for is_in in (True, False):
        coins = built.audit.is_in.copy()
        coins[:, subject] = is_in
        spare = built.audit_start + len(built.audit) + np.arange(built.replacement.shape[1])
        fill = np.where(np.repeat(coins, copies, axis=1), -1, spare)
        lab = Lab(federation=replace(built, audit=replace(built.audit, is_in=coins), replacement=fill))
        local = lab.local(runs=(0, 1))
        attack = Answers(digits().take(np.arange(900, 912)).inputs)
        found = Leakage(attack=attack, victims=3, levels=("local", "global"))
        readings = [*found.observe(local, lab), *found.observe(lab.aggregated(local), lab)]
        chosen = outs(readings) if not is_in else ins(readings)
        values.append(
            [(r.metric, r.value) for r in chosen if r.subject == str(subject) and r.labels.get("view") != "first_step"]
        )
    assert values[0] == values[1]
    assert len(values[0]) == 4 * len(METRICS), "two runs, two views"


@pytest.mark.parametrize("alone", [0, 256])
def test_near_copies_leak_nothing_to_an_attack_that_did_not_look(alone: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In and out differ by chance alone; beside fill-ins, as near copies would not be, a control is rebuilt better."""
    monkeypatch.setattr("fedmem.probes._victims.ALONE", alone)
    # without a population there are few priors to pair, which is faster
    built, everything, cases = clustered(population=0), digits().inputs, []
    for is_in in (True, False):
        coins = built.audit.is_in.copy()
        coins[:, 0] = is_in
        fill = np.where(coins.repeat(4, axis=1), -1, built.audit_start + len(built.audit) + np.arange(36))
        lab = Lab(federation=replace(built, audit=replace(built.audit, is_in=coins), replacement=fill))
        (case,) = Leakage(attack=QUICK)._cases("message", lab.local(runs=(0,), clients=(0,)), lab)
        controls = {} if is_in else {0: case.controls[0]}
        cases.append(replace(case, victims=case.victims[:1] if is_in else case.victims[:0], controls=controls))
    inside, outside = cases
    assert len(outside.controls[0].places) == 4
    original = replace(outside.controls[0], places=outside.controls[0].example_rows, rows=built.trained_rows[:1])
    beside_fill_ins = replace(outside, controls={0: original})

    def scores(case: Case, seed: int) -> FloatArray:
        rng, found = np.random.default_rng(seed), []
        for _ in range(500):
            images = everything[rng.permutation(len(everything))[: len(built.store) + 24]]
            store = replace(built.store, inputs=images[:-24])
            store.inputs[built.trained_rows[1:4]] = near_copies(store.inputs[built.trained_rows[[0, 0, 0]]], rng)
            audit = replace(built.audit, examples=store.take(built.audit_start + np.arange(len(built.audit))))
            lab.federation = replace(built, store=store, audit=audit)
            answer = Reconstruction(inputs=images[-24:], labels=np.arange(24) % 10, distance=0.0)
            (one,) = score(case, answer, lab)
            assert one.control == bool(case.controls)
            found.append(one.values["psnr"])
        return np.array(found)

    def deviation(differences: FloatArray) -> float:
        return float(differences.mean() / differences.std(ddof=1)) * math.sqrt(len(differences))

    looked_for = scores(inside, 0)
    assert abs(deviation(looked_for - scores(outside, 1))) < 3.3
    assert deviation(looked_for - scores(beside_fill_ins, 0)) < -3.3


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


def test_without_fill_ins_a_base_row_of_the_holder_gives_up_its_place() -> None:
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


def test_who_is_attacked_does_not_depend_on_the_coins() -> None:
    built = federation()
    attacked = []
    for is_in in (True, False):
        audit = replace(built.audit, is_in=np.full_like(built.audit.is_in, is_in))
        spare = built.audit_start + len(audit) + np.arange(len(audit))
        lab = Lab(federation=replace(built, audit=audit, replacement=np.where(audit.is_in, -1, spare)))
        cases = Leakage(attack=QUICK, victims=1)._cases("message", lab.local(), lab)
        attacked.append([(case.transition.run, case.transition.client) for case in cases])
        assert all(bool(len(case.victims)) == is_in != bool(case.controls) for case in cases)
    assert attacked[0] == attacked[1]
    Leakage(attack=QUICK).observe(lab.local(), lab)
    assert not lab.kept, "controls are no pictures"


def test_noise_identifies_at_the_chance_that_is_stated() -> None:
    """Victim and gallery alike, rebuilt images that know neither: 1 / (G + 1). Matching on the truth first is worse."""
    rng, repetitions, gallery = np.random.default_rng(0), 400, 9
    built, found = federation(), []
    matched_first = []
    lab = Lab()
    (case,) = Leakage(attack=QUICK)._cases("message", lab.local(runs=(0,), clients=(0,)), lab)
    subject = int(case.victims[-1])
    place = int(np.flatnonzero(case.rows == built.audit_start + subject)[0])
    for _ in range(repetitions):
        images = rng.integers(2, size=(len(built.store) + gallery, 1, 8, 8)).astype(np.float32)
        store, fresh = replace(built.store, inputs=images[:-gallery]), images[-gallery:]
        audit = replace(built.audit, examples=store.take(built.audit_start + np.arange(len(built.audit))))
        references = tuple(replace(family, inputs=fresh) for family in built.references)
        lab.federation = replace(built, store=store, audit=audit, references=references)
        noise = rng.random((15, 1, 8, 8), dtype=np.float32)
        answer = Reconstruction(inputs=noise, labels=np.zeros(15, dtype=np.int64), distance=0.0)
        (victim,) = [v for v in score(replace(case, controls={}), answer, lab) if v.subject == subject]
        assert victim.kind == "noise"
        found.append(victim.identified)
        errors = squared_errors(noise, store.inputs[case.rows])
        own = assign(errors)[place]
        matched_first.append(errors[own, place] < squared_errors(noise[own : own + 1], fresh).min())
    low, high = clopper_pearson(int(np.sum(found)), repetitions, level=0.999)
    assert low < 1 / (gallery + 1) < high
    assert clopper_pearson(int(np.sum(matched_first)), repetitions, level=0.999)[0] > 2 / (gallery + 1)


def test_noise_identifies_no_kind_more_often_than_chance_among_its_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain noise is as near to made images as it gets; among the population it would seem to identify them."""
    kinds = ("typical", "random_pattern", "out_of_distribution", "corrupted", "near_duplicate", "mislabelled")
    injections = [{"kind": kind, "per_client": 2} for kind in kinds]
    built = build(tiny(dataset={"kind": "digits"}, population=100, references=100, injections=injections))
    lab, start = Lab(federation=built), built.initial
    local = [transition(run, 2, k, start, start, len(built.rows(run, k, 2))) for run in range(2) for k in range(5)]
    probe = Leakage(attack=Noise(), victims=5)

    def identified() -> dict[str, list[Reading]]:
        found: dict[str, list[Reading]] = {}
        for _, reading in probe.observe(local, lab):
            if reading.metric == "identified" and reading.labels.get("view") == "message":
                found.setdefault(reading.labels.get("kind"), []).append(reading)
        return found

    honest = identified()
    assert honest.keys() == set(kinds)
    for kind, readings in honest.items():
        assert len(readings) == 20
        among = {f"{gallery},peers={peers}" for gallery, peers, _ in map(_among, readings)}
        peers = {"typical": "1[0-9]{3}", "random_pattern": "100"}.get(kind, "8")
        assert all(re.fullmatch(rf"(100|1\d{{3}}),peers={peers}", one) for one in among), among
        identified_by_chance = sum(reading.value for reading in readings)
        assert clopper_pearson(int(identified_by_chance), 20, level=0.99)[0] < 1 / 9
    lab.federation = replace(built, shifted=True)
    assert identified().keys() == {"random_pattern"}, "the population is not seen as any holder sees it"
    lab.federation = built
    alike = Gallery(images=built.population.inputs, peers=100)
    monkeypatch.setattr("fedmem.probes._victims.gallery", lambda *_: alike)
    assert np.mean([reading.value for reading in identified()["out_of_distribution"]]) > 0.4


def test_label_accuracy_stands_beside_the_uniform_guess() -> None:
    lab = Lab()
    found = Leakage(attack=QUICK).observe(lab.local(runs=(0,), clients=(0,)), lab)
    (guess,) = [r.value for _, r in found if r.metric == "label_accuracy.guess" and r.labels.get("view") == "message"]
    truth = lab.federation.store.targets[lab.rows(0, 0)]
    # fifteen images: two of each of the first five classes, one of each other
    counts = np.bincount(truth, minlength=10)
    assert guess == np.minimum(counts, [2] * 5 + [1] * 5).sum() / 15
    assert guess < 1


def test_two_attacks_in_one_scenario_are_kept_apart(tmp_path: Path) -> None:
    attacks = [
        {
            "kind": "leakage", "attack": {"kind": "inverting_gradients", "steps": steps},
            "victims": 1, "runs": 2, "rounds": [4], "levels": ["local"],
        }
        for steps in (1, 30)
    ]  # fmt: skip
    folder = run(tiny(probes=[*attacks, {"kind": "utility"}]), out=tmp_path)
    frame = read(folder).measurements
    assert set(frame.source) == {"leakage", "leakage_2", "utility"}
    first, second = (frame[frame.source == source].reset_index(drop=True) for source in ("leakage", "leakage_2"))
    assert (first.metric == second.metric).all()
    assert (first["view"] == second["view"]).all()
    pictures = read(folder).reconstructions()
    names = {name.partition("/")[2] for name in pictures if name.startswith("leakage/")}
    assert names
    for name in names:
        one, other = pictures[f"leakage/{name}"], pictures[f"leakage_2/{name}"]
        assert np.array_equal(one, other) != name.endswith(("/reconstruction", "/psnr"))
    stored = (folder / "measurements.parquet").read_bytes()
    measure(folder)
    assert (folder / "measurements.parquet").read_bytes() == stored
    summary = Summary(read(folder))
    blocks = {
        heading: rows for section in sections(summary) for heading, rows in section.blocks if "reconstr" in heading
    }
    assert [heading.partition(":")[0] for heading in blocks] == ["leakage"] * 4 + ["leakage_2"] * 4
    said = [heading.partition(": ")[2].split(" (")[0] for heading in blocks]
    assert said[0].startswith("reconstruction, identified"), "what tells most comes first"
    assert said[1] == "reconstruction, dB of PSNR over the best prior"
    first_rows, second_rows = (
        [rows for heading, rows in blocks.items() if heading.startswith(f"{w}:")] for w in SOURCES
    )
    assert first_rows[1] != second_rows[1]


def test_nothing_to_summarise() -> None:
    assert Leakage(attack=QUICK).summarise([], 0) == []


def test_cluster_interval_equals_the_ordinary_one_for_single_values_and_widens_for_clusters() -> None:
    from scipy.stats import t

    values = np.random.default_rng(0).normal(size=12)
    low, high = mean_interval(values, range(12))
    expected = t.interval(0.95, 11, loc=values.mean(), scale=values.std(ddof=1) / math.sqrt(12))
    assert (low, high) == pytest.approx(expected)
    doubled = mean_interval(np.repeat(values, 5), np.repeat(np.arange(12), 5).tolist())
    assert doubled == pytest.approx((low, high)), "five equal values in a cluster are worth one"
    assert np.isnan(mean_interval(np.array([2.0, 2.0]), [0, 1])).all(), "two equal values are no certainty"
    assert np.isnan(mean_interval(np.full(3, 0.1), [0, 1, 2])).all(), "nor are they by rounding"
    one_way, other = mean_interval(values, range(12)), mean_interval(values, [0] * 6 + [1] * 6)
    nested = max(one_way, other, key=lambda ends: ends[1] - ends[0])
    assert mean_interval(values, range(12), [0] * 6 + [1] * 6) == pytest.approx(nested)
    assert mean_interval(values, range(12), [0] * 12) == one_way, "a single cluster has nothing to say"


def test_intervals_hold_the_mean_where_both_holders_and_runs_vary() -> None:
    """The wider of the two ways alone held it in 90 of 100."""
    from itertools import product

    rng = np.random.default_rng(0)
    pairs = list(product(range(16), range(20)))
    runs, owners = [run for run, _ in pairs], [owner for _, owner in pairs]
    held = []
    for _ in range(400):
        of_run, of_holder = rng.normal(size=16), rng.normal(size=20)
        values = of_run[runs] + of_holder[owners] + rng.normal(size=len(pairs))
        both = mean_interval(values, owners, runs)
        ways = [mean_interval(values, owners), mean_interval(values, runs)]
        assert both[0] <= min(low for low, _ in ways)
        assert both[1] >= max(high for _, high in ways)
        held.append(both[0] <= 0 <= both[1])
    assert 0.92 <= np.mean(held) <= 0.98


def test_difference_interval_equals_welch_like_oracle_and_takes_out_what_is_shared() -> None:
    from scipy.stats import t

    rng = np.random.default_rng(0)
    first, second = rng.normal(size=7), rng.normal(size=5)
    residuals = np.concatenate([(first - first.mean()) / 7, (second - second.mean()) / 5])
    half = t.ppf(0.975, 11) * math.sqrt(12 / 11 * np.square(residuals).sum())
    middle = first.mean() - second.mean()
    expected = pytest.approx((middle - half, middle + half))
    assert difference_interval(first, second, (range(7), range(7, 12))) == expected
    shared = rng.normal(size=8) * 100
    noise = rng.normal(size=(2, 8))
    paired = difference_interval(shared + noise[0], shared + noise[1], (range(8), range(8)))
    apart = difference_interval(shared + noise[0], shared + noise[1], (range(8), range(8, 16)))
    assert paired[1] - paired[0] < (apart[1] - apart[0]) / 10
    assert all(math.isnan(end) for end in difference_interval(first, second, ([0] * 7, [0] * 5)))
    assert all(math.isnan(end) for end in difference_interval(shared, shared - 1, (range(8), range(8))))
    assert all(math.isnan(end) for end in mean_interval(np.array([1.0, math.nan]), [0, 1]))


def test_the_lab_is_a_context() -> None:
    assert isinstance(Lab(), Context)


@dataclass(frozen=True)
class Asks:
    """An attack that keeps what it was shown, and offers grey."""

    knows: tuple[str, ...]
    shown: list[GradientTarget]

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        self.shown.extend(targets)
        grey = np.full((1, *targets[0].input_shape), 0.5, dtype=np.float32)
        return [Reconstruction(inputs=grey, labels=np.zeros(1, dtype=np.int64), distance=0.0) for _ in targets]


def test_an_attack_is_shown_what_it_declares_and_its_readings_say_so() -> None:
    lab, words = Lab(client=Sgd(lr=0.1, epochs=2, batch_size=5)), ("labels", "algorithm", "batches", "population")
    local = lab.local(runs=(0,), clients=(1,))
    shy, bold = Asks((), []), Asks(words, [])
    first, second = (Leakage(attack=attack).observe(local, lab) for attack in (shy, bold))
    assert {r.labels.get("knows") for _, r in first if r.labels.get("view") == "message"} == {"lr+steps+count"}
    assert {r.labels.get("knows") for _, r in second if r.labels.get("view") == "message"} == {
        "lr+steps+count+labels+algorithm+batches+population"
    }
    assert all(getattr(target, word) is None for target in shy.shown for word in words)
    assert not shy.shown[0].payload
    message, step = bold.shown
    store, rows = lab.federation.store, lab.rows(0, 1)
    assert message.labels is not None
    assert message.labels.tolist() == sorted(store.targets[rows])
    assert message.algorithm is lab.client
    assert message.payload["round"] == 2
    assert message.population is lab.federation.population
    ordered = rows[np.argsort(store.targets[rows], kind="stable")]
    for places, batch in zip(message.batches, lab.batches(0, 2, 1), strict=True):  # type: ignore[arg-type]
        assert ordered[places[places >= 0]].tolist() == batch.tolist()
    assert step.batches is not None
    assert step.batches.shape == (1, 5)
    assert step.labels is not None
    assert len(step.labels) == 5
    # the update of one client's steps, done again with the batches that were shown
    images = [store.inputs[ordered[places[places >= 0]]] for places in message.batches]  # type: ignore[union-attr]
    params = message.params
    for inputs, places in zip(images, message.batches, strict=True):  # type: ignore[arg-type]
        gradient = gradient_of(lab.federation.model, params, inputs, message.labels[places[places >= 0]])
        params = {name: value - 0.1 * gradient[name] for name, value in params.items()}
    assert message.update is not None
    for name, value in message.update.items():
        assert torch.allclose(params[name] - message.params[name], value.float(), atol=1e-6)


def test_of_several_clients_or_more_images_than_are_rebuilt_no_order_is_known() -> None:
    lab = Lab()
    local = lab.local(runs=(0,))
    bold = Asks(("labels", "batches"), [])
    Leakage(attack=bold).observe(lab.aggregated(local), lab)
    Leakage(attack=bold, max_images=4).observe(local, lab)
    together, *parts = bold.shown
    assert together.batches is None
    assert together.clients == 3
    assert "batches" not in together.knows
    assert all(
        target.batches is None and len(present(target.labels)) == 4 for target in parts if target.num_images == 4
    )
    store = lab.federation.store.targets
    every = np.sort(store[np.concatenate([lab.rows(0, client) for client in range(3)])])
    assert together.labels is not None
    assert together.labels.tolist() == every.tolist()


def test_layers_that_stay_with_their_holders_are_not_shown_to_who_attacks_the_aggregate() -> None:
    lab = Lab(client=FedPer(lr=0.1, epochs=1, batch_size=5))
    (aggregate,) = lab.aggregated(lab.local(runs=(0,)))
    initial, own = lab.federation.initial, lab.client.personal_parameters(lab.federation.initial)
    assert own == ("3.weight", "3.bias")
    held = []
    for client in range(3):
        secret = {name: initial[name] + 1.0 + client for name in own}
        sent = {**aggregate.sent, **secret}
        held.append(replace(aggregate, client=client, before={**aggregate.before, **secret}, sent=sent, kept=sent))
    shy = Asks((), [])
    readings = Leakage(attack=shy).observe(held, lab)
    (target,) = shy.shown
    assert {place.client for place, _ in readings} == {-1}
    assert target.update is not None
    for name in initial:
        assert torch.equal(target.params[name], initial[name])
        assert (name in target.update) == (name not in own)


def test_what_a_client_keeps_to_itself_is_not_taken_for_a_gradient_of_zeros() -> None:
    lab, shy = Lab(client=FedPer(lr=0.1, epochs=1, batch_size=5)), Asks((), [])
    Leakage(attack=shy, first_step=True).observe(lab.local(runs=(0,)), lab)
    shared = {name for name in lab.federation.initial if name not in ("3.weight", "3.bias")}
    assert shy.shown
    for target in shy.shown:
        assert target.personal == ("3.weight", "3.bias")
        assert target.update is not None
        assert set(target.gradient) == set(target.update) == shared
        assert all(value.any() for value in target.gradient.values())
        assert torch.equal(target.params["3.weight"], lab.federation.initial["3.weight"])


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


def test_sums_are_attacked_on_the_victims_of_their_clients() -> None:
    lab = Lab()
    local = lab.local(runs=(0, 1))
    probe = Leakage(attack=QUICK, victims=2, levels=("local", "sum"))
    sums = sums_of(local, (2, 3), "size", lab.seed, lab.federation.audit)
    of_message = {
        (t.run, r.subject) for t, r in probe.observe(local, lab) if r.subject and r.labels.get("view") == "message"
    }
    readings = probe.observe(sums, lab)
    for size in (2, 3):
        of_sum = {(t.run, r.subject) for t, r in readings if r.subject and len(t.clients) == size}
        assert of_sum == of_message, "those attacked alone are first in every sum"
    assert {name.split("/")[2] for name in lab.kept if "/sum/" in name} == {"sum_2", "sum_3"}
    assert {r.labels.get("view") for _, r in readings} == {"sum"}
    (case, *_) = probe._cases("sum", sums, lab)
    assert sorted(case.rows) == sorted(np.concatenate([lab.used_rows(0, client) for client in case.clients]))
    assert case.target.clients == 2


def test_first_steps_are_left_alone_where_that_is_said() -> None:
    lab = Lab()
    both, alone = (Leakage(attack=QUICK, first_step=wanted).observe(lab.local(), lab) for wanted in (True, False))
    assert repr([r for _, r in both if r.labels.get("view") != "first_step"]) == repr([r for _, r in alone])
    assert len(alone) < len(both)


def test_rows_of_tables_are_scored_cell_by_cell_against_the_usual_row() -> None:
    """One number and a category of three: each victim comes back with its number right and its category wrong."""
    rng, built = np.random.default_rng(0), federation(population=60)
    rows = len(built.store) + 120
    table = np.zeros((rows, 4), dtype=np.float32)
    table[:, 0] = rng.random(rows)
    table[np.arange(rows), 1 + rng.choice(3, rows, p=[0.8, 0.1, 0.1])] = 1
    store = replace(built.store, inputs=table[:-120])
    audit = replace(built.audit, examples=store.take(built.audit_start + np.arange(len(built.audit))))
    model = torch.nn.Linear(4, 10)
    lab = Lab(
        federation=replace(
            built, store=store, audit=audit, modality=Tables(blocks=(1, 3)), references=(), model=model,
            initial={name: value.detach() for name, value in model.named_parameters()},
            population=replace(built.population, inputs=table[-120:-60]),
            test=replace(built.test, inputs=table[-60:]),
        ),
    )  # fmt: skip
    local = lab.local(runs=(0,), clients=(0,))
    truth = store.inputs[lab.rows(0, 0)]
    wrong = np.concatenate([truth[:, :1], np.roll(truth[:, 1:], 1, axis=1)], axis=1)
    for offered in (truth, wrong):
        readings = [
            r for r in ins(Leakage(attack=Answers(offered)).observe(local, lab)) if r.labels.get("view") == "message"
        ]
        values = {(r.metric, r.subject): r.value for r in readings}
        found = [value for (metric, _), value in values.items() if metric == "cells"]
        assert set(found) == {1.0} if offered is truth else np.mean(found) < 0.9
        for (metric, subject), value in values.items():
            if metric == "cells_gain":
                own = audit.examples.inputs[int(subject)]
                usual = lab.federation.population.inputs
                near = abs(own[0] - usual[:, 0].mean()) <= 0.319 * usual[:, 0].std() + 1e-6
                guess = (float(near) + float(own[1] == 1)) / 2
                assert value == pytest.approx(values["cells", subject] - guess)
        assert not [r for r in readings if r.metric == "ssim"]
    lab.federation = replace(lab.federation, modality=Tables())
    assert not [r for _, r in Leakage(attack=Answers(truth)).observe(local, lab) if r.metric.startswith("cells")]


def test_who_is_as_near_as_a_reference_is_not_identified() -> None:
    """The rebuilt image lies midway between the canary and a reference: a tie, which tells nobody from anybody."""
    lab, built = Lab(), federation()
    (case,) = Leakage(attack=QUICK)._cases("message", lab.local(runs=(0,), clients=(0,)), lab)
    subject = next(s for s in case.victims.tolist() if built.audit.kind[s] == "noise")
    original = built.audit.examples.inputs[subject]

    def identified(towards: float) -> float:
        twin = original.copy()
        twin[0, :4] = 1 - twin[0, :4]
        lab.federation = replace(built, references=(replace(built.references[0], inputs=twin[None]),))
        image = ((1 - towards) * original + towards * twin)[None].astype(np.float32)
        answer = Reconstruction(inputs=image, labels=np.zeros(1, dtype=np.int64), distance=0.0)
        (victim,) = [v for v in score(replace(case, controls={}), answer, lab) if v.subject == subject]
        return victim.identified

    assert [identified(towards) for towards in (0.25, 0.5, 0.75)] == [1.0, 0.0, 0.0]
