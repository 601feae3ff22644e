"""Tests of `fedmem/probes/client_resemblance.py`."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fedmem
from fedmem.contracts.data import Dataset
from fedmem.contracts.measurement import Measurement
from fedmem.errors import ComponentError, ScenarioError
from fedmem.modalities.images import Images
from fedmem.probes._clusters import mean_interval
from fedmem.probes.client_resemblance import (
    ClientResemblance,
    gain_readings,
    gains_of_clients,
    gallery_accuracy,
    shares_of_clients,
)
from fedmem.reporting.sections import sections
from fedmem.reporting.summary import Summary
from tests.banks import coins
from tests.probes.test_copying import Gallery, rows_of, transition
from tests.tiny import tiny

CLIENTS, ROWS, RUNS = 6, 5, 8
PIXELS: dict[str, Any] = {
    "runs": 4,
    "rounds": 2,
    "dataset": {"kind": "pixels", "levels": 3, "side": 2},
    "model": {"kind": "transformer", "width": 4, "heads": 1, "layers": 1},
    "injections": [{"kind": "typical"}],
    "probes": [{"kind": "client_resemblance", "samples": 20}],
}


def federation_of(seed: int) -> Any:
    """Clients whose base rows are uniform noise, each in half of the runs."""
    rng = np.random.default_rng(seed)
    images = rng.random((CLIENTS * ROWS, 1, 4, 4))
    return SimpleNamespace(
        audit=SimpleNamespace(client_in=coins(RUNS, CLIENTS, rng)),
        modality=Images(),
        test=rows_of(images[:1]),
        store=rows_of(images),
        base=[np.arange(ROWS * k, ROWS * (k + 1)) for k in range(CLIENTS)],
        num_clients=CLIENTS,
        model=Gallery(60),
    )


def summary(seed: int, *, memorises: bool) -> tuple[dict[tuple[str, str], tuple[float, float, float]], Any]:
    """The values of the summary, of models that return base rows of clients that are in, or fresh rows."""
    federation, rng = federation_of(seed), np.random.default_rng(seed + 1000)
    context: Any = SimpleNamespace(federation=federation, stream=lambda purpose: np.random.default_rng(len(purpose)))
    probe, measurements = ClientResemblance(samples=300), []
    images = federation.store.inputs.reshape(CLIENTS, ROWS, 1, 4, 4)
    for run in range(RUNS):
        of_present = images[federation.audit.client_in[run]].reshape(-1, 1, 4, 4)
        drawn = np.resize(of_present, (60, 1, 4, 4)) if memorises else rng.random((60, 1, 4, 4))
        measurements += [
            Measurement(run=run, round=1, level="global", client=-1, source="probe", reading=reading)
            for _, reading in probe.observe([transition(run, -1, drawn)], context)
        ]
    found = [one.reading for one in probe.summarise(measurements, 0) if one.round is None]
    values = {(one.metric, one.labels.text("statistic")): (one.value, one.low, one.high) for one in found}
    return values, federation


def test_a_memorising_sampler_resembles_the_clients_in() -> None:
    values, federation = summary(0, memorises=True)
    assert values["resemblance", "out"][0] == 0
    per_run = federation.audit.client_in.sum(axis=1)
    expected = (per_run > 0).sum() / per_run.sum()
    assert values["resemblance", ""][0] == pytest.approx(expected)
    gain, low, _ = values["resemblance_gain", ""]
    assert gain == pytest.approx(expected)
    assert low > 0


@dataclass(frozen=True)
class Strangers:
    """Images of six people whom no client has; the first rows are those of clients where `copied`."""

    copied: bool = False
    people: int = 6

    def load(self, rng: np.random.Generator) -> Dataset:
        images = np.random.default_rng(77).random((self.people * ROWS, 1, 4, 4))
        if self.copied:
            images[:ROWS] = federation_of(0).store.inputs[:ROWS]
        rows = rows_of(images)
        natural = np.repeat(np.arange(self.people), ROWS)
        return Dataset(train=rows, test=rows, num_classes=1, modality=Images(), natural=natural)


def local_summary(seed: int, *, memorises: bool) -> dict[tuple[str, str, str, str], Any]:
    """Values by level, metric, statistic and matching, where each model returns rows of its clients or fresh ones."""
    federation, rng = federation_of(seed), np.random.default_rng(seed + 1000)
    context: Any = SimpleNamespace(federation=federation, stream=lambda purpose: np.random.default_rng(len(purpose)))
    probe, measurements = ClientResemblance(samples=60, levels=("local", "global"), identities=Strangers()), []
    images = federation.store.inputs.reshape(CLIENTS, ROWS, 1, 4, 4)
    for run in range(RUNS):
        present = federation.audit.client_in[run]
        for client in (-1, *np.flatnonzero(present).tolist()):
            own = images[present] if client < 0 else images[client]
            drawn = np.resize(own.reshape(-1, 1, 4, 4), (60, 1, 4, 4)) if memorises else rng.random((60, 1, 4, 4))
            one = transition(run, client, drawn)
            measurements += [
                Measurement(run=run, round=1, level=one.level, client=client, source="probe", reading=reading)
                for _, reading in probe.observe([one], context)
            ]
    found = [one for one in probe.summarise(measurements, 0) if one.round is None]
    return {
        (
            one.level,
            one.reading.metric,
            one.reading.labels.text("statistic"),
            one.reading.labels.text("matching"),
        ): one.reading
        for one in found
    }


@pytest.mark.parametrize("matching", ["", "verifier"])
def test_owning_clients_that_memorise_are_found(matching: str) -> None:
    found = local_summary(0, memorises=True)
    assert found["local", "resemblance", "", matching].value == 1
    assert found["local", "resemblance", "out", matching].value == 0
    assert found["local", "resemblance_gain", "", matching].value == 1
    assert found["global", "resemblance_gain", "", matching].low > 0
    assert found["global", "resemblance_gain.p", "", matching].value <= 0.05
    assert ("local", "resemblance_gain.p", "", matching) not in found


def test_fresh_samples_have_no_gain_by_a_verifier() -> None:
    gains: list[Any] = []
    for seed in range(6):
        found = local_summary(seed, memorises=False)
        gains += [found[level, "resemblance_gain", "", "verifier"] for level in ("local", "global")]
    assert abs(np.mean([gain.value for gain in gains])) < 0.01
    assert sum(gain.low <= 0 <= gain.high for gain in gains) >= 10
    by_verifier, by_pixels = (found["global", "resemblance", "", matching].value for matching in ("verifier", ""))
    assert by_verifier != by_pixels
    blind = found["global", "verifier_accuracy", "", "verifier"]
    by_chance = found["global", "verifier_accuracy", "chance", "verifier"].value
    assert blind.low <= by_chance == pytest.approx((ROWS - 1) / (3 * ROWS - 1))
    assert found["global", "verifier_accuracy", "pixels", "verifier"].n == 6


@pytest.mark.parametrize(
    ("identities", "words"),
    [(Strangers(copied=True), "rows of identity 0 are rows of clients"), (Strangers(people=3), "needs 4")],
)
def test_identities_that_do_not_serve_are_refused(identities: Any, words: str) -> None:
    context: Any = SimpleNamespace(federation=federation_of(0), stream=lambda purpose: np.random.default_rng(0))
    with pytest.raises(ComponentError, match=words):
        ClientResemblance(rows=ROWS, identities=identities).observe([], context)


def test_a_fresh_sampler_has_no_difference() -> None:
    triples = np.array([summary(seed, memorises=False)[0]["resemblance_gain", ""] for seed in range(16)])
    assert ((triples[:, 1] <= 0) & (triples[:, 2] >= 0)).sum() >= 13
    assert abs(triples[:, 0].mean()) < 3.5 * triples[:, 0].std(ddof=1) / 4


def bank_of_shares(seed: int, effect: float, runs: int = 8, clients: int = 5) -> tuple[Any, Any]:
    """Shares (R, N) of 200 samples by clients that are common or rare, more by `effect` in runs with them."""
    rng = np.random.default_rng(seed)
    present = coins(runs, clients, rng)
    weights = rng.dirichlet(np.full(clients, 2.0)) * (1 + effect * present)
    weights *= np.exp(0.2 * rng.standard_normal(weights.shape))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.stack([rng.multinomial(200, row) for row in weights]) / 200, present


def test_gain_is_the_mean_over_clients() -> None:
    shares = np.array([[0.5, 0.1, 0.4], [0.3, 0.3, np.nan], [0.9, 0.1, 0.4]])
    present = np.array([[True, False, True], [False, True, True], [True, True, True]])
    assert gains_of_clients(shares, present)[:2].tolist() == pytest.approx([0.4, 0.1])
    assert np.isnan(gains_of_clients(shares, present)[2])  # there are no runs without it
    gain, p = gain_readings("gain", shares, present, 0)
    assert gain.value == pytest.approx(0.25)
    assert (gain.n, p.n) == (6, 999)


def test_common_clients_do_not_widen_the_interval() -> None:
    """Of two banks with one noise, the one whose clients are equally common has no narrower interval."""
    shares, present = bank_of_shares(0, 0.5)
    shift = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    first, second = (gain_readings("gain", values, present, 0)[0] for values in (shares, shares + shift))
    assert (second.value, second.low, second.high) == pytest.approx((first.value, first.low, first.high))


def test_a_doubled_share_is_found_in_eight_runs() -> None:
    found = [gain_readings("gain", *bank_of_shares(seed, 1.0), 0) for seed in range(20)]
    assert sum(gain.low > 0 for gain, _ in found) >= 14
    assert sum(p.value <= 0.05 for _, p in found) >= 18


def test_no_effect_is_not_found() -> None:
    found = [gain_readings("gain", *bank_of_shares(seed, 0.0), 0) for seed in range(40)]
    assert sum(gain.low <= 0 <= gain.high for gain, _ in found) >= 35
    assert sum(p.value <= 0.05 for _, p in found) <= 5


def test_clients_that_differ_widen_the_interval_without_a_seed() -> None:
    """Without noise, the interval by client and by run is that of the mean over clients."""
    present = np.array([[True] * 4, [False] * 4])
    shares = np.where(present, [0.1, 0.3, 0.5, 0.9], 0.0)
    (gain,) = gain_readings("gain", np.tile(shares, (4, 1)), np.tile(present, (4, 1)), None)
    low, high = mean_interval(np.array([0.1, 0.3, 0.5, 0.9]), ["a", "b", "c", "d"])
    assert gain.value == pytest.approx(0.45)
    assert gain.low <= low + 1e-9
    assert gain.high >= min(high, 1) - 1e-9


def test_a_single_client_or_equal_shares_have_no_interval() -> None:
    shares, present = bank_of_shares(0, 0.0)
    (alone, _) = gain_readings("gain", shares[:, :1], present[:, :1], 0)
    assert np.isnan([alone.low, alone.high]).all()
    equal, p = gain_readings("gain", np.full((8, 5), 0.2), present, 0)
    assert equal.value == pytest.approx(0)
    assert np.isnan([equal.low, equal.high]).all()
    assert p.value == 1
    assert gain_readings("gain", shares, np.ones_like(present), 0) == []


def test_gallery_without_identity_is_at_chance() -> None:
    found = [summary(seed, memorises=False)[0]["gallery_accuracy", ""][0] for seed in range(30)]
    chance = (ROWS - 1) / (CLIENTS * ROWS - 1)
    assert np.mean(found) == pytest.approx(chance, abs=0.04)
    apart = np.abs(np.subtract.outer([0.0, 0.1, 5.0, 5.1], [0.0, 0.1, 5.0, 5.1]))
    assert gallery_accuracy(apart, np.array([0, 0, 1, 1])) == 1
    assert gallery_accuracy(apart, np.array([0, 1, 0, 1])) == 0
    assert np.isnan(gallery_accuracy(np.zeros((1, 1)), np.array([0])))


def test_equally_near_rows_share_a_sample() -> None:
    distances = np.array([[0.5, 0.5, 0.5, 0.9]])
    assert shares_of_clients(distances, np.array([0, 0, 1, 1]), 2).tolist() == pytest.approx([2 / 3, 1 / 3])
    assert gallery_accuracy(np.zeros((4, 4)), np.array([0, 0, 1, 1])) == pytest.approx(1 / 3)


def test_empty_clients_and_broken_models_are_decided() -> None:
    federation = federation_of(0)
    context: Any = SimpleNamespace(federation=federation, stream=lambda purpose: np.random.default_rng(0))
    assert ClientResemblance().observe([transition(0, -1, np.full((60, 1, 4, 4), np.nan))], context) == []
    federation.base[2] = np.array([], dtype=np.int64)
    with pytest.raises(ComponentError, match="client 2 has no base rows"):
        ClientResemblance().observe([transition(0, -1, np.zeros((60, 1, 4, 4)))], context)


def test_scenarios_in_which_nobody_is_left_out_are_refused() -> None:
    with pytest.raises(ScenarioError, match="client_resemblance compares runs with and without a client"):
        tiny(**PIXELS)


@pytest.mark.slow
def test_a_run_has_it(tmp_path: Any) -> None:
    people, strangers = (
        {"kind": "pixels", "levels": 5, "side": 4, "images": {"kind": "digits", "forms": forms, "test": 10}}
        for forms in (list(range(8)), list(range(8, 13)))
    )
    probe = {"kind": "client_resemblance", "samples": 20, "identities": strangers}
    parts = {"dataset": people, "injections": [], "probes": [probe]}
    run = fedmem.read(fedmem.run(tiny(**{**PIXELS, **parts}, leave_out={"clients": "all"}), out=tmp_path))
    rows = [row for row in run.rows() if row.run is None and row.round is None]
    found = {(row.reading.metric, row.reading.labels.text("statistic")) for row in rows}
    assert {("resemblance", ""), ("resemblance", "out"), ("resemblance_gain", ""), ("gallery_accuracy", "")} <= found
    (others,) = [section for section in sections(Summary(run)) if section.title == "OTHER MEASURES"]
    names = "\n".join(name for _, block in others.blocks for name, *_ in block)
    assert "samples that resemble a client, in − out, verifier" in names
    for control in ("verifier", "verifier, pixels", "verifier, chance"):
        assert f"rows of strangers that are matched with their own identity, {control}\n" in f"{names}\n"
