from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.clients.sgd import Sgd
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import Measurement, Reading
from fedmem.probes.information import Information, pointwise_information
from tests.lab import Lab, federation, measured, parameters
from tests.labelling import labels


def softmax_lab(seed: int = 0) -> Lab:
    """The lab with a linear model, one step of all rows: the update is exactly a mean gradient."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    built = replace(federation(), model=model, initial=parameters(model))
    return Lab(federation=built, client=Sgd(lr=0.1, steps=1, batch_size=100))


def closed_form(lab: Lab, transition: Transition, subject: int) -> tuple[float, float]:
    """Sensitivity and alignment of softmax regression: h = (p - y) [x, 1]', and its derivative by each pixel."""
    store, rows = lab.federation.store, lab.rows(transition.run, transition.client)
    weight, bias = (transition.before[f"1.{name}"].double().numpy() for name in ("weight", "bias"))

    def slope(x: Any, y: int) -> tuple[Any, Any]:
        logits = weight @ x + bias
        p = np.exp(logits - np.logaddexp.reduce(logits))
        return p, p - np.eye(10)[y]

    flat = store.inputs.reshape(len(store), -1).astype(np.float64)
    whole = np.zeros((10, 65))
    for row in rows:
        _, error = slope(flat[row], int(store.targets[row]))
        whole += np.outer(error, [*flat[row], 1.0]) / len(rows)
    audit = lab.federation.audit.examples
    x = audit.inputs[subject].reshape(-1).astype(np.float64)
    p, error = slope(x, int(audit.targets[subject]))
    own = np.outer(error, [*x, 1.0])
    spread = np.diag(p) - np.outer(p, p)
    square = 0.0
    for pixel in range(64):
        moved = np.outer(spread @ weight[:, pixel], [*x, 1.0])
        moved[:, pixel] += error
        square += float(np.square(moved).sum())
    length = float(np.linalg.norm(whole))
    alignment = float((whole * own).sum()) / (length * float(np.linalg.norm(own)))
    return math.sqrt(square) / (len(rows) * length), alignment


def test_both_are_their_closed_form_for_softmax_regression() -> None:
    lab = softmax_lab()
    local = lab.local(runs=(0, 1), clients=(0, 1))
    readings = Information(directions=64).observe(local, lab)
    seen = 0
    for about, reading in readings:
        sensitivity, alignment = closed_form(lab, about, int(reading.subject))
        expected = {"sensitivity": sensitivity, "alignment": alignment}[reading.metric]
        assert reading.value == pytest.approx(expected, rel=2e-4)
        assert reading.labels.has(labels("claim=proxy view=message"))
        assert reading.labels.get("layer") == "1"
        is_in = lab.federation.audit.is_in[about.run, int(reading.subject)]
        assert is_in != (reading.labels.get("coin") == "out")
        assert is_in or reading.metric == "alignment"
        seen += 1
    assert seen > 10


def test_random_directions_estimate_the_norm_without_bias() -> None:
    lab = softmax_lab()
    local = lab.local(runs=(0,), clients=(0,))
    squares = []
    for seed in range(40):
        lab.seed = seed
        found = Information(directions=8).observe(local, lab)
        squares.append([reading.value**2 for _, reading in found if reading.metric == "sensitivity"])
    lab.seed = 0
    exact = [r.value**2 for _, r in Information(directions=64).observe(local, lab) if r.metric == "sensitivity"]
    assert np.std(squares, axis=0).max() > 0
    assert np.mean(squares, axis=0) == pytest.approx(exact, rel=0.1)


def test_sensitivity_falls_in_larger_sums_and_is_per_layer() -> None:
    lab = Lab(client=Sgd(lr=0.1, steps=1, batch_size=100))
    local = lab.local()
    alone = Information(victims=3).observe(local, lab)
    together = Information(victims=3).observe(lab.aggregated(local), lab)
    assert {r.labels.get("layer") for _, r in alone} == {"1", "3"}

    def by_place(readings: Any) -> dict[tuple[int, str, str], float]:
        return {(t.run, r.subject, r.labels.get("layer")): r.value for t, r in readings if r.metric == "sensitivity"}

    first, second = by_place(alone), by_place(together)
    assert first.keys() == second.keys()
    assert all(second[place] < first[place] for place in first)


