"""Tests of `fedmem/probes/copying.py`."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

import fedmem
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import Measurement
from fedmem.errors import ScenarioError
from fedmem.federation import build as federations
from fedmem.modalities.images import Images
from fedmem.probes.copying import Copying
from tests.banks import coins
from tests.tiny import tiny

CLIENTS, EACH, RUNS = 3, 8, 8


class Gallery(nn.Module):
    """A sampler that returns random images of those that are its weights."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(count, 1, 4, 4))

    def sample(self, count: int, generator: Generator) -> Tensor:
        return self.rows[torch.randint(len(self.rows), (count,), generator=generator)]


def rows_of(images: FloatArray) -> Examples:
    count = len(images)
    return Examples(inputs=images.astype(np.float32), targets=np.zeros(count, np.int64), ids=np.arange(count))


def bank(seed: int, *, memorises: bool, **fields: Any) -> list[Measurement]:
    """The summary of a federation whose models return rows that their place trained on, or fresh rows."""
    rng = np.random.default_rng(seed)
    count = CLIENTS * EACH
    is_in = coins(RUNS, count, rng)
    images, owner = rng.random((count, 1, 4, 4)), np.repeat(np.arange(CLIENTS), EACH)
    audit = AuditSet(
        examples=rows_of(images),
        kind=np.full(count, "typical"),
        role=np.full(count, "typical"),
        owner=owner.astype(np.int32),
        copies=np.ones(count, np.int32),
        is_in=is_in,
    )
    federation: Any = SimpleNamespace(audit=audit, modality=Images(), test=rows_of(images[:1]), model=Gallery(40))
    context: Any = SimpleNamespace(federation=federation, stream=lambda purpose: np.random.default_rng(len(purpose)))
    probe, measurements = Copying(samples=60, **fields), []
    for run in range(RUNS):
        for client in (-1, *range(CLIENTS)):
            held = is_in[run] & ((owner == client) | (client < 0))
            drawn = np.resize(images[held], (40, 1, 4, 4)) if memorises else rng.random((40, 1, 4, 4))
            one = transition(run, client, drawn)
            measurements += [
                Measurement(run=run, round=1, level=one.level, client=client, source="copying", reading=reading)
                for _, reading in probe.observe([one], context)
            ]
    return [one for one in probe.summarise(measurements, 0) if one.round is None]


def transition(run: int, client: int, drawn: FloatArray) -> Transition:
    kept = {"rows": torch.from_numpy(drawn.astype(np.float32))}
    level: Any = "global" if client < 0 else "local"
    return Transition(run=run, round=1, level=level, client=client, before=kept, sent=kept, kept=kept, num_examples=1)


def value(summary: list[Measurement], metric: str, level: str, statistic: str = "") -> tuple[float, float, float]:
    (found,) = (
        one.reading
        for one in summary
        if (one.reading.metric, one.level, one.reading.labels.text("statistic")) == (metric, level, statistic)
    )
    return found.value, found.low, found.high


@pytest.mark.parametrize("cells", [1, 2])
@pytest.mark.parametrize("level", ["local", "global"])
def test_a_memorising_sampler_is_found_by_in_minus_out(level: str, cells: int) -> None:
    summary = bank(0, memorises=True, cells=cells)
    assert value(summary, "authenticity", level)[0] == 0
    assert value(summary, "authenticity", level, "out")[0] > 0.3
    gain, _, high = value(summary, "authenticity_gain", level)
    assert gain < high < 0
    assert value(summary, "data_copying", level)[0] < -2
    gain, _, high = value(summary, "data_copying_gain", level)
    assert gain < -3
    assert high < 0


def test_a_fresh_sampler_has_no_difference() -> None:
    found = [bank(seed, memorises=False) for seed in range(16)]
    for level in ("local", "global"):
        for metric in ("data_copying_gain", "authenticity_gain"):
            triples = np.array([value(summary, metric, level) for summary in found])
            covered = (triples[:, 1] <= 0) & (triples[:, 2] >= 0)
            assert covered.sum() >= 13
            assert abs(triples[:, 0].mean()) < 3.5 * triples[:, 0].std(ddof=1) / 4


