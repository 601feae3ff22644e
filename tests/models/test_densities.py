"""Tests of `fedmem/models/_densities.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import fedmem
from fedmem.contracts.events import Event, RoundFinished
from fedmem.models._densities import bernoulli_log_p, normal_log_p
from tests.reporting.test_learning_rows import printed
from tests.tiny import tiny


def test_densities_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    x, mean = rng.normal(size=(2, 3, 4))
    found = normal_log_p(torch.tensor(x), torch.tensor(mean), torch.tensor(0.3, dtype=torch.float64))
    np.testing.assert_allclose(found, np.asarray(stats.norm.logpdf(x, mean, np.exp(0.3))).sum(axis=1))
    bits, logits = (rng.random((3, 4)) < 0.5).astype(float), rng.normal(size=(3, 4))
    expected = np.asarray(stats.bernoulli.logpmf(bits, 1 / (1 + np.exp(-logits)))).sum(axis=1)
    np.testing.assert_allclose(bernoulli_log_p(torch.tensor(bits), torch.tensor(logits)), expected)


def test_sure_pixels_have_finite_log_probabilities() -> None:
    assert bernoulli_log_p(torch.zeros(1), torch.tensor([200.0])).item() == pytest.approx(-200)
    assert bernoulli_log_p(torch.ones(1), torch.tensor([torch.nan])).isnan()


def test_runs_store_log_densities_and_answer_nothing(tmp_path: Path) -> None:
    """Trained, stored and read again: the margin is the log-density, the loss minus it, and nothing is right."""
    scenario = tiny(
        runs=4,
        rounds=1,
        clients=2,
        dataset={"kind": "unlabelled", "dataset": {"kind": "digits"}},
        model={"kind": "vae", "hidden": [3], "latent": 2, "samples": 4},
        injections=[{"kind": "random_pattern", "per_client": 2}, {"kind": "typical", "per_client": 2}],
        sampler={"kind": "everyone"},
        observe={"every": 1},
        client={"kind": "sgd", "lr": 0.05, "batch_size": 200, "clip": 1.0},
        signals=[{"kind": "sample_distance", "samples": 5}],
        estimators=[{"kind": "density_memorisation"}, {"kind": "exposure"}],
        probes=[{"kind": "utility"}],
    )
    events: list[Event] = []
    run = fedmem.read(fedmem.run(scenario, out=tmp_path, listeners=[events.append]))
    evidence = run.evidence
    np.testing.assert_array_equal(evidence.loss, -evidence.margin)
    assert np.isfinite(evidence.margin).all()
    assert (evidence.margin < 0).all()
    assert evidence.correct.isna().all()
    rows = run.measurements
    assert rows[rows.metric == "test_accuracy"].value.isna().all()
    assert rows[(rows.metric == "generalisation_loss_gap") & (rows["round"] == 1)].value.notna().all()
    kinds = rows[(rows.metric == "density_memorisation") & rows["round"].isna() & (rows.place == "owner")]
    audit = evidence[(evidence.set == "audit") & (evidence.level == "local") & (evidence["round"] == 1)]
    assert len(audit)
    assert {"random_pattern", "typical"} <= set(kinds.subject)
    assert (rows[rows.metric == "sample_distance"].value > 0).all()
    test = evidence[(evidence.set == "test") & (evidence["round"] == 1)]
    for entry in run.manifest["learning"]:
        of_level = test[test.level == entry["level"]].margin
        assert entry["densities"]
        assert entry["accuracy"] == pytest.approx(of_level.mean())
        assert entry["accuracy"] < entry["constant"] < entry["independent"] < 0
        assert entry["verdict"] == "not shown"
    assert any("one distribution for all pixels" in text for text in run.manifest["warnings"])
    text = printed(run)
    assert "mean log-density in nats; n counts test examples" in text
    assert f"independent pixels 297 {entry['independent']:.2f}".replace("-", "−") in text.replace("-", "−")
    (ended,) = [event for event in events if isinstance(event, RoundFinished)]
    assert ended.accuracy is None
    assert ended.loss == pytest.approx(-test[test.level == "global"].margin.mean())
    assert str(ended).endswith(f"global loss {ended.loss:.2f} nats")


@pytest.mark.parametrize("model", [{"kind": "vae", "latent": 2}, {"kind": "diffusion", "steps": 5, "samples": 5}])
def test_samples_of_every_model_can_be_judged(tmp_path: Path, model: dict[str, object]) -> None:
    """The signal, the attack and the probes that draw samples, also where an audit set is empty."""
    shared = {
        "runs": 8,
        "rounds": 1,
        "dataset": {"kind": "unlabelled", "dataset": {"kind": "digits"}},
        "model": {**model, "hidden": [3]},
        "sampler": {"kind": "everyone"},
        "observe": {"every": 1},
        "client": {"kind": "sgd", "lr": 0.05, "batch_size": 200, "clip": 1.0},
    }
    rows = tiny(
        **shared,
        clients=2,
        injections=[{"kind": "typical", "per_client": 4}],
        signals=[{"kind": "sample_distance", "samples": 5}],
        estimators=[{"kind": "membership", "attack": {"kind": "nearest_sample"}}],
        probes=[{"kind": "copying", "samples": 10}],
    )
    run = fedmem.read(fedmem.run(rows, out=tmp_path / "rows"))
    found = run.measurements
    assert {"sample_distance", "auc", "data_copying", "authenticity"} <= set(found.metric)
    assert (run.evidence["margin"] < 0).all()
    clients = tiny(
        **shared,
        clients=3,
        leave_out={"clients": "all"},
        injections=[],
        estimators=[],
        signals=[],
        probes=[{"kind": "client_resemblance", "samples": 10}],
    )
    found = fedmem.read(fedmem.run(clients, out=tmp_path / "clients")).measurements
    assert found[found.metric == "resemblance_gain"].value.notna().all()
