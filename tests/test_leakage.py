from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from fedmem.attacks.inverting_gradients import InvertingGradients, _Stack, _total_variation
from fedmem.clients.sgd import Sgd
from fedmem.components import Context, GradientTarget, Reconstruction
from fedmem.errors import ComponentError, RunError
from fedmem.image_metrics import assign, psnr, squared_errors
from fedmem.probes._clusters import mean_interval
from fedmem.probes.leakage import Leakage
from fedmem.seeding import stream
from fedmem.types import (
    EVERYWHERE,
    FINAL,
    AuditSet,
    Examples,
    Federation,
    FloatArray,
    IntArray,
    Measurement,
    Params,
    Reading,
    References,
    Transition,
)

# --- a small real federation: digits, a real network, real local steps --------------------------------------------

CLIENTS, BASE, RUNS = 3, 12, 4


def digits() -> Examples:
    images, labels = load_digits(return_X_y=True)
    inputs = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return Examples(inputs=inputs, targets=labels.astype(np.int64), ids=np.arange(len(labels)))


def network(activation: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), activation(), nn.Linear(64, 10))


def parameters(model: nn.Module) -> Params:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def gradient_of(model: nn.Module, params: Params, inputs: NDArray[np.float32], targets: IntArray) -> Params:
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    outputs = functional_call(model, leaves, (torch.from_numpy(inputs),))
    loss = functional.cross_entropy(outputs, torch.from_numpy(targets))
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def target_of(model: nn.Module, params: Params, rows: Examples) -> GradientTarget:
    return GradientTarget(
        model=model,
        params=params,
        gradient=gradient_of(model, params, rows.inputs, rows.targets),
        num_images=len(rows),
        input_shape=rows.inputs.shape[1:],
        num_classes=10,
        knows="gradient",
    )


def federation(population: int = 40, copies: int = 1) -> Federation:
    """Three clients of 12 base rows; each holds 2 `typical` and 1 `noise` canary."""
    data, rng = digits(), np.random.default_rng(1)
    noise = rng.integers(2, size=(CLIENTS + 50, 1, 8, 8)).astype(np.float32)
    typical = data.take(np.arange(100, 100 + 2 * CLIENTS))
    canaries = Examples(inputs=noise[:CLIENTS], targets=np.arange(CLIENTS), ids=-1 - np.arange(CLIENTS))
    size = 3 * CLIENTS
    audit = AuditSet(
        examples=Examples.concatenate([typical, canaries]),
        kind=np.array(["typical"] * 2 * CLIENTS + ["noise"] * CLIENTS),
        role=np.array(["typical"] * 2 * CLIENTS + ["canary"] * CLIENTS),
        holder=np.concatenate([np.repeat(np.arange(CLIENTS), 2), np.arange(CLIENTS)]).astype(np.int32),
        copies=np.full(size, copies, dtype=np.int32),
        is_in=(np.arange(RUNS)[:, None] + np.arange(size)[None]) % 2 == 0,
    )
    start = CLIENTS * BASE
    spare = data.take(np.arange(200, 200 + copies * size))
    fill = np.where(np.repeat(audit.is_in, copies, axis=1), -1, start + size + np.arange(copies * size)[None])
    model = network()
    return Federation(
        store=Examples.concatenate([data.take(np.arange(start)), audit.examples, spare]),
        base=tuple(np.arange(BASE * k, BASE * (k + 1)) for k in range(CLIENTS)),
        audit=audit,
        audit_start=start,
        fill=fill,
        test=data.take(np.arange(300, 360)),
        population=data.take(np.arange(400, 400 + population)),
        references=(References(family="noise", inputs=noise[CLIENTS:]),),
        model=model,
        initial=parameters(model),
        num_classes=10,
        counts={},
    )


