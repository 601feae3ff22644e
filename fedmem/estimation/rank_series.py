"""Exposure of canaries at every observed round of a place."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import View
from fedmem.contracts.measurement import NO_CLIENT


def exposures_of(view: View) -> FloatArray | None:
    """(S, R, m) exposure in bits at the aggregate or at the owners, NaN where there is no rank; None without canaries.

    The rank is 1 + smaller + ties / 2 among the references, as in `View.rank`.
    """
    series = view.series
    if series is None or view.ranked is None or not view.references.any():
        return None
    bits = np.full((len(series.rounds), view.audit.runs, len(view.audit)), np.nan)
    position_of = {number: position for position, number in enumerate(series.rounds.tolist())}
    for ranks in view.ranked.blocks:
        if ranks.round not in position_of:
            continue
        is_theirs = (ranks.client == NO_CLIENT)[:, None] | (ranks.client[:, None] == series.client[0, ranks.subjects])
        model, column = np.nonzero(is_theirs & (ranks.less >= 0))
        rank = 1.0 + ranks.less[model, column] + 0.5 * ranks.ties[model, column]
        where = position_of[ranks.round], ranks.run[model], ranks.subjects[column]
        bits[where] = np.log2((ranks.count + 1) / rank)
    bits[np.broadcast_to(~series.observed[:, 0][:, None], bits.shape)] = np.nan
    bits[:, series.is_hidden] = np.nan
    return bits
