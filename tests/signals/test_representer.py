"""Tests of `fedmem/signals/representer.py`."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch

from fedmem.signals._influence_targets import InfluenceTargets
from fedmem.signals.representer import Representer
from tests.signals.signals_helpers import Bench


@pytest.mark.parametrize("target", ["labels", "model"])
def test_values_are_terms_of_the_logits_of_the_solved_layer(target: Literal["labels", "model"]) -> None:
    """Values are w (t − p) φᵀφ / 2λ after Newton's method, with labels or the network's own probabilities as t."""
    bench = Bench()
    audit = bench.federation.audit
    both = bench.values(Representer(target=target, penalty=0.01, targets=6), bench.params(scale=0.3))
    found, on = both["representer"][0], both["representer_on"][0]
    params = {name: value.double() for name, value in bench.params(scale=0.3).items()}
    rows = np.concatenate([bench.federation.rows(0, client, 2) for client in range(5)])
    store = bench.federation.store.take(rows)

    def features(inputs: np.ndarray) -> torch.Tensor:
        flat = torch.from_numpy(inputs).double().flatten(1)
        hidden = torch.relu(flat @ params["hidden1.weight"].T + params["hidden1.bias"])
        return torch.cat([hidden, torch.ones(len(flat), 1).double()], dim=1)

    def targets(phi: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        if target == "labels":
            return torch.nn.functional.one_hot(torch.from_numpy(labels), 4).double()
        weight = torch.cat([params["output.weight"], params["output.bias"][:, None]], dim=1)
        return (phi @ weight.T).softmax(dim=1)

    phi = features(store.inputs)
    wanted = targets(phi, store.targets)
    head = torch.zeros(4, phi.shape[1], dtype=torch.float64)

    def objective(flat: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(phi @ flat.view_as(head).T, wanted) + 0.01 * flat.square().sum()

    vector = head.flatten()
    for _ in range(15):
        slope = torch.autograd.functional.jacobian(objective, vector)  # type: ignore[no-untyped-call]
        vector = vector - torch.linalg.solve(torch.autograd.functional.hessian(objective, vector), slope)  # type: ignore[no-untyped-call]
    solved = vector.view_as(head)
    own = features(bench.examples.inputs)
    errors = targets(own, bench.examples.targets) - (own @ solved.T).softmax(dim=1)
    of_label = errors[torch.arange(len(audit)), torch.from_numpy(bench.examples.targets)]
    expected = of_label / (2 * 0.01 * len(rows)) * own.square().sum(dim=1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6, atol=1e-9)
    others = InfluenceTargets.draw(bench.federation, 6).examples(bench.federation)
    theirs, labels = features(others.inputs), torch.from_numpy(others.targets)
    terms = errors[:, labels] * (own @ theirs.T) / (2 * 0.01 * len(rows))
    np.testing.assert_allclose(on, terms.numpy(), rtol=1e-6, atol=1e-9)
    # the terms of all training rows sum to the logit of the label
    of_rows = (wanted - (phi @ solved.T).softmax(dim=1))[:, labels] * (phi @ theirs.T) / (2 * 0.01 * len(rows))
    logits = (theirs @ solved.T)[torch.arange(len(labels)), labels]
    np.testing.assert_allclose(of_rows.sum(dim=0).numpy(), logits.numpy(), rtol=1e-6, atol=1e-9)
    assert (found > 0).all() == (target == "labels"), "a label that the network does not give has a negative share"


def test_clients_read_their_own_examples() -> None:
    bench = Bench()
    params = bench.params(scale=0.3)
    context = bench.context(bench.transition(params, level="local", client=1))
    found = Representer().values(context)["representer"][0]
    assert (np.isfinite(found) == (bench.federation.audit.owner == 1)).all()
    params["hidden1.bias"][0] = math.nan
    assert np.isnan(bench.values(Representer(), params)["representer"]).all()


def test_only_a_clients_own_layer_may_be_personal() -> None:
    assert Representer().reads_training
    assert not Representer(levels=("local",)).reads_training
