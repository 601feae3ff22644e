"""Noise of single rows in evaluation: it follows from the values of a row, and is the same for all models and runs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fedmem.models._noise import shared_noise
from fedmem.seeding import stream

NUM_VECTORS = 1024
"""How many noise vectors there are; a power of two, so that an odd stride visits all of them."""


class RowNoise(nn.Module):
    """K noise vectors (size,) and one uniform number for each row, chosen by a hash of its values.

    A row has the same noise under all models, in all runs and in any batch. Different rows have different noise, so
    that its error averages out over rows. The hash is multilinear, Σ_d a_d q_d + b mod 2^64, with values q_d in steps
    of 2^-16. It is exact in any order of summation.

    Args:
        purpose: names the streams of the noise vectors and of the hash.
        size: entries of a row.

    >>> noise = RowNoise("an example", 3)
    >>> start, stride, uniform = noise.choices(torch.tensor([[0.0, 1.0, 0.5], [0.0, 1.0, 0.5], [1.0, 1.0, 0.5]]))
    >>> bool(start[0] == start[1]), bool(start[0] == start[2])
    (True, False)
    """

    vectors: Tensor
    multipliers: Tensor

    def __init__(self, purpose: str, size: int) -> None:
        super().__init__()
        self.register_buffer("vectors", shared_noise(purpose, NUM_VECTORS, size))
        multipliers = stream(0, f"hash of rows for {purpose}").integers(-(2**63), 2**63, size + 1, dtype=np.int64)
        self.register_buffer("multipliers", torch.from_numpy(multipliers))

    def choices(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For rows (n, size) the first vector, the odd stride to the next one, and a number in [0, 1), each (n,)."""
        values = (rows.detach() * 2.0**16).round().long()
        key = (values * self.multipliers[:-1]).sum(dim=-1) + self.multipliers[-1]
        start, stride = (key >> 44) & (NUM_VECTORS - 1), (key >> 54) & (NUM_VECTORS - 1) | 1
        return start, stride, ((key >> 20) & (2**24 - 1)).to(rows.dtype) / 2**24

    def of(self, start: Tensor, stride: Tensor, numbers: Tensor) -> Tensor:
        """(b, n, size) the noise vectors with these numbers (b,) of each row."""
        return self.vectors[(start + numbers[:, None] * stride) & (NUM_VECTORS - 1)]
