"""Tests of `fedmem/signals/representer.py`."""

from __future__ import annotations

import math

import numpy as np
import torch

from fedmem.signals.representer import Representer
from fedmem.training.gauss_newton import FlatModel
from tests.signals.signals_helpers import Bench


def test_values_are_terms_of_the_logits_of_the_solved_layer() -> None:
    """Over all rows, w (t − p) φᵀφ / 2λ are the logits, so that weights, sign and the bias are right."""
    bench = Bench()
    audit = bench.federation.audit
    found = bench.values(Representer(penalty=0.01), bench.params(scale=0.3))["representer"][0]
    params = {name: value.double() for name, value in bench.params(scale=0.3).items()}
    rows = np.concatenate([bench.federation.rows(0, client, 2) for client in range(5)])
    store = bench.federation.store.take(rows)

    def features(inputs: np.ndarray) -> torch.Tensor:
        flat = torch.from_numpy(inputs).double().flatten(1)
        hidden = torch.relu(flat @ params["hidden1.weight"].T + params["hidden1.bias"])
        return torch.cat([hidden, torch.ones(len(flat), 1).double()], dim=1)

    phi, labels = features(store.inputs), torch.from_numpy(store.targets)
    head = torch.zeros(4, phi.shape[1], dtype=torch.float64)

    def objective(flat: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(phi @ flat.view_as(head).T, labels) + 0.01 * flat.square().sum()

    vector = head.flatten()
    for _ in range(15):
        slope = torch.autograd.functional.jacobian(objective, vector)
        vector = vector - torch.linalg.solve(torch.autograd.functional.hessian(objective, vector), slope)
    solved = vector.view_as(head)
    own = features(bench.examples.inputs)
    p = (own @ solved.T).softmax(dim=1)[torch.arange(len(audit)), torch.from_numpy(bench.examples.targets)]
    expected = (1 - p) / (2 * 0.01 * len(rows)) * own.square().sum(dim=1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)
    assert (found > 0).all()


def test_targets_differ_for_labels_that_the_network_does_not_give() -> None:
    """With a label that the network gives, right or wrong, both targets are the same. With another label, they differ.

    The network here fits what is in, so that a wrong label that is out is one that it does not give.
    """
    bench = Bench(model={"kind": "mlp", "hidden": [64]})
    rows = np.concatenate([bench.federation.rows(0, client, 2) for client in range(5)])
    store = bench.federation.store.take(rows)
    inputs, labels = torch.from_numpy(store.inputs).double(), torch.from_numpy(store.targets)
    model = FlatModel(bench.reader._network, bench.params(scale=0.2))
    vector, velocity = model.vector.clone(), torch.zeros_like(model.vector)
    for _ in range(500):
        leaf = vector.requires_grad_()
        loss = torch.nn.functional.cross_entropy(model.outputs(leaf, inputs), labels)
        velocity = 0.9 * velocity + torch.autograd.grad(loss, leaf)[0]
        vector = (leaf - 0.3 * velocity).detach()
    assert float(loss) < 0.01
    shapes = {name: value.shape for name, value in bench.federation.initial.items()}
    parts = torch.split(vector, [shape.numel() for shape in shapes.values()])
    params = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
    audit = bench.federation.audit
    is_wrong, is_in = audit.kind == "mislabelled", audit.is_in[0]
    by_labels = bench.values(Representer(), params)["representer"][0]
    by_model = bench.values(Representer(target="model"), params)["representer"][0]
    np.testing.assert_allclose(by_model[is_wrong & is_in], by_labels[is_wrong & is_in], rtol=0.2)
    assert by_labels[is_wrong & ~is_in].min() > 5 * by_model[is_wrong & ~is_in].max()
    assert (by_labels > 0).all()
    assert by_model[is_wrong & ~is_in].min() < 0


def test_clients_read_their_own_examples_and_diverged_models_none() -> None:
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
