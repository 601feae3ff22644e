"""The values of an update are rounded to a few levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from fedmem.contracts.arrays import Params
from fedmem.contracts.defence import Draws


@dataclass(frozen=True, kw_only=True)
class Quantise:
    """Each value of a parameter becomes one of `-s, ..., -1, 0, 1, ..., s` times `r / s`, with `s = 2^(bits - 1) - 1`.

    `r` is the largest magnitude in that parameter (`scale: max`) or its L2 norm (`scale: norm`, QSGD), sent along
    unrounded. With `x = s |u| / r`, the level is `floor(x)`, or one more:

    - `stochastic`: with probability `x - floor(x)`, so that the mean over the draws is u;
    - `nearest`: where `x - floor(x) >= 1 / 2`: the smallest error, but the same way every time, so that values below
      half a step are never sent.

    Averaging stochastically quantised updates is FedPAQ. Client `top_k` and this compose.

    Guarantees:

    - stochastic rounding is unbiased, with a variance of at most (r / 2 s)^2 for each value;
    - with `scale: max` the largest value stays as it is; zeros stay zeros, and so does a parameter of zeros;
    - draws come from a stream of the run, the round and the client.

    Fields:
        bits: for each value, its sign included; 2 is ternary.
        rounding: `stochastic` or `nearest`.
        scale: `max` or `norm`.

    >>> import torch
    >>> coarse = Quantise(bits=2, rounding="nearest")
    >>> coarse.apply({"w": torch.tensor([0.9, -1.0, 0.4])}, {})["w"].tolist()
    [1.0, -1.0, 0.0]

    Reference: Alistarh et al. (2017), QSGD; Reisizadeh et al. (2020), FedPAQ.
    """

    bits: Annotated[int, Ge(2), Le(16)] = 4
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    scale: Literal["max", "norm"] = "max"

    @property
    def draws(self) -> Draws:
        """Uniform where rounding is stochastic."""
        return "uniform" if self.rounding == "stochastic" else "none"

    def apply(self, update: Params, drawn: Params) -> Params:
        """Round every parameter separately."""
        import torch

        levels = 2 ** (self.bits - 1) - 1
        quantised_update: Params = {}
        for name, value in update.items():
            size = value.abs()
            reach = size.amax() if self.scale == "max" else value.double().square().sum().sqrt().to(value.dtype)
            # where all is zero, so is the result, whatever it is divided by
            x = size / torch.where(reach == 0, torch.ones_like(reach), reach) * levels
            low = x.floor()
            up = drawn[name] < x - low if self.rounding == "stochastic" else x - low >= 0.5
            quantised_update[name] = value.sign() * (low + up) * (reach / levels)
        return quantised_update
