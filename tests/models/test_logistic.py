"""Tests of `fedmem/models/logistic.py`."""

from __future__ import annotations

import torch

from fedmem.models.logistic import Logistic


def test_logistic_is_a_linear_model_that_does_not_start_at_zero() -> None:
    module = Logistic().build((2, 3), 4)
    assert [tuple(p.shape) for p in module.parameters()] == [(4, 6), (4,)]
    rows = torch.rand(5, 2, 3)
    expected = rows.flatten(1) @ module.get_parameter("output.weight").T + module.get_parameter("output.bias")
    torch.testing.assert_close(module(rows), expected)
    assert module.get_parameter("output.weight").std() > 0
