"""Lower bounds on epsilon and estimates of it from attacks, each with its largest possible value.

An audit looks at what came out with a unit and without it. A bound holds with the confidence that it names, whatever
the mechanism; an estimate leans on a model of the scores and proves nothing. Neither says that more cannot leak.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.errors import ComponentError
from fedmem.estimation.statistics import clopper_pearson
from fedmem.privacy.accounting import Adjacency, Releases, Unit, guarantee_of
from fedmem.privacy.guarantee import Guarantee

Claim = Literal["bound", "estimate"]


_MAX = 200.0
"""Above any epsilon that trials can show: e^200 of them would be needed."""


@dataclass(frozen=True, kw_only=True)
class AuditedUnit:
    """The difference between the two sides of an audit.

    Fields:
        unit: One `record`, or one `client` with all its records.
        adjacency: `add_remove` where the out side is without the unit, `replace` where another stands in for it,
            `zero_out` where its place is left empty.
        copies: How often the unit is there, all at one client; a guarantee to a record is weaker for `copies` of them.
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
    """The result of an audit.

    `epsilon` is never negative. `ceiling` is its value if every trial had gone right. So an `epsilon` near it shows
    that there were too few trials, not that the true value is as low. `trials` is how many went into it. A `bound` lies
    below the true epsilon with probability `confidence`, in each single audit; an `estimate` has `low` and `high`
    instead.
    """

    epsilon: float
    ceiling: float
    claim: Claim
    delta: float
    confidence: float
    trials: int
    audited: AuditedUnit
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


def permitted_guarantee(audited: AuditedUnit, releases: Releases) -> Guarantee:
    """The guarantee of these releases for an audit; a bound found at its delta must not be above its epsilon.

    The guarantee is computed again for the neighbours of the audit, so that both are about the same neighbours. Where
    one record of a client is audited and the guarantee is to clients, the client has other data: that is `replace`, for
    all copies.

    Errors: `ComponentError` where a whole client is audited and the guarantee is to single records, and for neighbours
    that the sampling does not allow. Also where an audit removes a record although the guarantee keeps the number of
    rows.

    >>> releases = Releases(noise_multiplier=1.0, sampling="everyone", count=1, delta=1e-5, unit="client")
    >>> round(permitted_guarantee(AuditedUnit(unit="record", adjacency="add_remove", copies=3), releases).epsilon, 1)
    10.0
    """
    if audited.unit == "client" and releases.unit == "record":
        raise ComponentError(
            "audit.unit",
            "client, but the guarantee is to single records; a client has many, so audit records, or protect clients",
        )
    if audited.adjacency == "add_remove" != releases.adjacency and releases.unit == "record":
        raise ComponentError(
            "audit.adjacency",
            f"add_remove compares n rows with n - 1, but the guarantee to records is for {releases.adjacency}, which "
            "keeps the number of rows; audit with exclusion: replace",
        )
    within = audited.unit == "record" and releases.unit == "client"
    guarantee = guarantee_of(replace(releases, adjacency="replace" if within else audited.adjacency))
    whole = Guarantee(epsilon=guarantee.epsilon, delta=releases.delta)
    return whole if within else whole.of_group(audited.copies)


def alarm(finding: Finding, guarantee: Guarantee) -> bool:
    """Whether a bound contradicts a guarantee, so that the mechanism or the accounting is wrong; estimates never do.

    Errors: `ComponentError` if the two are at different deltas.
    """
    if not math.isclose(finding.delta, guarantee.delta, rel_tol=1e-9):
        raise ComponentError(
            "audit.delta", f"{finding.delta} is compared with a guarantee at {guarantee.delta}; audit at the same delta"
        )
    return finding.claim == "bound" and finding.epsilon > guarantee.epsilon


class Counts(NamedTuple):
    """Answers "in" of a test: `hits` of `inside` trials with the example, `false_alarms` of `outside` without."""

    hits: int
    inside: int
    false_alarms: int
    outside: int

    @classmethod
    def count_above(cls, threshold: float, inside: FloatArray, outside: FloatArray) -> Counts:
        """The counts of the test "score above threshold"."""
        return cls(int((inside > threshold).sum()), len(inside), int((outside > threshold).sum()), len(outside))


def epsilon_of_counts(
    counts: Counts,
    *,
    audited: AuditedUnit,
    delta: float,
    confidence: float = 0.95,
    thresholds: int = 1,
    independent: bool = True,
) -> Finding:
    """Epsilon from how often a test says "in".

    max(ln((TPR_low - delta) / FPR_high), ln((TNR_low - delta) / FNR_high), 0), with one-sided limits of Clopper and
    Pearson (1934) at half the error each. `thresholds` is how many tests were declared, of which this is one: the error
    is divided by it (Bonferroni). Zero trials on a side prove nothing: 0.

    - a bound only if trials are independent, as the runs of one example are. The examples of one run are not
      independent. With `independent` false it is called an estimate; `one_run` has a bound for them.

    >>> whole = AuditedUnit(unit="record", adjacency="add_remove")
    >>> print(epsilon_of_counts(Counts(50, 50, 0, 50), audited=whole, delta=0.0))
    epsilon >= 2.57 at delta 0 (bound with confidence 0.95, ceiling 2.57; counts, 100 trials; unit record, add_remove)
    """
    level = 1 - (1 - confidence) / thresholds
    best = Counts(counts.inside, counts.inside, 0, counts.outside)
    epsilon, ceiling = (_of_rates(some, delta, level) for some in (counts, best))
    return Finding(
        epsilon=epsilon,
        ceiling=ceiling,
        claim="bound" if independent else "estimate",
        delta=delta,
        confidence=confidence,
        trials=counts.inside + counts.outside,
        audited=audited,
        method="counts" if thresholds == 1 else f"counts, best of {thresholds} thresholds",
    )


