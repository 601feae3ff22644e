"""Noise by which models of densities estimate in evaluation: the same for all models, runs, seeds and scenarios."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedmem.seeding import stream

if TYPE_CHECKING:
    from torch import Tensor


def shared_noise(purpose: str, *shape: int) -> Tensor:
    """Standard normal numbers of a named stream, float32. A larger first axis begins with the rows of a smaller one.

    The seed of the scenario does not enter, nor what was drawn before. Two models are thus compared by the same noise.
    What it adds to both cancels; the rest is an error that all runs have in common.

    >>> shared_noise("latent values", 2, 3).equal(shared_noise("latent values", 4, 3)[:2])
    True
    """
    import torch

    values = stream(0, f"shared noise of {purpose}").standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32))
