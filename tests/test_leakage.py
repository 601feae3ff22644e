from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.clients.sgd import Sgd
from fedmem.components import Context, GradientTarget, Reconstruction
from fedmem.errors import ComponentError, RunError
from fedmem.image_metrics import psnr, squared_errors
from fedmem.probes._clusters import mean_interval
from fedmem.probes.leakage import Leakage
from fedmem.types import EVERYWHERE, FINAL, Measurement, Reading
from tests.lab import Lab, digits, federation, gradient_of, transition

QUICK = InvertingGradients(steps=40)


@dataclass(frozen=True)
class Answers:
    """An attack that returns the images it was made with, for every target."""

    images: NDArray[np.float32]

    def reconstruct(self, targets: Sequence[GradientTarget], rng: np.random.Generator) -> Sequence[Reconstruction]:
        labels = np.zeros(len(self.images), dtype=np.int64)
        return [Reconstruction(inputs=self.images, labels=labels, distance=0.0) for _ in targets]


def test_readings_name_view_kind_and_knowledge() -> None:
    lab = Lab()
    readings = Leakage(attack=QUICK).observe(lab.local(), lab)
    victims = [(about, reading) for about, reading in readings if reading.subject]
    assert {reading.metric for _, reading in victims} == {"psnr", "margin", "identified"}
    assert {reading.setting.split(",")[0] for _, reading in victims} == {"view=message", "view=first_step"}
    audit = lab.federation.audit
    for about, reading in victims:
        assert about is not None
        subject = int(reading.subject)
        assert audit.is_in[about.run, subject], "an out example is no victim"
        assert audit.holder[subject] == about.client
        assert reading.setting.endswith(f",kind={audit.kind[subject]}")
        assert "knows=lr+" in reading.setting
    gallery = {r.setting.split("gallery=")[1] for _, r in victims if r.metric == "identified"}
    assert gallery == {"40,kind=typical", "50,kind=noise"}


def test_first_step_victims_are_those_of_the_batch() -> None:
    lab = Lab()
    local = lab.local()
    readings = Leakage(attack=QUICK).observe(local, lab)
    seen = {(t.run, int(r.subject)) for t, r in readings if t and r.subject and "view=first_step" in r.setting}
    audit, start = lab.federation.audit, lab.federation.audit_start
    rows = {t.run: np.concatenate([lab.first_step(u)[1] for u in local if u.run == t.run]) for t in local}
    expected = {(run, j) for run in rows for j in range(len(audit)) if start + j in rows[run]}
    assert seen == expected
    assert expected


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
    of_message = {(t.run, r.subject) for t, r in probe.observe(local, lab) if t and "view=message" in r.setting}
    of_aggregate = {(t.run, r.subject) for t, r in probe.observe(lab.aggregated(local), lab) if t}
    assert of_message == of_aggregate
    holders = {
        run: {int(lab.federation.audit.holder[int(s)]) for r, s in of_message if r == run and s} for run in (0, 1)
    }
    assert all(len(clients) == 2 for clients in holders.values())


def test_declared_rounds_runs_and_caps() -> None:
    lab = Lab(observed_rounds=(0, 2, 3, 4))
    probe = Leakage(attack=QUICK)
    assert probe._declared(lab) == (2, 4)
    assert Leakage(attack=QUICK, every=3)._declared(lab) == (3, 4)
    assert Leakage(attack=QUICK, rounds=(3,))._declared(lab) == (3,)
    assert Leakage(attack=QUICK)._declared(Lab(observed_rounds=(0,))) == ()
    assert probe.observe(lab.local(round=3), lab) == []
    readings = Leakage(attack=QUICK, runs=1, max_images=4).observe(lab.local(), lab)
    assert {t.run for t, _ in readings if t} == {0}
    coverage = {r.value for _, r in readings if r.metric == "coverage" and "view=message" in r.setting}
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
    readings = [r for _, r in Leakage(attack=Answers(truth)).observe(local, lab) if "view=message" in r.setting]
    assert {r.value for r in readings if r.metric == "psnr"} == {100.0}
    assert {r.value for r in readings if r.metric == "identified"} == {1.0}
    assert all(r.value > 50 for r in readings if r.metric == "margin")


