"""Tests of `fedmem/training/updates.py`."""

from __future__ import annotations

import pytest
import torch

from fedmem.training.updates import clip_update, flatten, prune_update, unflatten

UPDATE = {"w": torch.tensor([[3.0, 0.0], [0.0, -4.0]]), "b": torch.tensor([12.0])}


@pytest.mark.parametrize(("bound", "factor"), [(13.0, 1.0), (20.0, 1.0), (6.5, 0.5)])
def test_clipping_scales_all_parameters_by_one_factor(bound: float, factor: float) -> None:
    # the norm of (3, -4, 12) is 13
    for name, value in clip_update(UPDATE, bound).items():
        torch.testing.assert_close(value, factor * UPDATE[name])


def test_clipped_zero_stays_zero_and_no_norm_overflows() -> None:
    assert clip_update({"w": torch.zeros(3)}, 1.0)["w"].tolist() == [0.0] * 3
    assert float(clip_update({"w": torch.full((2,), 1e30)}, 1.0)["w"].norm()) == pytest.approx(1.0)


def test_pruning_by_parameter_and_of_the_whole_update_differ() -> None:
    update = {"a": torch.tensor([1.0, 2.0, 3.0, 4.0]), "b": torch.tensor([-10.0, 20.0, 30.0, 40.0])}
    single, whole = prune_update(update, 0.5), prune_update(update, 0.5, whole=True)
    assert single["a"].tolist() == [0, 0, 3, 4]
    assert single["b"].tolist() == [0, 0, 30, 40]
    assert whole["a"].tolist() == [0, 0, 0, 0]
    assert whole["b"].tolist() == [-10, 20, 30, 40]


def test_pruning_keeps_nan_and_drops_the_first_of_ties() -> None:
    row = torch.tensor([float("nan"), 1.0, -1.0, 1.0])
    assert str(prune_update({"w": row}, 0.5)["w"].tolist()) == "[nan, 0.0, 0.0, 1.0]"


def test_parted_inverts_flat_with_shapes_and_types() -> None:
    like = {"a": torch.arange(6, dtype=torch.float64).reshape(2, 3), "b": torch.ones(1, dtype=torch.float32)}
    again = unflatten(flatten(like), like)
    for name, value in like.items():
        assert again[name].dtype == value.dtype
        assert torch.equal(again[name], value)
