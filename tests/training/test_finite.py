"""Tests of `fedmem/training/finite.py`."""

from __future__ import annotations

import pytest
import torch

from fedmem.training.finite import finite_models, is_finite, not_finite


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_value_of_any_parameter_marks_its_model_only(bad: float) -> None:
    models = {"a": torch.zeros(3, 2), "b": torch.zeros(3, 2, 2)}
    assert finite_models(models).tolist() == [True] * 3
    models["b"][1, 1, 0] = bad
    assert finite_models(models).tolist() == [True, False, True]
    assert torch.vmap(is_finite)(models).tolist() == [True, False, True]


def test_model_whose_sum_overflows_is_finite() -> None:
    large = torch.full((2, 4), torch.finfo(torch.float32).max)
    assert finite_models({"a": large}).tolist() == [True, True]
    large[1, 0] = float("nan")
    assert finite_models({"a": large}).tolist() == [True, False]


def test_reason_names_the_first_bad_parameter_and_counts_values() -> None:
    params = {"a": torch.zeros(3), "b": torch.tensor([1.0, float("nan"), float("inf")])}
    assert not_finite(params) == "its model is not finite: 2 of 3 values of 'b' are NaN or infinite"
    assert not_finite({"a": params["a"]}) is None