def test_samples_are_of_the_model_that_is_kept_and_of_one_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[float, int]] = []

    def draw(network: Any, params: Any, *others: Any) -> FloatArray:
        drawn.append((float(params["rows"].mean()), others[-1].initial_seed()))
        return np.zeros((3, 1, 4, 4))

    monkeypatch.setattr("fedmem.training.sampling.draw_samples", draw)
    real = transition

    def trained(run: int, client: int, rows: FloatArray) -> Transition:
        one = real(run, client, np.full((1, 1, 4, 4), 0.25))
        return replace(one, before={"rows": torch.zeros(1)}, sent={"rows": torch.ones(1)})

    monkeypatch.setitem(globals(), "transition", trained)
    bank(0, memorises=False)
    assert len(drawn) == RUNS * (CLIENTS + 1)
    assert len(set(drawn)) == 1
    assert drawn[0][0] == 0.25


def test_diverged_models_have_no_reading() -> None:
    audit: BoolArray = np.ones((1, 2), dtype=bool)
    federation: Any = SimpleNamespace(
        audit=AuditSet(
            examples=rows_of(np.zeros((2, 1, 4, 4))),
            kind=np.full(2, "typical"),
            role=np.full(2, "typical"),
            owner=np.zeros(2, np.int32),
            copies=np.ones(2, np.int32),
            is_in=audit,
        ),
        modality=Images(),
        test=rows_of(np.zeros((1, 1, 4, 4))),
        model=Gallery(1),
    )
    context: Any = SimpleNamespace(federation=federation, stream=lambda purpose: np.random.default_rng(0))
    assert Copying().observe([transition(0, -1, np.full((1, 1, 4, 4), np.nan))], context) == []
    both = [one for _, one in Copying().observe([transition(0, -1, np.ones((1, 1, 4, 4)))], context)]
    assert all(np.isnan(one.value) for one in both), "nothing is held out"


def test_a_client_without_examples_has_no_reading() -> None:
    federation: Any = SimpleNamespace(
        audit=AuditSet(
            examples=rows_of(np.zeros((2, 1, 4, 4))),
            kind=np.full(2, "typical"),
            role=np.full(2, "typical"),
            owner=np.zeros(2, np.int32),
            copies=np.ones(2, np.int32),
            is_in=np.array([[True, False]]),
        ),
        modality=Images(),
        test=rows_of(np.zeros((1, 1, 4, 4))),
        model=Gallery(1),
    )
    context: Any = SimpleNamespace(federation=federation, stream=lambda purpose: np.random.default_rng(0))
    counts = [len(Copying().observe([transition(0, k, np.ones((1, 1, 4, 4)))], context)) for k in (-1, 0, 1)]
    assert counts == [4, 4, 0]


@pytest.mark.slow
def test_a_run_has_it_by_place_and_kind(tmp_path: Any) -> None:
    scenario = tiny(
        runs=4,
        rounds=2,
        dataset={"kind": "pixels", "levels": 3, "side": 2},
        model={"kind": "transformer", "width": 4, "heads": 1, "layers": 1},
        injections=[{"kind": "typical", "per_client": 4}],
        probes=[{"kind": "copying", "samples": 20}],
        signals=[{"kind": "log_density"}, {"kind": "sample_distance", "samples": 20}],
        estimators=[{"kind": "membership", "attack": {"kind": "nearest_sample", "calibrated": False}}],
    )
    rows = [row for row in fedmem.read(fedmem.run(scenario, out=tmp_path)).rows() if row.run is None]
    found = {(row.level, row.reading.metric) for row in rows if row.round is None and row.reading.subject == "typical"}
    names = ("data_copying", "authenticity_gain", "sample_distance", "log_density_gain", "auc")
    assert {(level, name) for level in ("local", "global") for name in names} <= found


def test_classifiers_are_refused() -> None:
    with pytest.raises(ScenarioError, match="copying draws samples of the models, but mlp is no generative"):
        federations.build(tiny(probes=[{"kind": "copying"}]))
