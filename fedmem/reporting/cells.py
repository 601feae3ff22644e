"""Elements of a table: values with their intervals as text, and sections of cells."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedmem.estimation.saturation import MARK

_VAGUE = 0.5
"""A rate between 0 and 1 whose interval is wider than this is not shown as if it were exact."""


_NO_HIGHER = 0.5
"""From this p up, in runs are no higher than out runs: where the one is saturated, so is the other."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """One number with its interval, how much stands behind it, and the false positive rate it was taken at.

    `saturated` says that it is too near an end of its measure to be compared; see `fedmem.estimation.saturation`.
    `p` is that of no memorisation, from re-dealt coins; NaN where there is none. `smallest_p` is the
    smallest that they allow; 0 where it is unknown. `clusters` is the fewest that the interval may be of.
    """

    value: float
    low: float
    high: float
    n: int
    fpr: float = math.nan
    saturated: bool = False
    p: float = math.nan
    smallest_p: float = 0.0
    clusters: int = 2

    def text(self, digits: int) -> str:
        """`3.42 [3.10, 3.75]`. No end of the interval is rounded to zero, which would hide on which side it lies.

        A saturated value has a mark behind it. A value whose interval excludes zero is not rounded to zero either, so
        that what is printed lies within the interval that is printed.

        >>> Value(value=0.005, low=-0.0004, high=0.012, n=80).text(3)
        '0.005 [−0.0004, 0.012]'
        >>> Value(value=0.0004, low=0.0002, high=0.0006, n=80).text(3)
        '0.0004 [0.0002, 0.001]'
        >>> Value(value=8.1, low=8.0, high=8.2, n=80, saturated=True).text(1)
        '8.1 [8.0, 8.2]†'
        >>> Value(value=0.1, low=0.05, high=0.15, n=80, p=0.004).text(2)
        '0.10 [0.05, 0.15] p 0.004'
        >>> Value(value=9.9, low=9.9, high=9.9, n=4, p=1.0, saturated=True).text(1)
        '9.9 [9.9, 9.9]† p 1 (runs without it saturated too)'
        """
        if math.isnan(self.value):
            return "–"
        ends = ", ".join(_end(end, digits) for end in (self.low, self.high))
        mark = MARK if self.saturated else ""
        of_p = "" if math.isnan(self.p) else f" p {p_text(self.p, self.smallest_p, saturated=self.saturated)}"
        interval = "no interval" if math.isnan(self.low + self.high) else ends
        value = _end(self.value, digits) if self.is_significant else number(self.value, digits)
        return f"{value} [{interval}]{mark}{of_p}"

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes zero; without an interval nothing is significant."""
        return self.low > 0 or self.high < 0

    @property
    def is_wide(self) -> bool:
        """Whether the interval covers more than half of the range from 0 to 1; meant for rates."""
        return self.high - self.low > _VAGUE


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the table: blocks of rows under headings, all cells text; `notes` are sentences below it."""

    title: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
    notes: tuple[str, ...] = ()


def number(value: float, digits: int) -> str:
    """A number for people, never a negative zero."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


AT_FLOOR = "≤"
"""The mark of a p that is the smallest that re-dealt coins allow."""


def p_text(p: float, smallest: float, *, saturated: bool = False) -> str:
    """A p, marked where it is the smallest possible one.

    It compares in with out runs. Where both are saturated it shows nothing, and the text says so.

    >>> p_text(0.01, 2 / 200), p_text(0.02, 2 / 200)
    ('≤ 0.01', '0.02')
    >>> p_text(0.17, math.nan, saturated=True), p_text(1.0, math.nan, saturated=True)
    ('0.17', '1 (runs without it saturated too)')
    """
    end = " (runs without it saturated too)" if saturated and p >= _NO_HIGHER else ""
    return f"{AT_FLOOR} " * math.isclose(p, smallest) + f"{p:.2g}{end}"


def rate(value: float) -> str:
    """A false positive rate, rounded alike wherever it is shown.

    >>> rate(0.0078125)
    '0.0078'
    """
    return f"{value:.2g}"


def _end(value: float, digits: int) -> str:
    """An end of an interval; one that would round to zero gets another digit, or only its sign."""
    for more in range(digits, digits + 3):
        text = number(value, more)
        if value == 0 or math.isinf(value) or float(text.replace("−", "-")):
            return text if value else number(0.0, digits)
    return ">0" if value > 0 else "<0"
