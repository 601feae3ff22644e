"""Whether the numbers of a model are finite: one NaN of one client makes the whole aggregate NaN."""

from __future__ import annotations

import torch
from torch import Tensor

from fedmem.contracts.arrays import Params


def is_finite(values: Params) -> Tensor:
    """Whether all values are finite, as a tensor, so that it can be mapped over a stack.

    >>> bool(is_finite({"w": torch.tensor([1.0, float("nan")])}))
    False
    """
    return torch.stack([value.isfinite().all() for value in values.values()]).all()


def finite_models(models: Params) -> Tensor:
    """Which of T models (T, ...) are finite, as booleans (T,).

    >>> finite_models({"w": torch.tensor([[1.0, 2.0], [float("inf"), 0.0]])}).tolist()
    [True, False]
    """
    flat = [value.reshape(len(value), -1) for value in models.values()]
    # A sum reads each array once and is finite where all values are, unless it overflows; then each value is checked.
    if all(value.sum(dim=1).isfinite().all() for value in flat):
        return torch.ones(len(flat[0]), dtype=torch.bool)
    return torch.stack([value.isfinite().all(dim=1) for value in flat]).all(dim=0)


def not_finite(params: Params) -> str | None:
    """Why a strategy cannot use this model of a client, None where it can.

    >>> not_finite({"w": torch.tensor([1.0, 2.0])}) is None
    True
    >>> not_finite({"w": torch.tensor([1.0, float("inf")])})
    "its model is not finite: 1 of 2 values of 'w' are NaN or infinite"
    """
    for name, value in params.items():
        count = int((~torch.isfinite(value)).sum())
        if count:
            return f"its model is not finite: {count} of {value.numel()} values of {name!r} are NaN or infinite"
    return None
