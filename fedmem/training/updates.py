"""Pure functions of updates and gradients, for one client at a time or under `vmap`: norm, scale, largest values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedmem.contracts.arrays import Params

if TYPE_CHECKING:
    from torch import Tensor


def clip_update(update: Params, bound: float) -> Params:
    """`u * min(1, bound / |u|)` with the L2 norm over all parameters, in float64; zero stays zero.

    >>> import torch
    >>> clip_update({"w": torch.tensor([3.0, 4.0])}, 1.0)["w"].tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    squares = sum(value.double().square().sum() for value in update.values())
    # a norm of zero gives infinity here, hence a factor of one
    factor = (bound / squares**0.5).clamp(max=1)
    return {name: value * factor.to(value.dtype) for name, value in update.items()}


def prune_update(update: Params, share: float, *, whole: bool = False) -> Params:
    """The update with `floor(share * n)` of its n values set to zero, those of smallest magnitude.

    In each parameter alone, or in the `whole` update at once. Of equal magnitudes the one that stands first goes first;
    NaN is larger than everything, so that it is not hidden.

    >>> import torch
    >>> prune_update({"w": torch.tensor([3.0, -1.0, 2.0, 1.0])}, 0.5)["w"].tolist()
    [3.0, 0.0, 2.0, 0.0]
    """
    if not whole:
        return {
            name: _without_smallest(value.reshape(-1), share).reshape(value.shape) for name, value in update.items()
        }
    return unflatten(_without_smallest(flatten(update), share), update)


def flatten(update: Params) -> Tensor:
    """All values of an update in one row, in the order of its parameters."""
    import torch

    return torch.cat([value.reshape(-1) for value in update.values()])


def unflatten(row: Tensor, like: Params) -> Params:
    """The inverse of `flatten`: the parts of a row, in the shapes and types of `like`."""
    import torch

    parts = torch.split(row, [value.numel() for value in like.values()])
    return {
        name: part.reshape(value.shape).to(value.dtype) for (name, value), part in zip(like.items(), parts, strict=True)
    }


def _without_smallest(row: Tensor, share: float) -> Tensor:
    # 0.29 * 100 is 28.999999999999996: a product that is whole up to rounding is whole
    count = math.floor(row.numel() * share + 1e-9)
    order = row.abs().argsort(stable=True)
    return row.scatter(0, order[:count], row.new_zeros(count))
