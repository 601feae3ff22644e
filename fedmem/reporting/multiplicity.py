"""Which values of a kind are significant, although several measures were tested at each level (record 121)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from fedmem.contracts.measurement import Level
from fedmem.estimation.statistics import holm
from fedmem.estimation.two_way import FEWEST
from fedmem.results.run_summary import ALPHA, Finding, Measured

LEVELS: tuple[Level, ...] = ("local", "global")


def adjust(findings: Sequence[Finding], smallest_p: float = 0.0) -> Iterator[Finding]:
    """The findings of one kind, with p adjusted by Holm's method over all of its measures at each level.

    A family is everything that is tested for one kind at one level. That is memorisation by right answers and by
    probability, exposure, extraction, and each membership attack. Of few examples, each is a test of each measure.

    A verdict is about one side of the null. So p of that side alone, half of a two-sided p, is adjusted. The adjusted p
    is at least the two-sided p, which goes with a 95 % interval. The chance that any value of a family is called above
    its null by mistake is at most 5 %, for any dependence of the tests. So is the chance of any below it.

    A value without a test is in no family. Examples are undefined where all tests at their smallest possible p would
    not be significant.

    Args:
        findings: the values of the kind.
        smallest_p: the smallest p that a single example of it could have.
    """
    adjusted = list(findings)
    for level in LEVELS:
        tests = [
            (place, upper)
            for place, finding in enumerate(adjusted)
            if (value := finding.at(level)) is not None
            for upper in _upper_p_of_tests(value)
        ]
        above, below = (holm(side).tolist() for side in ([p for _, p in tests], [1 - p for _, p in tests]))
        for place, finding in enumerate(adjusted):
            of_value = [min(pair) for (owner, _), *pair in zip(tests, above, below, strict=True) if owner == place]
            of_examples = [p for (owner, _), p in zip(tests, above, strict=True) if owner == place]
            value = finding.at(level)
            if value is not None and of_value:
                p_adjusted = of_value if value.examples is None else of_examples
                changed = _adjusted_value(value, p_adjusted, len(tests), smallest_p)
                is_local = level == "local"
                adjusted[place] = replace(finding, local=changed) if is_local else replace(finding, aggregate=changed)
    return (_with_state_of_effect(finding) for finding in adjusted)


def _upper_p_of_tests(value: Measured) -> tuple[float, ...]:
    """The p, on the side above the null, of each test of a value: of each example, or of the kind."""
    if value.examples is not None:
        return value.p_of_examples
    if math.isnan(value.value + value.low + value.high + value.null):
        return ()
    p = _two_sided_p(value)
    return (p / 2 if value.value > value.null else 1 - p / 2,)


def _two_sided_p(value: Measured) -> float:
    return p_of_interval(value) if math.isnan(value.p) else value.p


def p_of_interval(value: Measured) -> float:
    """A two-sided p of the null from the interval alone, for measures that store no p.

    It is that of Student's t with 7 degrees of freedom, the fewest with which a measure of examples has an interval. It
    is 0.05 where the null is an end of the interval, and with more degrees of freedom the p would be smaller.

    >>> value = Measured(value=0.5, low=0.0, high=1.0, n=9, null=0.0, keys=())
    >>> round(p_of_interval(value), 3)
    0.05
    """
    from scipy.special import stdtr, stdtrit

    degrees = FEWEST - 1
    gap = value.value - value.null
    width = value.value - value.low if gap > 0 else value.high - value.value
    if width <= 0:
        return 0.0 if gap else 1.0
    return float(min(1.0, 2 * stdtr(degrees, -abs(gap) / width * stdtrit(degrees, 1 - ALPHA / 2))))


def _adjusted_value(value: Measured, p_adjusted: Sequence[float], num_tests: int, smallest_p: float) -> Measured:
    if value.examples is not None and num_tests * smallest_p > ALPHA:
        return replace(value, p=math.nan, examples=None, p_of_examples=())
    num_significant = None if value.examples is None else sum(p <= ALPHA for p in p_adjusted)
    if num_tests == 1 and math.isnan(value.p):
        return value  # its interval decides
    floor = 0.0 if value.examples is not None else _two_sided_p(value)
    return replace(value, p_adjusted=max(floor, min(p_adjusted)), num_tests=num_tests, examples=num_significant)


def _with_state_of_effect(finding: Finding) -> Finding:
    """A retention is not significant where the effect in the aggregate, its numerator, is not."""
    if finding.retention is None or finding.aggregate is None:
        return finding
    return replace(finding, retention=replace(finding.retention, effect=finding.aggregate.state))