def test_zero_update_gives_nan_and_no_information() -> None:
    lab = Lab()
    still = [replace(t, sent=t.before, kept=t.before) for t in lab.local(runs=(0,))]
    readings = [r for _, r in Information().observe(still, lab)]
    assert readings
    assert all(math.isnan(r.value) for r in readings)
    summary = Information().summarise(measured([(still[0], r) for r in readings]), 0)
    assert not [m for m in summary if m.reading.metric == "usable_information"], "no value, no information"
    assert {m.reading.n for m in summary} == {0}
    assert all(math.isnan(m.reading.value) for m in summary)


def test_example_without_gradient_is_skipped_in_the_mean() -> None:
    """As where all units of a layer are off for it."""
    lab = Lab()
    local = lab.local(runs=(0, 1))
    readings = list(Information().observe(local, lab))
    whole = Information().summarise(measured(readings), 0)
    lost = next(r for _, r in readings if r.metric == "alignment" and "coin" not in r.labels)
    kind = lost.labels.get("kind")
    spoilt = [(t, replace(r, value=math.nan) if r is lost else r) for t, r in readings]
    for before, after in zip(whole, Information().summarise(measured(spoilt), 0), strict=True):
        assert math.isfinite(after.reading.value)
        hit = before.reading.metric.startswith("alignment") and before.reading.subject == kind
        hit = hit and "coin" not in before.reading.labels and before.reading.labels.get("layer") == "1"
        if before.reading.metric != "usable_information":
            assert after.reading.n == before.reading.n - hit


def coins_and_values(separation: float, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(seed)
    runs, owners = (axis.ravel() for axis in np.indices((16, 30)))
    coins = rng.permuted(np.tile(np.arange(30) % 2 == 0, (16, 1)), axis=1).ravel()
    values = rng.normal(size=len(coins)) + separation * (coins - 0.5)
    return values, coins, owners, runs


def test_usable_information_is_that_of_two_normals() -> None:
    """Two normals at a distance d: 1 - E log2(1 + exp(-d (d/2 + z))) bits by the best predictor, which is logistic."""
    z = np.random.default_rng(1).normal(size=200_000)
    for separation in (1.0, 3.0):
        expected = 1 - np.logaddexp(0, -separation * (separation / 2 + z)).mean() / math.log(2)
        bits, kept = pointwise_information(*coins_and_values(separation))
        assert kept.all()
        assert bits.mean() == pytest.approx(expected, abs=0.06)
    none, _ = pointwise_information(*coins_and_values(0.0))
    assert none.mean() == pytest.approx(0, abs=0.02)
    values, coins, owners, runs = coins_and_values(3.0)
    shuffled, _ = pointwise_information(values, np.random.default_rng(2).permutation(coins), owners, runs)
    assert shuffled.mean() < 0.05
    bits, kept = pointwise_information(values, coins, owners, np.zeros_like(runs))
    assert not kept.any()
    assert np.isnan(bits).all()


def test_summaries_have_means_differences_and_usable_information() -> None:
    values, coins, owners, runs = coins_and_values(3.0)
    said = "claim=proxy view=message knows=lr layer=1"
    rows = [
        Measurement(
            run=int(run), round=2, level="local", client=int(owner), source="information",
            reading=Reading(
                metric="alignment", value=float(value), subject="1",
                labels=labels(f"{said} kind=typical", owner=int(owner), coin=None if coin else "out"),
            ),
        )
        for value, coin, owner, run in zip(values, coins, owners, runs, strict=True)
    ]  # fmt: skip
    found = {(m.round, m.reading.metric): m.reading for m in Information().summarise(rows, 0)}
    assert found[None, "alignment.difference"].value == pytest.approx(3.0, abs=0.3)
    bits = found[2, "usable_information"]
    assert bits.labels == labels(said)
    assert (bits.n, bits.subject) == (480, "typical")
    assert 0.5 < bits.low < bits.value < bits.high < 1.0
    assert found[None, "usable_information"].value == bits.value
