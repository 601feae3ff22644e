"""Utility against memorisation by the aggregate: which settings no other beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.studies.contrasts import Contrast, Mean, bound_interval, contrast, find_dominating, mean_of
from fedmem.studies.quantities import Quantity, Series

FAR_LESS = 0.75
"""The share of what the best setting learns below which a setting learns far less."""


@dataclass(frozen=True, kw_only=True)
class Trade:
    """A setting between utility and one measure; `better` is a setting that has more of one and no less of the other.

    A measure below its value without memorisation counts as that value, since there is no less than none. Where nulls
    of settings differ, the largest one counts.

    `sure` says whether that setting is significantly better in both, adjusted over all pairs of settings and all kinds
    of this measure. For a setting on the front, `rival` is another setting that is significantly better in one and not
    significantly worse in the other. It is −1 where there is none. `saturated` says that the measure is at its end.
    `learns_less` says that a setting learns less than three quarters of the most that any learns. Learning is the mean
    utility above that of the most frequent answer. Where that answer is not stored, it is the mean utility. A model
    that has learnt little memorises little, so such a setting may be on the front for want of learning.
    """

    quantity: Quantity
    setting: int
    use: Mean
    harm: Mean
    better: int
    sure: bool
    rival: int = -1
    saturated: bool = False
    learns_less: bool = False


def trades_of(use: Series, harm: Series, level: float, constant: FloatArray | None = None) -> list[Trade]:
    """Each setting in utility and one measure, over the seeds of which every setting has both.

    `level` is that of each test of a difference. A setting without any such seed is no trade. `constant` (settings,
    seeds) is the utility of always giving the most frequent answer; NaN where it is not stored.
    """
    both = ~(np.isnan(use.values) | np.isnan(harm.values))
    shared: BoolArray = np.asarray(both[both.any(axis=1)].all(axis=0))
    uses, harms = (
        [bound_interval(mean_of(values[shared]), *series.quantity.range) for values in series.values]
        for series in (use, harm)
    )
    nulls = [mean_of(null[shared]).value for null in harm.null]
    # nothing is less than no memorisation; fmax passes over settings without a null
    floor = float(np.fmax.reduce([-math.inf, *nulls]))
    floored = np.maximum([mean.value for mean in harms], floor)
    best = find_dominating(np.array([mean.value for mean in uses]), floored)
    candidates = [place for place in range(len(uses)) if not math.isnan(uses[place].value + harms[place].value)]
    learnt = _learnt([mean.value for mean in uses], None if constant is None else constant[:, shared], candidates)
    max_learnt = max((learnt[setting] for setting in candidates), default=math.nan)
    trades = []
    for setting in candidates:
        better = best[setting]
        sure = better >= 0 and all(
            difference.p < level and difference.value > 0
            for difference in (_contrast(use, better, setting, shared), _contrast(harm, setting, better, shared))
        )
        rivals = [
            other
            for other in candidates
            if better < 0
            and other != setting
            and _is_rival(
                _contrast(use, other, setting, shared),
                None if floored[other] == floored[setting] else _contrast(harm, setting, other, shared),
                level,
            )
        ]
        trades.append(
            Trade(
                quantity=harm.quantity,
                setting=setting,
                use=uses[setting],
                harm=harms[setting],
                better=better,
                sure=sure,
                rival=max(rivals, key=lambda other: uses[other].value, default=-1),
                saturated=harm.zone.holds(harms[setting].value),
                learns_less=learnt[setting] < FAR_LESS * max_learnt and max_learnt > 0,
            )
        )
    return trades


def _learnt(uses: Sequence[float], constant: FloatArray | None, candidates: Sequence[int]) -> list[float]:
    """The mean utility of settings above that of the most frequent answer, if every candidate has one in every seed."""
    if constant is None or np.isnan(constant[list(candidates)]).any():
        return list(uses)
    return [use - float(of_setting.mean()) for use, of_setting in zip(uses, constant, strict=True)]


def _contrast(series: Series, first: int, second: int, seeds: BoolArray) -> Contrast:
    """First − second over these seeds."""
    return contrast(series.values[first][seeds], series.values[second][seeds])


def _is_rival(more_use: Contrast, less_harm: Contrast | None, level: float) -> bool:
    """Whether another setting is significantly better in one and not significantly worse in the other.

    Both differences are above 0 where the other setting is better. Without a difference of harm, both have none.
    """
    signs = [0 if one is None or not one.p < level else 1 if one.value > 0 else -1 for one in (more_use, less_harm)]
    return max(signs) > 0 and min(signs) >= 0


def by_means(*, is_tested: bool) -> str:
    """How settings come to be on a front.

    >>> by_means(is_tested=False)
    'by means, not tested'
    """
    return "by means, significant or not" if is_tested else "by means, not tested"
