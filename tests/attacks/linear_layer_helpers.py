"""What tests of linear layer share."""

from __future__ import annotations

import numpy as np

from fedmem.attacks.linear_layer import LinearLayer
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.contracts.data import Examples

RNG = np.random.default_rng(0)


def attacked(target: GradientTarget) -> Reconstruction:
    (found,) = LinearLayer().reconstruct([target], [RNG])
    return found


def errors(found: Reconstruction, rows: Examples) -> FloatArray:
    """(m, n) largest difference between any pixel of an image found and of a true one."""
    apart: FloatArray = np.abs(found.inputs[:, None].astype(np.float64) - rows.inputs[None])
    out: FloatArray = np.max(apart.reshape(len(found.inputs), len(rows), -1), axis=2)
    return out
