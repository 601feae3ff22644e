"""What tests of saturation share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedmem.estimation.saturation import SaturationZone
from fedmem.studies.comparison import Comparison
from fedmem.studies.quantities import Quantity, Series
from tests.labelling import labels


def compared(values: Sequence[Sequence[float]], zone: SaturationZone, level: str = "global") -> Comparison:
    """Two settings over the seeds of these values, in one quantity."""
    quantity = Quantity(
        metric="exposure", labels=labels(), kind="canary", level=level, title="exposure", unit="bits", headline=True
    )
    array = np.array(values)
    ones = np.full_like(array, 1.0)
    same: dict[str, Any] = {
        "null": ones,
        "paired_null": ones,
        "n": np.full_like(array, 9.0),
        "fpr": np.full_like(array, np.nan),
    }
    one = Series(quantity=quantity, values=array, paired=array - 1.0, rounds={1: array, 2: array}, zone=zone, **same)
    settings = tuple((("strategy.kind", name),) for name in ("fedavg", "fedmedian"))
    return Comparison(settings=settings, reference=(0, 0), seeds=tuple(range(array.shape[1])), series=(one,))


SHARP = [[8.0, 8.1, 8.2, 8.1], [7.8, 7.9, 8.0, 7.9001]]
"""Seeds whose paired difference is far from chance."""
