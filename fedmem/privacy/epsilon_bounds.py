"""What attacks prove about epsilon: lower bounds, and estimates, each with the most that it could have found.

An audit looks at what came out with a unit and without it. A bound holds with the confidence that it names, whatever
the mechanism; an estimate leans on a model of the scores and proves nothing. Neither says that more cannot leak.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fedmem.contracts.types import BoolArray, FloatArray
from fedmem.errors import ComponentError
from fedmem.estimation.statistics import clopper_pearson
from fedmem.privacy.accounting import Adjacency, Releases, Unit, gaussian_epsilon, promise
from fedmem.privacy.guarantee import Guarantee

Claim = Literal["bound", "estimate"]

FEWEST_DIMENSIONS = 100
"""From which on the cosine of a random direction is near enough to normal."""

_MOST = 200.0
"""Above any epsilon that trials can show: e^200 of them would be needed."""


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What differs between the two sides of an audit.

    Fields:
        unit: one `record`, or one `client` with all its records.
        adjacency: `add_remove` where the out side is without the unit, `replace` where another stands in for it,
            `zero_out` where its place is left empty.
        copies: how often the unit is there, all at one client; a promise to a record covers `copies` of them less.
    """

    unit: Unit
    adjacency: Adjacency
    copies: int = 1

    def __post_init__(self) -> None:
        if self.copies < 1 or (self.unit == "client" and self.copies != 1):
            raise ComponentError(
                "audit.copies", f"{self.copies} of a {self.unit}; it must be at least 1 for a record, 1 for a client"
            )


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What an audit found.

    `epsilon` is never negative; `ceiling` is what it would have been had every trial gone right, so an `epsilon` near
    it says that trials were too few, not that this is all. `trials` is how many went into it. A `bound` lies below the
    true epsilon with probability `confidence`, in each audit by itself; an `estimate` has `low` and `high` instead.
    """

    epsilon: float
    ceiling: float
    claim: Claim
    delta: float
    confidence: float
    trials: int
    audited: Audited
    method: str
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        sure = f" with confidence {self.confidence:g}" if self.claim == "bound" else ""
        times = f", {self.audited.copies} copies" if self.audited.copies > 1 else ""
        return (
            f"epsilon {'>=' if self.claim == 'bound' else '~'} {self.epsilon:.3g} at delta {self.delta:.3g} "
            f"({self.claim}{sure}, ceiling {self.ceiling:.3g}; {self.method}, {self.trials} trials; "
            f"unit {self.audited.unit}, {self.audited.adjacency}{times})"
        )


def permitted(audited: Audited, releases: Releases) -> Guarantee:
    """What these releases promise about what is audited; a bound found at its delta must not be above its epsilon.

    The promise is formed anew for the neighbours of the audit, so that like is compared with like. Where one record of
    a client is audited and the promise is to clients, the client has other data: that is `replace`, for all copies.

    Errors: `ComponentError` where a whole client is audited and the promise is to single records, for neighbours that
    the sampling does not allow, and where an audit removes a record although the guarantee keeps the number of rows.

    >>> releases = Releases(noise_multiplier=1.0, sampling="everyone", count=1, delta=1e-5, unit="client")
    >>> round(permitted(Audited(unit="record", adjacency="add_remove", copies=3), releases).epsilon, 1)
    10.0
    """
    if audited.unit == "client" and releases.unit == "record":
        raise ComponentError(
            "audit.unit",
            "client, but the promise is to single records; a client has many, so audit records, or protect clients",
        )
    if audited.adjacency == "add_remove" != releases.adjacency and releases.unit == "record":
        raise ComponentError(
            "audit.adjacency",
            f"add_remove compares n rows with n - 1, but the guarantee to records is for {releases.adjacency}, which "
            "keeps the number of rows; audit with exclusion: replace",
        )
    within = audited.unit == "record" and releases.unit == "client"
    one = promise(replace(releases, adjacency="replace" if within else audited.adjacency))
    whole = Guarantee(epsilon=one.epsilon, delta=releases.delta)
    return whole if within else whole.of_group(audited.copies)


def alarm(finding: Finding, guarantee: Guarantee) -> bool:
    """Whether a bound contradicts a promise, so that the mechanism or the accounting is wrong; estimates never do.

    Errors: `ComponentError` if the two are at different deltas.
    """
    if not math.isclose(finding.delta, guarantee.delta, rel_tol=1e-9):
        raise ComponentError(
            "audit.delta", f"{finding.delta} is compared with a promise at {guarantee.delta}; audit at the same delta"
        )
    return finding.claim == "bound" and finding.epsilon > guarantee.epsilon


def epsilon_of_counts(
    hits: int,
    inside: int,
    false_alarms: int,
    outside: int,
    *,
    audited: Audited,
    delta: float,
    confidence: float = 0.95,
    thresholds: int = 1,
    independent: bool = True,
) -> Finding:
    """Epsilon from how often a test says "in": `hits` of `inside` trials in, `false_alarms` of `outside` trials out.

    max(ln((TPR_low - delta) / FPR_high), ln((TNR_low - delta) / FNR_high), 0), with one-sided limits of Clopper and
    Pearson (1934) at half the error each. `thresholds` is how many tests were declared, of which this is one: the error
    is divided by it (Bonferroni). Zero trials on a side prove nothing: 0.

    - a bound only if trials are independent, as the runs of one example are; the examples of one run are not, and with
      `independent` false it is called an estimate; `one_run` has a bound for them.

    >>> whole = Audited(unit="record", adjacency="add_remove")
    >>> print(epsilon_of_counts(50, 50, 0, 50, audited=whole, delta=0.0))
    epsilon >= 2.57 at delta 0 (bound with confidence 0.95, ceiling 2.57; counts, 100 trials; unit record, add_remove)
    """
    level = 1 - (1 - confidence) / thresholds
    found, ceiling = (
        _of_rates(*counts, delta, level)
        for counts in (
            (hits, inside, false_alarms, outside),
            (inside, inside, 0, outside),
        )
    )
    return Finding(
        epsilon=found,
        ceiling=ceiling,
        claim="bound" if independent else "estimate",
        delta=delta,
        confidence=confidence,
        trials=inside + outside,
        audited=audited,
        method="counts" if thresholds == 1 else f"counts, best of {thresholds} thresholds",
    )


def epsilon_over_thresholds(
    inside: FloatArray,
    outside: FloatArray,
    thresholds: FloatArray,
    *,
    audited: Audited,
    delta: float,
    confidence: float = 0.95,
    independent: bool = True,
) -> Finding:
    """The best of tests "score above threshold" that were declared before scores were seen; see `epsilon_of_counts`.

    NaN scores do not count. Errors: `ComponentError` without a threshold.
    """
    seen_in, seen_out = inside[~np.isnan(inside)], outside[~np.isnan(outside)]
    found = [
        epsilon_of_counts(
            int((seen_in > threshold).sum()),
            len(seen_in),
            int((seen_out > threshold).sum()),
            len(seen_out),
            audited=audited,
            delta=delta,
            confidence=confidence,
            thresholds=len(thresholds),
            independent=independent,
        )
        for threshold in np.asarray(thresholds, dtype=np.float64).tolist()
    ]
    if not found:
        raise ComponentError("audit.thresholds", "none was declared; declare one or more before scores are seen")
    return max(found, key=lambda one: one.epsilon)


def epsilon_by_split(
    inside: FloatArray,
    outside: FloatArray,
    rng: np.random.Generator,
    *,
    audited: Audited,
    delta: float,
    confidence: float = 0.95,
    independent: bool = True,
) -> Finding:
    """Choose the threshold on one random half of the trials, and test it on the other; see `epsilon_of_counts`.

    The half that chose proves nothing more, so that the ceiling is that of half the trials. The threshold is the middle
    of a gap between scores of the first half, where its lower limit is the largest, the smallest such. NaN scores do
    not count.
    """
    halves = [rng.permutation(side[~np.isnan(side)]) for side in (inside, outside)]
    (chosen_in, tested_in), (chosen_out, tested_out) = (np.split(half, [len(half) // 2]) for half in halves)
    scores = np.unique(np.concatenate([chosen_in, chosen_out]))
    cuts = (scores[1:] + scores[:-1]) / 2 if len(scores) > 1 else np.zeros(1)
    best = max(
        cuts.tolist(),
        key=lambda cut: _of_rates(
            int((chosen_in > cut).sum()),
            len(chosen_in),
            int((chosen_out > cut).sum()),
            len(chosen_out),
            delta,
            confidence,
        ),
    )
    found = epsilon_of_counts(
        int((tested_in > best).sum()),
        len(tested_in),
        int((tested_out > best).sum()),
        len(tested_out),
        audited=audited,
        delta=delta,
        confidence=confidence,
        independent=independent,
    )
    return replace(found, method="counts, threshold from the other half")


def one_run(
    right: int,
    guesses: int,
    canaries: int,
    *,
    audited: Audited,
    delta: float,
    confidence: float = 0.95,
) -> Finding:
    """A bound from a single run, in which each of m canaries was in by a fair coin of its own (Steinke et al., 2023).

    Of `guesses` r guesses, their number fixed beforehand, `right` v are right. The largest epsilon with
    P[B >= v] + 2 m delta max_i (1/i) sum_{j <= i} P[B = v - j] <= 1 - confidence, where B is binomial of r trials with
    probability e^epsilon / (1 + e^epsilon). Canaries may influence one another. The delta of pure chance aside, `delta`
    costs m times as much as with independent runs.

    >>> whole = Audited(unit="record", adjacency="add_remove")
    >>> round(one_run(100, 100, 100, audited=whole, delta=0.0).epsilon, 2)
    3.49
    """
    if not 0 <= right <= guesses <= canaries:
        raise ComponentError(
            "audit.guesses", f"{right} right of {guesses} guesses on {canaries} canaries is impossible"
        )
    error = 1 - confidence
    found, ceiling = (
        _largest(lambda epsilon, v=v: _one_run_p(v, guesses, canaries, epsilon, delta) <= error)  # type: ignore[misc]
        for v in (right, guesses)
    )
    return Finding(
        epsilon=found,
        ceiling=ceiling,
        claim="bound",
        delta=delta,
        confidence=confidence,
        trials=guesses,
        audited=audited,
        method=f"one run, {canaries} canaries",
    )


def guess(scores: FloatArray, is_in: BoolArray, guesses: int, rng: np.random.Generator) -> int:
    """How many of `guesses` guesses are right: "in" for the highest half of the scores (m,), "out" for the lowest.

    The middle is passed over. Of an odd number "in" gets one more. Ties are put in random order, by `rng`.

    >>> guess(np.array([3.0, 1.0, 2.0]), np.array([True, False, True]), 2, np.random.default_rng(0))
    2
    """
    assert not np.isnan(scores).any()
    if not 0 <= guesses <= len(scores):
        raise ComponentError("audit.guesses", f"{guesses} guesses on {len(scores)} canaries; use at most as many")
    order = np.lexsort((rng.random(len(scores)), -scores))
    low = guesses // 2
    called_in, called_out = order[: guesses - low], order[len(order) - low :]
    return int(is_in[called_in].sum() + (~is_in[called_out]).sum())


def gaussian_estimate(
    hits: int, inside: int, false_alarms: int, outside: int, *, audited: Audited, delta: float, confidence: float = 0.95
) -> Finding:
    """Epsilon if the two sides were one normal distribution, shifted: mu = Phi^-1(TPR) - Phi^-1(FPR), then its epsilon.

    Half a trial of each outcome is added, so that rates stay off 0 and 1. `low` and `high` are what the limits of
    Clopper and Pearson give. Never a bound: another mechanism with these rates may have any smaller epsilon.

    >>> whole = Audited(unit="record", adjacency="add_remove")
    >>> found = gaussian_estimate(841, 1000, 500, 1000, audited=whole, delta=1e-5)
    >>> round(found.epsilon, 1), round(found.low, 1), round(found.high, 1)
    (4.4, 3.5, 5.3)
    """
    from scipy.stats import norm

    def at(tpr: float, fpr: float) -> float:
        return gaussian_epsilon(max(0.0, float(norm.ppf(tpr) - norm.ppf(fpr))), delta)

    def smoothed(successes: int, trials: int) -> float:
        return (successes + 0.5) / (trials + 1)

    (tpr_low, tpr_high), (fpr_low, fpr_high) = (
        clopper_pearson(hits, inside, confidence),
        clopper_pearson(false_alarms, outside, confidence),
    )
    return Finding(
        epsilon=at(smoothed(hits, inside), smoothed(false_alarms, outside)),
        ceiling=at(smoothed(inside, inside), smoothed(0, outside)),
        claim="estimate",
        delta=delta,
        confidence=confidence,
        trials=inside + outside,
        audited=audited,
        method="normal scores",
        low=at(tpr_low, fpr_high) if tpr_low > 0 and fpr_high < 1 else 0.0,
        high=at(tpr_high, fpr_low) if tpr_high < 1 and fpr_low > 0 else math.inf,
    )


def one_shot(cosines: FloatArray, dimension: int, *, audited: Audited, delta: float) -> Finding:
    """Epsilon from canaries that point in random directions, all in one run (Andrew et al., 2024).

    `cosines` (k,): between the direction of each canary, uniform on the sphere, and what was released. Without the
    canary a cosine is N(0, 1/d); to those that are there a normal distribution is fitted; epsilon is that of the two.
    Consistent for a single Gaussian sum; for training with many rounds it is what a final model shows of them. Never a
    bound. `low` and `high`: the smallest and largest where mean and spread are moved by up to two standard errors; they
    are far apart, since delta lies in the tails.

    Errors: `ComponentError` with fewer than two canaries, or in less than 100 dimensions, where cosines are not normal.
    """
    known = cosines[~np.isnan(cosines)]
    if len(known) < 2 or dimension < FEWEST_DIMENSIONS:
        raise ComponentError(
            "audit",
            f"{len(known)} canaries in {dimension} dimensions; use at least 2 (better 100) in at least "
            f"{FEWEST_DIMENSIONS}",
        )
    # in units of the null's standard deviation
    scaled = known * math.sqrt(dimension)
    mean, spread, count = float(scaled.mean()), float(scaled.std(ddof=1)), len(known)
    return _of_normals(
        (mean, spread, math.sqrt(dimension)),
        2 * spread / math.sqrt(count),
        2 * spread / math.sqrt(2 * count - 2),
        audited=audited,
        delta=delta,
        trials=count,
        method=f"one shot, {dimension} dimensions",
    )


def two_shots(inside: FloatArray, outside: FloatArray, *, audited: Audited, delta: float) -> Finding:
    """The same from the largest cosine over several releases, with canaries (k,) and with fresh directions (n,).

    What the largest of several cosines is by chance has no simple law, so that a normal distribution is fitted to
    either side; `low` and `high` move the difference of means, and the ratio of spreads, by two standard errors. Never
    a bound. Errors: `ComponentError` with fewer than two on a side.
    """
    there, fresh = inside[~np.isnan(inside)], outside[~np.isnan(outside)]
    if min(len(there), len(fresh)) < 2 or np.ptp(fresh) == 0:
        raise ComponentError(
            "audit", f"{len(there)} canaries and {len(fresh)} fresh directions; use at least 2 of each, not all alike"
        )
    null, unit = float(fresh.mean()), float(fresh.std(ddof=1))
    mean, spread = (float(there.mean()) - null) / unit, float(there.std(ddof=1)) / unit
    errors = 1 / (2 * len(there) - 2) + 1 / (2 * len(fresh) - 2)
    return _of_normals(
        (mean, spread, (1 - null) / unit),
        2 * math.sqrt(spread**2 / len(there) + 1 / len(fresh)),
        2 * spread * math.sqrt(errors),
        audited=audited,
        delta=delta,
        trials=len(there),
        method=f"one shot, largest of several releases, {len(fresh)} fresh directions",
    )


def _of_normals(
    fitted: tuple[float, float, float],
    off: float,
    wide: float,
    *,
    audited: Audited,
    delta: float,
    trials: int,
    method: str,
) -> Finding:
    """The estimate from mean, spread and the largest possible mean, in units of the null; `off`, `wide`: two errors."""
    mean, spread, most = fitted
    # epsilon is smallest for two normal distributions of equal spread, so 1 is looked at where it is possible
    spreads = {spread - wide, spread + wide, min(max(1.0, spread - wide), spread + wide)}
    near = [
        normal_epsilon(max(at, 0.0), max(around, 0.0), delta) for at in (mean - off, mean + off) for around in spreads
    ]
    return Finding(
        epsilon=normal_epsilon(max(mean, 0.0), spread, delta),
        ceiling=normal_epsilon(most, spread, delta),
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
    there = (mean, spread)
    return _largest(
        lambda epsilon: max(_excess(there, (0.0, 1.0), epsilon), _excess((0.0, 1.0), there, epsilon)) > delta, 1e4
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
        ours, theirs = log_mass(start, end, m1, s1), log_mass(start, end, m2, s2)
        if ours > -math.inf:
            total += math.exp(ours) * -math.expm1(min(epsilon + theirs - ours, 700.0))
    return total


def _of_rates(hits: int, inside: int, false_alarms: int, outside: int, delta: float, level: float) -> float:
    """The larger of the two logarithms, at least 0; a limit of Clopper and Pearson has half the error on its side."""
    tpr_low = clopper_pearson(hits, inside, level)[0]
    fpr_high = clopper_pearson(false_alarms, outside, level)[1]
    found = [0.0]
    for more, less in ((tpr_low - delta, fpr_high), (1 - fpr_high - delta, 1 - tpr_low)):
        if more > 0:
            found.append(math.log(more / less) if less > 0 else math.inf)
    return max(found)


def _one_run_p(right: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    from scipy.stats import binom

    chance = 1 / (1 + math.exp(-epsilon))
    p = float(binom.sf(right - 1, guesses, chance))
    if delta and right:
        below = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), guesses, chance))
        p += 2 * canaries * delta * float((below / np.arange(1, right + 1)).max())
    return min(p, 1.0)


def _largest(holds: Callable[[float], bool], most: float = _MOST) -> float:
    """The largest argument from 0 to `most` up to which it holds, rounded down; 0 where it does not even there."""
    if not holds(0.0):
        return 0.0
    low, high = 0.0, most
    while high - low > 1e-9 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
