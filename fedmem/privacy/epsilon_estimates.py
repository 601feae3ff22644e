"""Estimates of epsilon from scores that look normal: no bounds."""

from __future__ import annotations

import math

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.errors import ComponentError
from fedmem.estimation.statistics import clopper_pearson
from fedmem.privacy.accounting import gaussian_epsilon
from fedmem.privacy.epsilon_bounds import AuditedUnit, Finding, _largest_argument

FEWEST_DIMENSIONS = 100
"""From which on the cosine of a random direction is near enough to normal."""


def gaussian_estimate(
    hits: int,
    inside: int,
    false_alarms: int,
    outside: int,
    *,
    audited: AuditedUnit,
    delta: float,
    confidence: float = 0.95,
) -> Finding:
    """Epsilon if the two sides were one normal distribution, shifted: mu = Phi^-1(TPR) - Phi^-1(FPR), then its epsilon.

    Half a trial of each outcome is added, so that rates stay off 0 and 1. `low` and `high` are what the limits of
    Clopper and Pearson give. Never a bound: another mechanism with these rates may have any smaller epsilon.

    >>> whole = AuditedUnit(unit="record", adjacency="add_remove")
    >>> found = gaussian_estimate(841, 1000, 500, 1000, audited=whole, delta=1e-5)
    >>> round(found.epsilon, 1), round(found.low, 1), round(found.high, 1)
    (4.4, 3.5, 5.3)
    """
    from scipy.stats import norm

    def epsilon_at(tpr: float, fpr: float) -> float:
        return gaussian_epsilon(max(0.0, float(norm.ppf(tpr) - norm.ppf(fpr))), delta)

    def smoothed_rate(successes: int, trials: int) -> float:
        return (successes + 0.5) / (trials + 1)

    (tpr_low, tpr_high), (fpr_low, fpr_high) = (
        clopper_pearson(hits, inside, confidence),
        clopper_pearson(false_alarms, outside, confidence),
    )
    return Finding(
        epsilon=epsilon_at(smoothed_rate(hits, inside), smoothed_rate(false_alarms, outside)),
        ceiling=epsilon_at(smoothed_rate(inside, inside), smoothed_rate(0, outside)),
        claim="estimate",
        delta=delta,
        confidence=confidence,
        trials=inside + outside,
        audited=audited,
        method="normal scores",
        low=epsilon_at(tpr_low, fpr_high) if tpr_low > 0 and fpr_high < 1 else 0.0,
        high=epsilon_at(tpr_high, fpr_low) if tpr_high < 1 and fpr_low > 0 else math.inf,
    )


def one_shot(cosines: FloatArray, dimension: int, *, audited: AuditedUnit, delta: float) -> Finding:
    """Epsilon from canaries that point in random directions, all in one run (Andrew et al., 2024).

    `cosines` (k,): between the direction of each canary, uniform on the sphere, and the released sum or model. Without
    the canary a cosine is N(0, 1/d). A normal distribution is fitted to the cosines of the canaries. The estimate is
    the epsilon of these two distributions. Consistent for a single Gaussian sum; for training with many rounds it is
    what a final model shows of them. Never a bound. `low` and `high`: the smallest and largest where mean and spread
    are moved by up to two standard errors. They are far apart, since delta lies in the tails.

    Errors: `ComponentError` with fewer than two canaries, or in less than 100 dimensions, where cosines are not normal.
    """
    finite_cosines = cosines[~np.isnan(cosines)]
    if len(finite_cosines) < 2 or dimension < FEWEST_DIMENSIONS:
        raise ComponentError(
            "audit",
            f"{len(finite_cosines)} canaries in {dimension} dimensions; use at least 2 (better 100) in at least "
            f"{FEWEST_DIMENSIONS}",
        )
    # in units of the null's standard deviation
    scaled = finite_cosines * math.sqrt(dimension)
    mean, spread, count = float(scaled.mean()), float(scaled.std(ddof=1)), len(finite_cosines)
    return _of_normals(
        (mean, spread, math.sqrt(dimension)),
        2 * spread / math.sqrt(count),
        2 * spread / math.sqrt(2 * count - 2),
        audited=audited,
        delta=delta,
        trials=count,
        method=f"one shot, {dimension} dimensions",
    )


