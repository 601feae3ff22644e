"""Tests of `fedmem/probes/stepwise_tracin.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

import fedmem
from fedmem.contracts.arrays import Params
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import Labels, Measurement, Reading
from fedmem.probes.stepwise_tracin import StepwiseTracIn
from tests.observation.replay_helpers import looked_at
from tests.tiny import tiny

UNEQUAL = {"kind": "sgd", "lr": 2e-4, "epochs": 2, "batch_size": 7}


@pytest.mark.slow
def test_agrees_with_leaving_out_with_unequal_batches(tmp_path: Path) -> None:
    """As rates become small; the checkpoint form does not, since a row in a smaller batch counts for more."""
    scenario = tiny(
        runs=2,
        rounds=1,
        bootstrap=20,
        model={"kind": "logistic"},
        client=UNEQUAL,
        observe={"every": 1, "levels": ["local", "global"]},
        probes=[{"kind": "leave_one_out"}, {"kind": "stepwise_tracin", "max_examples": None}],
        signals=[{"kind": "tracin"}],
    )
    run = fedmem.read(fedmem.run(scenario, out=tmp_path))
    rows = run.measurements[run.measurements.scope == "run"]
    keys = ["run", "client", "subject"]
    for level in ("local", "global"):
        of_level = rows[rows.level == level].astype({"subject": int})
        found, truth = (
            of_level[of_level.metric == name].set_index(keys).value.sort_index()
            for name in ("stepwise_tracin", "participation_loss")
        )
        assert found.index.equals(truth.index)
        assert len(found) > 5
        np.testing.assert_allclose(found, truth, rtol=0.03, atol=3e-6)
        signals = run.signals[(run.signals.name == "tracin") & (run.signals["round"] == 1)]
        checkpoint = signals[signals.level == level].set_index(keys).value.loc[list(found.index)]
        assert np.abs(checkpoint / truth - 1).max() > 0.1
    summary = run.measurements[(run.measurements.metric == "stepwise_tracin") & (run.measurements.scope == "summary")]
    assert (summary.value > 0).all()


def test_equals_a_loop_over_steps() -> None:
    """A loop over the steps of a client, with long steps, two epochs and a smaller last batch."""
    seen: list[float] = []

    def look(transition: Transition, context: Any) -> None:
        if not transition.round or len(seen) > 3:
            return
        federation, audit = context.federation, context.federation.audit
        found = {
            int(reading.subject): reading.value
            for _, reading in StepwiseTracIn(max_examples=None).observe([transition], context)
        }
        batches, _ = context.batches_and_payload(transition)
        network = federation.model
        for subject, value in found.items():
            (row,) = np.unique(federation.trained_rows[audit.subject == subject])
            example = audit.examples.take(np.array([subject]))
            expected = 0.0
            for step, batch in enumerate(batches):
                if row in batch:
                    model = transition.before if step == 0 else context.steps(transition, step)
                    expected += 0.3 / (batch >= 0).sum() * inner(network.double(), model, transition.before, example)
            network.float()
            assert value == pytest.approx(expected, rel=1e-4)
            seen.append(value)

    looked_at(
        tiny(runs=2, rounds=1, observe={"every": 1}, client={"kind": "sgd", "lr": 0.3, "epochs": 2, "batch_size": 8}),
        look,
    )
    assert len(seen) > 3


def inner(network: nn.Module, one: Params, other: Params, example: Examples) -> float:
    """The inner product of the gradients of one example at two models."""

    def gradient(params: Params) -> torch.Tensor:
        leaves = {name: value.double().requires_grad_() for name, value in params.items()}
        outputs = functional_call(network, leaves, (torch.from_numpy(example.inputs).double(),))
        loss = functional.cross_entropy(outputs, torch.from_numpy(example.targets))
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(leaves.values()))])

    return float(gradient(one) @ gradient(other))


def test_summaries_are_means_over_runs_by_kind() -> None:
    def of(run: int, number: int, value: float, kind: str = "typical") -> Measurement:
        labels = Labels.of(owner=0, kind=kind)
        reading = Reading(metric="stepwise_tracin", value=value, subject="3", labels=labels)
        return Measurement(run=run, round=number, level="local", client=0, source="stepwise_tracin", reading=reading)

    rows = [of(0, 1, 1.0), of(1, 1, 3.0), of(0, 2, 8.0), of(0, 1, 5.0, "mislabelled")]
    found = {
        (row.round, row.reading.subject): (row.reading.value, row.reading.n)
        for row in StepwiseTracIn().summarise(rows, 0)
    }
    assert found[1, "typical"] == (2.0, 2)
    assert found[None, "typical"] == (4.0, 3)
    assert found[None, "mislabelled"] == (5.0, 1)
    assert not StepwiseTracIn().summarise([], 0)