@dataclass
class Lab:
    """A context with a real network and real local training, small enough for a unit test."""

    federation: Federation = field(default_factory=federation)
    client: Any = field(default_factory=lambda: Sgd(lr=0.1, epochs=1, batch_size=5))
    seed: int = 0
    observed_rounds: tuple[int, ...] = (0, 2, 4)
    kept: dict[str, NDArray[Any]] = field(default_factory=dict)

    def stream(
        self, purpose: str, *, run: int | None = None, round: int | None = None, client: int | None = None
    ) -> np.random.Generator:
        return stream(self.seed, purpose, run=run, round=round, client=client)

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        batch = torch.from_numpy(inputs)
        with torch.no_grad():
            outputs = [functional_call(self.federation.model, params, (batch,)) for params in models]
        return torch.stack(outputs).double().numpy()

    def rows(self, run: int, client: int) -> IntArray:
        return self.federation.rows(run, client)

    def keep(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.kept.update({f"{name}/{key}": value for key, value in arrays.items()})

    def batches(self, run: int, round: int, client: int) -> list[IntArray]:
        rows = self.rows(run, client)
        plan = self.client.batches(len(rows), self.stream("batches", run=run, round=round, client=client))
        return [rows[positions[positions >= 0]] for positions in plan]

    def descend(self, params: Params, batches: Sequence[IntArray]) -> Params:
        store = self.federation.store
        for rows in batches:
            gradient = gradient_of(self.federation.model, params, store.inputs[rows], store.targets[rows])
            params = {name: value - self.client.lr * gradient[name] for name, value in params.items()}
        return params

    def first_step(self, transition: Transition) -> tuple[Params, IntArray]:
        first = self.batches(transition.run, transition.round, transition.client)[0]
        return self.descend(transition.before, [first]), first

    def local(
        self, round: int = 2, runs: Sequence[int] = (0, 1), clients: Sequence[int] = (0, 1, 2)
    ) -> list[Transition]:
        before = self.federation.initial
        found = []
        for run in runs:
            for client in clients:
                after = self.descend(before, self.batches(run, round, client))
                size = len(self.rows(run, client))
                found.append(transition(run, round, client, before, after, size))
        return found

    def aggregated(self, local: Sequence[Transition]) -> list[Transition]:
        found = []
        for run in sorted({t.run for t in local}):
            own = [t for t in local if t.run == run]
            mean = {name: torch.stack([t.sent[name] for t in own]).mean(0) for name in own[0].sent}
            clients = tuple(t.client for t in own)
            size = sum(t.num_examples for t in own)
            aggregate = transition(run, own[0].round, EVERYWHERE, own[0].before, mean, size)
            found.append(replace(aggregate, level="global", clients=clients))
        return found


def transition(run: int, round: int, client: int, before: Params, after: Params, size: int) -> Transition:
    return Transition(
        run=run, round=round, level="local", client=client, before=before, sent=after, kept=after, num_examples=size
    )


def measured(pairs: Sequence[tuple[Transition | None, Reading]], round: int = 2) -> list[Measurement]:
    """What the observer makes of readings."""
    return [
        Measurement(
            run=EVERYWHERE if about is None else about.run,
            round=round,
            level="global" if about is None else about.level,
            client=EVERYWHERE if about is None else about.client,
            source="probe",
            reading=reading,
        )
        for about, reading in pairs
    ]


QUICK = InvertingGradients(steps=40)


@dataclass(frozen=True)
class Answers:
    """An attack that returns the images it was made with, for every target."""

    images: NDArray[np.float32]

    def reconstruct(self, targets: Sequence[GradientTarget], rng: np.random.Generator) -> Sequence[Reconstruction]:
        labels = np.zeros(len(self.images), dtype=np.int64)
        return [Reconstruction(inputs=self.images, labels=labels, distance=0.0) for _ in targets]


# --- image metrics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.5, 0.1, 0.003])
def test_psnr_of_a_constant_offset(offset: float) -> None:
    truth = np.full((1, 1, 8, 8), 0.25)
    errors = squared_errors((truth + offset).astype(np.float64), truth)
    assert psnr(errors)[0, 0] == pytest.approx(-20 * math.log10(offset), abs=1e-9)


def test_a_permuted_batch_is_put_back_and_capped() -> None:
    truth = digits().take(np.arange(9)).inputs
    order = np.random.default_rng(0).permutation(9)
    errors = squared_errors(truth[order], truth)
    chosen = assign(errors)
    assert order[chosen].tolist() == list(range(9))
    assert psnr(errors[chosen, np.arange(9)]).tolist() == [100.0] * 9


def test_one_exact_image_does_not_cap_the_batch_and_nan_stays() -> None:
    assert psnr(np.array([0.0, 0.01, np.nan])).tolist() == pytest.approx([100.0, 20.0, np.nan], nan_ok=True)


def test_assignment_is_least_in_total_not_greedy() -> None:
    errors = np.array([[0.0, 0.1], [0.2, 1.0]])
    assert assign(errors).tolist() == [1, 0]


def test_fewer_images_than_true_ones_serve_several_but_not_all() -> None:
    errors = np.array([[0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.5]])
    chosen = assign(errors)
    assert np.bincount(chosen).max() == 3, "no image may stand for more than ceil(5 / 2)"
    assert chosen[4] == 1


# --- the attack ----------------------------------------------------------------------------------------------------


def test_a_linear_layer_with_bias_gives_its_example_away_in_closed_form() -> None:
    """Oracle: x = (dl/dW_j) / (dl/db_j) for any unit j, exactly; the optimiser must find the same image."""
    model, row = network(), digits().take(np.array([7]))
    gradient = gradient_of(model, parameters(model), row.inputs, row.targets)
    weight, bias = gradient["1.weight"].double(), gradient["1.bias"].double()
    unit = int(bias.abs().argmax())
    exact = (weight[unit] / bias[unit]).numpy()
    assert np.abs(exact - row.inputs.reshape(-1)).max() < 1e-6
    (found,) = InvertingGradients(tv=0.0).reconstruct([target_of(model, parameters(model), row)], stream(0, "x"))
    assert np.abs(found.inputs.reshape(-1) - exact).max() < 0.01
    assert found.labels.tolist() == row.targets.tolist()
    assert 0 <= found.distance + 1e-6 < 1e-4


def test_the_step_decays_and_images_stay_in_the_box() -> None:
    model, rows = network(), digits().take(np.arange(4))
    (found,) = QUICK.reconstruct([target_of(model, parameters(model), rows)], stream(0, "x"))
    assert found.inputs.shape == (4, 1, 8, 8)
    assert found.inputs.dtype == np.float32
    assert found.inputs.min() >= 0
    assert found.inputs.max() <= 1


def test_only_the_direction_counts() -> None:
    model, rows = network(), digits().take(np.arange(3))
    target = target_of(model, parameters(model), rows)
    scaled = replace(target, gradient={name: 1024 * value for name, value in target.gradient.items()})
    first, second = (QUICK.reconstruct([t], stream(0, "x"))[0] for t in (target, scaled))
    assert np.array_equal(first.inputs, second.inputs)


def test_targets_do_not_disturb_each_other_whatever_their_sizes() -> None:
    """Padding and stacking leave distance and slope of each problem as they are alone."""
    model, data = network(), digits()
    targets = [
        target_of(model, parameters(network(seed=i)), data.take(np.arange(i, i + n))) for i, n in enumerate((1, 4, 2))
    ]
    rng = stream(0, "x")
    problems = [problem for t, target in enumerate(targets) for problem in QUICK._starts(t, target, rng)]

    def look(some: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        stacked = _Stack(some)
        images = stacked.starts.requires_grad_()
        distances = stacked.distances(images)
        return distances.detach(), torch.autograd.grad(distances.sum(), images)[0]

    distances, slopes = look(problems)
    for i, problem in enumerate(problems):
        distance, slope = look([problem])
        count = len(problem.labels)
        assert torch.allclose(distances[i], distance[0], atol=1e-6)
        assert torch.allclose(slopes[i, :count], slope[0], atol=1e-6, rtol=1e-3)
        assert not slopes[i, count:].any()


def test_distances_are_those_of_a_plain_loop() -> None:
    model, rows = network(nn.Tanh), digits().take(np.arange(3))
    target = target_of(model, parameters(model), rows)
    (problem,) = QUICK._starts(0, target, stream(0, "x"))
    mine = gradient_of(model, parameters(model), problem.inputs, problem.labels)
    first, second = (torch.cat([g[name].flatten() for name in mine]) for g in (mine, target.gradient))
    expected = 1 - functional.cosine_similarity(first, second, dim=0)
    assert _Stack([problem]).distances(torch.from_numpy(problem.inputs[None])).item() == pytest.approx(
        expected.item(), abs=1e-5
    )


def test_stacks_are_cut_without_changing_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = network(), digits()
    targets = [target_of(model, parameters(model), data.take(np.arange(n))) for n in (1, 3, 2)]
    monkeypatch.setattr("fedmem.attacks.inverting_gradients.STACK_VALUES", 1)
    assert [len(found.inputs) for found in QUICK.reconstruct(targets, stream(0, "x"))] == [1, 3, 2]
    assert QUICK.reconstruct([], stream(0, "x")) == []


def test_the_restart_with_the_smallest_distance_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = network(), digits().take(np.arange(2))
    attack = InvertingGradients(steps=3, restarts=4)
    distances: list[float] = []
    solve = InvertingGradients._solve

    def watched(self: InvertingGradients, problems: Any) -> Any:
        solved = solve(self, problems)
        distances.extend(distance for _, distance in solved)
        return solved

    monkeypatch.setattr(InvertingGradients, "_solve", watched)
    (found,) = attack.reconstruct([target_of(model, parameters(model), rows)], stream(0, "x"))
    assert len(set(distances)) == 4
    assert found.distance == min(distances)


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_target_without_a_direction_has_no_distance_and_does_not_fail(value: float) -> None:
    model, rows = network(), digits().take(np.arange(2))
    target = target_of(model, parameters(model), rows)
    blank = replace(target, gradient={name: torch.full_like(g, value) for name, g in target.gradient.items()})
    beside, found = QUICK.reconstruct([target, blank], stream(0, "x"))
    assert math.isnan(found.distance)
    assert not math.isnan(beside.distance)
    assert np.isfinite(found.inputs).all()


def test_a_diverged_model_does_not_fail() -> None:
    model, rows = network(), digits().take(np.arange(2))
    target = target_of(model, parameters(model), rows)
    broken = replace(target, params={name: torch.full_like(p, math.nan) for name, p in target.params.items()})
    (found,) = QUICK.reconstruct([broken], stream(0, "x"))
    assert math.isnan(found.distance)
    assert np.isfinite(found.inputs).all()


def test_the_model_is_left_as_it_was() -> None:
    model, rows = network(), digits().take(np.arange(2))
    before, mode = parameters(model), model.training
    QUICK.reconstruct([target_of(model, parameters(model), rows)], stream(0, "x"))
    assert model.training == mode
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
    assert all(value.grad is None for value in model.parameters())


def test_total_variation_by_hand_and_for_any_number_of_channels() -> None:
    image = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    stack = torch.stack([image, torch.zeros_like(image)])[None]
    # image: height 0, width 1; the other is flat; averaged over the two of the batch
    assert _total_variation(stack).item() == pytest.approx(0.5)
    assert _total_variation(stack.expand(-1, -1, 3, -1, -1)).item() == pytest.approx(0.5)
    assert _total_variation(torch.cat([stack, stack])).item() == pytest.approx(1.0)
    assert _total_variation(torch.rand(1, 2, 1, 1, 4)).isfinite()
    assert _total_variation(torch.rand(1, 2, 7)).item() == 0


def test_colour_images_and_vectors_are_both_inverted() -> None:
    for shape in ((3, 4, 4), (12,)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 10))
        inputs = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
        rows = Examples(inputs=inputs, targets=np.array([4]), ids=np.array([0]))
        target = target_of(model, parameters(model), rows)
        (found,) = InvertingGradients(tv=0.0).reconstruct([target], stream(0, "x"))
        assert psnr(squared_errors(found.inputs, inputs))[0, 0] > 30


# --- the probe -----------------------------------------------------------------------------------------------------


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


# --- summaries -----------------------------------------------------------------------------------------------------


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