def epsilon_over_thresholds(
    inside: FloatArray,
    outside: FloatArray,
    thresholds: FloatArray,
    *,
    audited: AuditedUnit,
    delta: float,
    confidence: float = 0.95,
    independent: bool = True,
) -> Finding:
    """The best of tests "score above threshold" that were declared before scores were seen; see `epsilon_of_counts`.

    NaN scores do not count. Errors: `ComponentError` without a threshold.
    """
    seen_in, seen_out = inside[~np.isnan(inside)], outside[~np.isnan(outside)]
    bounds = [
        epsilon_of_counts(
            Counts.count_above(threshold, seen_in, seen_out),
            audited=audited,
            delta=delta,
            confidence=confidence,
            thresholds=len(thresholds),
            independent=independent,
        )
        for threshold in np.asarray(thresholds, dtype=np.float64).tolist()
    ]
    if not bounds:
        raise ComponentError("audit.thresholds", "none was declared; declare one or more before scores are seen")
    return max(bounds, key=lambda bound: bound.epsilon)


def epsilon_by_split(
    inside: FloatArray,
    outside: FloatArray,
    rng: np.random.Generator,
    *,
    audited: AuditedUnit,
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
        cuts.tolist(), key=lambda cut: _of_rates(Counts.count_above(cut, chosen_in, chosen_out), delta, confidence)
    )
    bound = epsilon_of_counts(
        Counts.count_above(best, tested_in, tested_out),
        audited=audited,
        delta=delta,
        confidence=confidence,
        independent=independent,
    )
    return replace(bound, method="counts, threshold from the other half")


def one_run(
    right: int,
    guesses: int,
    canaries: int,
    *,
    audited: AuditedUnit,
    delta: float,
    confidence: float = 0.95,
) -> Finding:
    """A bound from a single run, in which each of m canaries was in by a fair coin of its own (Steinke et al., 2023).

    Of `guesses` r guesses, their number fixed beforehand, `right` v are right. The bound is the largest epsilon with
    `P[B >= v] + 2 m delta max_i (1/i) sum_{j <= i} P[B = v - j] <= 1 - confidence`. Here B is binomial of r trials with
    probability e^epsilon / (1 + e^epsilon). Canaries may influence one another. The delta of pure chance aside, `delta`
    costs m times as much as with independent runs.

    >>> whole = AuditedUnit(unit="record", adjacency="add_remove")
    >>> round(one_run(100, 100, 100, audited=whole, delta=0.0).epsilon, 2)
    3.49
    """
    if not 0 <= right <= guesses <= canaries:
        raise ComponentError(
            "audit.guesses", f"{right} right of {guesses} guesses on {canaries} canaries is impossible"
        )
    error = 1 - confidence
    epsilon_bound, ceiling = (
        _largest_argument(lambda epsilon, v=v: _one_run_p(v, guesses, canaries, epsilon, delta) <= error)  # type: ignore[misc]
        for v in (right, guesses)
    )
    return Finding(
        epsilon=epsilon_bound,
        ceiling=ceiling,
        claim="bound",
        delta=delta,
        confidence=confidence,
        trials=guesses,
        audited=audited,
        method=f"one run, {canaries} canaries",
    )


def guess(scores: FloatArray, is_in: BoolArray, guesses: int, rng: np.random.Generator) -> int:
    """The number of right guesses among `guesses`: "in" for the highest half of the scores (m,), "out" for the lowest.

    The middle is passed over. If the number is odd, "in" gets one more. Ties are put in random order, by `rng`.

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


def _of_rates(counts: Counts, delta: float, level: float) -> float:
    """The larger of the two logarithms, at least 0; a limit of Clopper and Pearson has half the error on its side."""
    tpr_low = clopper_pearson(counts.hits, counts.inside, level)[0]
    fpr_high = clopper_pearson(counts.false_alarms, counts.outside, level)[1]
    logarithms = [0.0]
    for more, less in ((tpr_low - delta, fpr_high), (1 - fpr_high - delta, 1 - tpr_low)):
        if more > 0:
            logarithms.append(math.log(more / less) if less > 0 else math.inf)
    return max(logarithms)


def _one_run_p(right: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    from scipy.stats import binom

    probability = 1 / (1 + math.exp(-epsilon))
    p = float(binom.sf(right - 1, guesses, probability))
    if delta and right:
        below = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), guesses, probability))
        p += 2 * canaries * delta * float((below / np.arange(1, right + 1)).max())
    return min(p, 1.0)


def _largest_argument(holds: Callable[[float], bool], upper: float = _MAX) -> float:
    """The largest argument from 0 to `upper` up to which `holds` is true, rounded down; 0 if it is false at 0."""
    if not holds(0.0):
        return 0.0
    low, high = 0.0, upper
    while high - low > 1e-9 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
