"""Tests of `fedmem/signals/attribute_sensitivity.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedmem.errors import ComponentError
from fedmem.signals.attribute_sensitivity import AttributeSensitivity, norm_slopes
from tests.signals.signals_helpers import Bench, gradient_norms


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(
        dataset={"kind": "synthetic", "rows": 400, "test": 100, "shape": [6]},
        model={"kind": "logistic"},
        injections=[{"kind": "mislabelled", "per_client": 2}, {"kind": "typical", "per_client": 2}],
    )


def test_slopes_of_the_norm_are_finite_differences(bench: Bench) -> None:
    params = {name: value.double() for name, value in bench.params().items()}
    x = torch.from_numpy(bench.examples.inputs).double().requires_grad_(False)
    found = norm_slopes(bench.reader._network, params, x, bench.examples.targets)
    before = gradient_norms(bench, params)
    moved = bench.examples.inputs.astype(np.float64).copy()
    moved.reshape(len(moved), -1)[:, 2] += 1e-6
    after = norms_at(bench, params, moved)
    np.testing.assert_allclose(found.reshape(len(moved), -1)[:, 2], (after - before) / 1e-6, rtol=1e-3, atol=1e-5)


def norms_at(bench: Bench, params: dict[str, torch.Tensor], inputs: Any) -> Any:
    """The closed form of logistic regression at other inputs."""
    flat = inputs.reshape(len(inputs), -1)
    logits = torch.from_numpy(flat) @ params["output.weight"].T + params["output.bias"]
    error = torch.softmax(logits, dim=1).numpy() - bench.one_hot()
    return np.linalg.norm(error, axis=1) * np.sqrt(np.square(flat).sum(axis=1) + 1)


def test_shares_of_all_columns_add_up_to_one(bench: Bench) -> None:
    context = bench.context(bench.transition(bench.params()))
    widths = (1, 2, 3)
    context.__class__ = type("Table", (context.__class__,), {"column_widths": widths})
    shares = [AttributeSensitivity(column=c).values(context)["attribute_sensitivity"] for c in range(3)]
    np.testing.assert_allclose(np.sum(shares, axis=0), 1.0, rtol=1e-12)
    assert min(share.min() for share in shares) >= 0
    with pytest.raises(ComponentError, match="there is no column 3; the table has 3, numbered from 0"):
        AttributeSensitivity(column=3).values(context)
