"""The likelihood ratio attack, with the runs of a scenario as one another's shadow models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals

_FLOOR = 1e-12
"""Smallest variance, in nats squared. Identical runs say nothing about spread, and a score must stay finite."""


@dataclass(frozen=True, kw_only=True)
class Lira:
    """Online LiRA, leave one run out (Carlini, Chien, Nasr, Song, Terzis and Tramèr, 2022).

    The score of run r and example j is log N(φ; μ_in, σ_in²) − log N(φ; μ_out, σ_out²), φ = log p_y − log Σ_{c≠y} p_c.
    Run r is the target and the other R − 1 runs are the shadow runs. The target enters neither the means of j nor any
    variance, of whatever example. Shadows share the roster and the initial model of the target, which makes this a
    strong adversary. Scores are in nats, unbounded, float64; higher means member.

    A squared deviation from a mean of n shadows is divided by σ²(1 + 1/n), its expectation, and not by σ². A target
    that is in has one shadow less on that side, which alone makes its deviation larger. Undivided, the AUC without any
    memorisation would be 0.475 at 8 runs and 0.497 at 32, and lower still for averages over models.

    - signed: an unusually low margin speaks against membership (a distance from the outs would call it a member). Far
      outside both groups the larger of the two variances decides, as in every ratio of two normal densities;
    - a pooled σ is *within* examples. Squared deviations from each example's own mean are summed over the examples that
      were passed together. The sum is divided by their degrees of freedom, n − 1 for each example;
    - NaN where the margin is NaN, where nothing is left on one side without the target, or, per example, fewer than
      two values;
    - identical margins give the score 0, never an infinity: variances are at least 1e-12;
    - compare scores of all examples of a kind at once, never of one example. The means that the scores of one example
      share pull its own AUC below one half (0.44 at 32 runs without any memorisation).

    Fields:
        variance: `pooled` over examples, `per_example`, or `auto`: pooled below 64 runs, where single ones are noise.

    >>> margin = np.array([[3.0, 0.2], [0.1, 2.9], [2.8, 0.0], [0.0, 3.1], [3.2, 0.1], [0.2, 3.0]])
    >>> is_in = margin > 1
    >>> scores = Lira().scores(Signals(margin=margin, is_in=is_in))
    >>> bool(scores[is_in].min() > 0 > scores[~is_in].max())
    True
    """

    title: ClassVar[str] = "LiRA"
    legend: ClassVar[str] = (
        "likelihood-ratio attack: distinguishes members from others by shadow runs, which are the other runs. So the "
        "side of the attacked run has one run fewer, and AUC without memorisation may lie a little below 0.5"
    )
    precedence: ClassVar[int] = 0
    knows: ClassVar[str] = (
        "margins of shadow federations with the same participation schedule, half with and half without the example"
    )
    min_runs: ClassVar[int] = 8
    densities: ClassVar[bool] = True
    counts_groups: ClassVar[bool] = True

    variance: Literal["auto", "pooled", "per_example"] = "auto"

    def scores(self, signals: Signals) -> FloatArray:
        """Log likelihood ratios (R, m) from margins (R, m) and coins (R, m)."""
        margin, is_measured = signals.margin, ~np.isnan(signals.margin)
        # Measured from the first value seen: a column of equal margins becomes exact zeros, and its scores exact ties.
        first = margin[is_measured.argmax(0), np.arange(margin.shape[1])]
        value = np.where(is_measured, margin - first, 0.0)
        pooled = self.variance == "pooled" or (self.variance == "auto" and len(margin) < 64)
        ratio = _log_density(value, is_measured & signals.is_in, pooled) - _log_density(
            value, is_measured & ~signals.is_in, pooled
        )
        return np.where(is_measured, ratio, np.nan)


def _log_density(value: FloatArray, group: BoolArray, pooled: bool) -> FloatArray:
    """log N(value; μ, σ²) up to a constant, (R, m), with μ and σ from the runs in `group` without the row's own run."""
    count = group.sum(0)
    mean = np.where(group, value, 0.0).sum(0) / np.maximum(count, 1)
    deviation = np.where(group, value - mean, 0.0)
    rest = count - group  # (R, m): what is left when the run of the row goes
    # Taking one value out of n moves the mean by -d/(n-1) and lowers the sum of squares by d²n/(n-1).
    mean_left = mean - deviation / np.maximum(rest, 1)
    squares = (deviation**2).sum(0) - deviation**2 * count / np.maximum(rest, 1)
    squares = np.where(rest > 0, np.maximum(squares, 0.0), 0.0)
    freedom = np.maximum(rest - 1, 0)
    if pooled:
        squares, freedom = squares.sum(1, keepdims=True), freedom.sum(1, keepdims=True)
    is_defined = (rest > 0) & (freedom > 0)
    variance = np.maximum(squares / np.maximum(freedom, 1), _FLOOR)
    standard = (value - mean_left) ** 2 / (variance * (1 + 1 / np.maximum(rest, 1)))
    return np.where(is_defined, -0.5 * (np.log(variance) + standard), np.nan)
