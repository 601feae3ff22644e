"""What tests of datasets share."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.data import Dataset, Examples


def everything(data: Dataset) -> Examples:
    """All rows in order of id."""
    rows = Examples.concatenate([data.train, data.test])
    return rows.take(np.argsort(rows.ids))