def test_an_attack_that_offers_a_prior_has_no_margin_over_it() -> None:
    lab = Lab()
    local = lab.local(runs=(0,))
    grey = np.full((1, 1, 8, 8), 0.5, dtype=np.float32)
    margins = [r for _, r in Leakage(attack=Answers(grey)).observe(local, lab) if r.metric == "margin"]
    assert max(r.value for r in margins) <= 0
    # the canaries are fair coins: grey is as good as their family's mean, up to that mean's own noise
    assert all(r.value == pytest.approx(0, abs=0.2) for r in margins if r.setting.endswith("noise"))


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
    readings = [r for _, r in Leakage(attack=attack).observe(lab.local(), lab) if "view=message" in r.setting]
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
    values = [r.value for _, r in readings if r.subject == "0" and r.metric == "psnr" and "view=message" in r.setting]
    assert values == [100.0]


def test_no_population_means_fewer_priors_and_no_gallery() -> None:
    lab = Lab(federation=federation(population=0))
    readings = Leakage(attack=QUICK).observe(lab.local(), lab)
    identified = [r for _, r in readings if r.metric == "identified"]
    assert {r.setting.rpartition("=")[2] for r in identified} == {"noise"}
    assert all(math.isfinite(r.value) for _, r in readings if r.metric == "margin")


def test_the_sheet_is_kept_and_bounded() -> None:
    lab = Lab()
    local = lab.local(runs=(0, 1))
    Leakage(attack=QUICK).observe(local, lab)
    prefix = "leakage/round_2/local/message"
    kinds = lab.kept[f"{prefix}/kind"].tolist()
    assert max(kinds.count(kind) for kind in kinds) <= 4
    for key in ("original", "reconstruction", "prior"):
        assert lab.kept[f"{prefix}/{key}"].shape == (len(kinds), 1, 8, 8)
    assert lab.kept[f"{prefix}/setting"].dtype.kind == "U"
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
    assert [r for _, r in first] == [r for _, r in second]
    assert all(torch.equal(t.sent[n], b[n]) for t, b in zip(local, before, strict=True) for n in b)


def test_a_client_without_a_learning_rate_is_refused() -> None:
    @dataclass(frozen=True)
    class Other:
        batch_size: int = 5

        def num_steps(self, num_examples: int) -> int:
            return 1

    lab = Lab()
    local = lab.local()
    lab.client = Other()
    with pytest.raises(ComponentError, match="Other has no field `lr`"):
        Leakage(attack=QUICK, levels=("local",)).observe(local, lab)


@pytest.mark.parametrize("images", [np.zeros((0, 1, 8, 8)), np.full((2, 1, 8, 8), np.nan)])
def test_an_attack_that_returns_nonsense_is_refused(images: NDArray[Any]) -> None:
    lab = Lab()
    with pytest.raises(RunError, match="view message must return finite images"):
        Leakage(attack=Answers(images.astype(np.float32))).observe(lab.local(), lab)


def victim(run: int, round: int, value: float, metric: str = "margin", kind: str = "typical") -> Measurement:
    reading = Reading(
        metric=metric, value=value, subject="3", setting=f"view=message,knows=lr,labels=inferred,kind={kind}"
    )
    return Measurement(run=run, round=round, level="local", client=0, source="leakage", reading=reading)


def test_summaries_by_kind_round_and_final() -> None:
    rows = [victim(0, 2, 1.0), victim(0, 2, 3.0), victim(1, 2, 5.0), victim(0, 4, 7.0), victim(0, 4, -1.0, kind="a, b")]
    found = {(m.round, m.reading.subject): m for m in Leakage(attack=QUICK).summarise(rows, 0)}
    assert found.keys() == {(2, "typical"), (4, "typical"), (FINAL, "typical"), (4, "a, b"), (FINAL, "a, b")}
    final = found[FINAL, "typical"]
    assert (final.run, final.client, final.level, final.source) == (-1, -1, "local", "leakage")
    assert final.reading.setting == "view=message,knows=lr,labels=inferred"
    assert (final.reading.value, final.reading.n) == (4.0, 4)
    assert final.reading.low < 4.0 < final.reading.high
    assert (found[2, "typical"].reading.value, found[2, "typical"].reading.n) == (3.0, 3)
    alone = found[4, "typical"].reading
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


def test_identification_rates_have_an_honest_interval_at_zero() -> None:
    rows = [victim(run, 2, 0.0, metric="identified") for run in range(4)]
    reading = Leakage(attack=QUICK).summarise(rows, 0)[0].reading
    assert (reading.value, reading.low) == (0.0, 0.0)
    assert reading.high > 0.4


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
    assert mean_interval(np.array([2.0, 2.0]), [0, 1]) == (2.0, 2.0)
    assert all(math.isnan(end) for end in mean_interval(np.array([1.0, math.nan]), [0, 1]))


def test_the_lab_is_a_context() -> None:
    assert isinstance(Lab(), Context)
