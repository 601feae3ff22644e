"""What tests of newton share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from fedmem.contracts.attack import GradientTarget
from fedmem.contracts.data import Examples
from fedmem.seeding import stream
from tests.lab import digits, parameters, target_of


def streams(count: int) -> list[np.random.Generator]:
    return [stream(0, "x", client=t) for t in range(count)]


def targets(model: nn.Module, sizes: Sequence[int]) -> tuple[list[GradientTarget], list[Examples]]:
    rows = [digits().take(np.arange(10 * i, 10 * i + n)) for i, n in enumerate(sizes)]
    return [target_of(model, parameters(model), one) for one in rows], rows
