"""Tests of `fedmem/signals/adversarial_distance.py`."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fedmem.signals.adversarial_distance import AdversarialDistance, changes_of_answer
from tests.signals.signals_helpers import Bench


def test_is_exact_for_linear_logits() -> None:
    bench = Bench(model={"kind": "logistic"})
    params = bench.params()
    found = bench.values(AdversarialDistance(), params)["adversarial_distance"][0]
    weight, bias = (params[f"output.{name}"].double().numpy() for name in ("weight", "bias"))
    x = bench.examples.inputs.reshape(len(bench.examples), -1).astype(np.float64)
    logits = x @ weight.T + bias
    for row, z in enumerate(logits):
        answer = z.argmax()
        others = [c for c in range(len(z)) if c != answer]
        expected = min((z[answer] - z[c]) / np.linalg.norm(weight[answer] - weight[c]) for c in others)
        np.testing.assert_allclose(found[row], expected, rtol=1e-9)


def test_a_change_of_that_length_changes_the_answer_of_a_network() -> None:
    bench = Bench(model={"kind": "mlp", "hidden": [8]})
    params = bench.params()
    found = bench.values(AdversarialDistance(), params)["adversarial_distance"][0]
    function, x = bench.context(bench.transition(params)).function(0), torch.from_numpy(bench.examples.inputs).double()
    change = changes_of_answer(function, x, 50, 10)
    np.testing.assert_allclose(change.flatten(1).norm(dim=1), found)
    answer = function(x).argmax(1)
    assert (function(x + 1.02 * change).argmax(1) != answer).all()
    assert (function(x + 0.8 * change).argmax(1) == answer).all()


def test_is_at_most_two_percent_shorter_than_the_smallest_change() -> None:
    """A step that ends just before the boundary crosses it when it is tried 2 % longer: no strict upper bound."""

    def bent(x: Tensor) -> Tensor:
        return torch.cat([(1 - x) * (1.1 - 0.1 * x), 0 * x], dim=1)

    distance = torch.linspace(0.05, 2.0, 300).double()[:, None]
    ratio = changes_of_answer(bent, 1 - distance, 50, 2).abs() / distance
    assert 1 / 1.02 <= ratio.min() < 0.99
    assert ratio.max() <= 1 + 1e-9


def test_steps_follow_a_bent_boundary_and_give_up_in_time() -> None:
    def bent(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0] + 0.1 * x[:, 0].square(), torch.zeros_like(x[:, 0])], dim=1)

    def flat(x: Tensor) -> Tensor:
        return torch.stack([1.0 + 0 * x[:, 0], 0 * x[:, 0]], dim=1)

    # the first step goes 5.5 of 8
    x = torch.tensor([[8.0, 0.0]]).double()
    found = changes_of_answer(bent, x, 50, 2)[0]
    assert -8.0 <= found[0] < -8.0 / 1.02
    assert found[1] == 0
    assert changes_of_answer(bent, x, 1, 2).isnan().all()
    assert changes_of_answer(flat, x, 50, 2).isnan().all()


def test_ties_are_at_the_boundary_and_diverged_models_nowhere() -> None:
    bench = Bench(model={"kind": "logistic"})
    params = bench.params(scale=0.0)
    assert (bench.values(AdversarialDistance(), params)["adversarial_distance"] == 0).all()
    params["output.bias"][:] = math.nan
    assert np.isnan(bench.values(AdversarialDistance(), params)["adversarial_distance"]).all()


def test_a_value_does_not_depend_on_the_rows_beside_it() -> None:
    bench = Bench(model={"kind": "mlp", "hidden": [8]})
    function = bench.context(bench.transition(bench.params())).function(0)
    x = torch.from_numpy(bench.examples.inputs).double()
    alone = torch.cat([changes_of_answer(function, x[row : row + 1], 50, 10) for row in range(4)])
    np.testing.assert_allclose(changes_of_answer(function, x[:4], 50, 10), alone, rtol=1e-10)
