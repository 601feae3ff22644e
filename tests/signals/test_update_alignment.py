"""Tests of `fedmem/signals/update_alignment.py`."""

from __future__ import annotations

import numpy as np
import torch
from torch.func import functional_call

from fedmem.contracts.arrays import Params
from fedmem.modalities.loss import example_losses
from fedmem.signals.update_alignment import UpdateAlignment
from tests.signals.signals_helpers import Bench


def gradient(bench: Bench, params: Params, row: int) -> Params:
    leaves = {name: value.double().clone().requires_grad_() for name, value in params.items()}
    outputs = functional_call(
        bench.reader._network, leaves, (torch.from_numpy(bench.examples.inputs[row : row + 1]).double(),)
    )
    loss = example_losses(outputs, torch.from_numpy(bench.examples.targets[row : row + 1])).sum()
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def test_a_step_down_an_examples_gradient_is_aligned_with_it() -> None:
    bench = Bench()
    before = bench.params()
    slope = gradient(bench, before, 3)
    sent = {name: (value.double() - 0.1 * slope[name]).float() for name, value in before.items()}
    context = bench.context(bench.transition(sent, before=before, level="local", client=0))
    found = UpdateAlignment().values(context)
    assert found["update_alignment"][0, 3] > 0.9999
    assert found["update_alignment"][0].argmax() == 3
    square = sum(float(part.square().sum()) for part in slope.values())
    np.testing.assert_allclose(found["update_descent"][0, 3], 0.1 * square, rtol=1e-4)
    ascent = {name: (value.double() + 0.1 * slope[name]).float() for name, value in before.items()}
    opposite = UpdateAlignment().values(bench.context(bench.transition(ascent, before=before)))
    assert opposite["update_alignment"][0, 3] < -0.9999


def test_equals_inner_products_of_a_loop() -> None:
    bench = Bench()
    before, sent = bench.params(1), bench.params(2)
    found = UpdateAlignment().values(bench.context(bench.transition(sent, before=before)))
    step = torch.cat([(sent[name].double() - before[name].double()).flatten() for name in before])
    for row in range(0, len(bench.examples), 5):
        flat = torch.cat([part.flatten() for part in gradient(bench, before, row).values()])
        np.testing.assert_allclose(found["update_descent"][0, row], -float(flat @ step), rtol=1e-9)
        cosine = -float(flat @ step / flat.norm() / step.norm())
        np.testing.assert_allclose(found["update_alignment"][0, row], cosine, rtol=1e-9)


def test_no_update_and_no_round_have_no_direction() -> None:
    bench = Bench()
    params = bench.params()
    still = UpdateAlignment().values(bench.context(bench.transition(params)))
    start = UpdateAlignment().values(bench.context(bench.transition(params, before=bench.params(1), round_number=0)))
    assert np.isnan(still["update_alignment"]).all()
    assert np.isnan(start["update_alignment"]).all()


def test_personal_layers_are_no_part_of_the_gradient() -> None:
    bench = Bench(model={"kind": "mlp", "hidden": [8]}, client={"kind": "fedper", "lr": 0.3})
    before, row = bench.params(1), 2
    slope = gradient(bench, before, row)
    context = bench.context(bench.transition(before))
    assert {name.partition(".")[0] for name in before.keys() - context.sent_names} == {"output"}
    sent = {
        name: (value.double() - 0.1 * slope[name]).float() if name in context.sent_names else value
        for name, value in before.items()
    }
    found = UpdateAlignment().values(bench.context(bench.transition(sent, before=before, level="local", client=0)))
    assert found["update_alignment"][0, row] > 0.9999
