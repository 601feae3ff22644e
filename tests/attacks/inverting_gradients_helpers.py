"""What tests of inverting gradients share."""

from __future__ import annotations

import numpy as np

from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.seeding import stream

QUICK = InvertingGradients(steps=40)


def streams(count: int) -> list[np.random.Generator]:
    return [stream(0, "x", client=t) for t in range(count)]
