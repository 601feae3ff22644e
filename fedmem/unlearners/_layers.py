"""Arithmetic on models, entry by entry, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedmem.contracts.arrays import Params

if TYPE_CHECKING:
    from torch import Tensor


def add(model: Params, step: Mapping[str, Tensor], factor: float = 1.0) -> Params:
    """`model + factor * step`, computed in float64 and rounded as the model is; entries without a step stay.

    >>> import torch
    >>> add({"w": torch.tensor([1.0]), "mean": torch.tensor([5.0])}, {"w": torch.tensor([2.0])}, 0.5)
    {'w': tensor([2.]), 'mean': tensor([5.])}
    """
    return {
        name: (value.double() + factor * step[name].double()).to(value.dtype) if name in step else value
        for name, value in model.items()
    }


def difference(model: Params, other: Params) -> Params:
    """`model - other` in float64."""
    return {name: value.double() - other[name].double() for name, value in model.items()}


def weighted_sum(models: Mapping[int, Params], weights: Mapping[int, float]) -> Params:
    """The sum of weight times model over clients, in float64; at least one client."""
    first, *rest = models
    total = {name: weights[first] * value.double() for name, value in models[first].items()}
    for client in rest:
        total = {name: value + weights[client] * models[client][name].double() for name, value in total.items()}
    return total


def norm(update: Mapping[str, Tensor]) -> float:
    """The L2 norm over all entries.

    >>> import torch
    >>> norm({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])})
    5.0
    """
    return float(sum(float(value.double().square().sum()) for value in update.values()) ** 0.5)