def two_shots(inside: FloatArray, outside: FloatArray, *, audited: AuditedUnit, delta: float) -> Finding:
    """`one_shot` from the largest cosine over several releases, with canaries (k,) and with fresh directions (n,).

    The largest of several cosines has no simple distribution by chance. So a normal distribution is fitted to either
    side. `low` and `high` move the difference of means, and the ratio of spreads, by two standard errors. Never a
    bound. Errors: `ComponentError` with fewer than two on a side.
    """
    canary_cosines, fresh = inside[~np.isnan(inside)], outside[~np.isnan(outside)]
    if min(len(canary_cosines), len(fresh)) < 2 or np.ptp(fresh) == 0:
        raise ComponentError(
            "audit",
            f"{len(canary_cosines)} canaries and {len(fresh)} fresh directions; use at least 2 of each, not all alike",
        )
    null, unit = float(fresh.mean()), float(fresh.std(ddof=1))
    mean, spread = (float(canary_cosines.mean()) - null) / unit, float(canary_cosines.std(ddof=1)) / unit
    errors = 1 / (2 * len(canary_cosines) - 2) + 1 / (2 * len(fresh) - 2)
    return _of_normals(
        (mean, spread, (1 - null) / unit),
        2 * math.sqrt(spread**2 / len(canary_cosines) + 1 / len(fresh)),
        2 * spread * math.sqrt(errors),
        audited=audited,
        delta=delta,
        trials=len(canary_cosines),
        method=f"one shot, largest of several releases, {len(fresh)} fresh directions",
    )


def _of_normals(
    fitted: tuple[float, float, float],
    off: float,
    wide: float,
    *,
    audited: AuditedUnit,
    delta: float,
    trials: int,
    method: str,
) -> Finding:
    """The estimate from mean, spread and the largest possible mean, in units of the null; `off`, `wide`: two errors."""
    mean, spread, max_mean = fitted
    # epsilon is smallest for two normal distributions of equal spread, so 1 is looked at where it is possible
    spreads = {spread - wide, spread + wide, min(max(1.0, spread - wide), spread + wide)}
    near = [
        normal_epsilon(max(centre, 0.0), max(around, 0.0), delta)
        for centre in (mean - off, mean + off)
        for around in spreads
    ]
    return Finding(
        epsilon=normal_epsilon(max(mean, 0.0), spread, delta),
        ceiling=normal_epsilon(max_mean, spread, delta),
        claim="estimate",
        delta=delta,
        confidence=math.nan,
        trials=trials,
        audited=audited,
        method=method,
        low=min(near),
        high=max(near),
    )


def normal_epsilon(mean: float, spread: float, delta: float) -> float:
    """The smallest epsilon at `delta` between N(mean, spread^2) and N(0, 1), the larger of both directions.

    >>> round(normal_epsilon(1.0, 1.0, 1e-5), 2)
    4.38
    """
    if spread == 0:
        return math.inf if delta < 1 else 0.0
    normal = (mean, spread)
    return _largest_argument(
        lambda epsilon: max(_excess(normal, (0.0, 1.0), epsilon), _excess((0.0, 1.0), normal, epsilon)) > delta, 1e4
    )


def _excess(first: tuple[float, float], second: tuple[float, float], epsilon: float) -> float:
    """P(A) - e^epsilon Q(A) for the set A where the density of P exceeds e^epsilon times that of Q."""
    from scipy.special import log_ndtr

    (m1, s1), (m2, s2) = first, second
    # log p - log q - epsilon as a quadratic a x^2 + b x + c
    a = 0.5 / s2**2 - 0.5 / s1**2
    b = m1 / s1**2 - m2 / s2**2
    c = 0.5 * (m2 / s2) ** 2 - 0.5 * (m1 / s1) ** 2 + math.log(s2 / s1) - epsilon
    if abs(a) < 1e-12:
        if b == 0:  # one and the same distribution
            return 0.0
        ends = [(-c / b, math.inf)] if b > 0 else [(-math.inf, -c / b)]
    else:
        inner = b * b - 4 * a * c
        if inner <= 0:
            ends = [(-math.inf, math.inf)] if a > 0 else []
        else:
            half = -0.5 * (b + math.copysign(math.sqrt(inner), b))
            low, high = sorted((half / a, c / half if half else 0.0))
            ends = [(-math.inf, low), (high, math.inf)] if a > 0 else [(low, high)]

    def log_mass(start: float, end: float, m: float, s: float) -> float:
        low, high = (start - m) / s, (end - m) / s
        if low > 0:
            low, high = -high, -low
        top, bottom = float(log_ndtr(high)), float(log_ndtr(low))
        return top + math.log1p(-math.exp(bottom - top)) if top > bottom else -math.inf

    total = 0.0
    for start, end in ends:
        log_p, log_q = log_mass(start, end, m1, s1), log_mass(start, end, m2, s2)
        if log_p > -math.inf:
            total += math.exp(log_p) * -math.expm1(min(epsilon + log_q - log_p, 700.0))
    return total
