"""Values near the end of what a measure can show, where differences are hidden.

Exposure by rank among N references ends at log2(N + 1) bits. A model that knows a canary better than another then
has the same value. The rules here say which values are too near an end to compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fedmem.contracts.measure import Measure

HALF_A_BIT = 0.5
"""An exposure at most so far below its ceiling, in bits, is saturated."""

MARK = "†"
"""Stands behind each saturated value."""


@dataclass(frozen=True, kw_only=True)
class SaturationZone:
    """The saturated ends of a measure: values from `top` up, and from `bottom` down.

    Attributes:
        top: The lowest value that counts as saturated at the upper end; infinite where there is no upper end.
        bottom: The highest value that counts as saturated at the lower end; minus infinite where there is none.

    Examples:
        >>> zone = SaturationZone(top=0.99)
        >>> zone.holds(0.995), zone.holds(0.7), zone.holds(math.nan)
        (True, False, False)
    """

    top: float = math.inf
    bottom: float = -math.inf

    def holds(self, value: float) -> bool:
        """Whether a value is saturated; NaN is not."""
        return value >= self.top or value <= self.bottom

    def union(self, other: SaturationZone) -> SaturationZone:
        """The values that either zone holds: of several runs, the run that saturates first decides."""
        return SaturationZone(top=min(self.top, other.top), bottom=max(self.bottom, other.bottom))


NOWHERE = SaturationZone()
"""The zone of a measure that has no end, or whose end is not known."""


def zone_of(measure: Measure, references: Iterable[int] = ()) -> SaturationZone:
    """The zone of a measure.

    - A measure that is `ranked` by value, such as exposure, is saturated from half a bit below log2(N + 1) up.
    - A ranked gain subtracts the exposure of runs without the canary. Its ceiling is lower by the mean over uniform
      ranks, which makes it log2((N + 1)!) / (N + 1).
    - Other measures declare their ends: `Measure.saturated`.

    Args:
        measure: its declaration.
        references: the numbers N of references that canaries are ranked among, for ranked measures. The smallest
            decides.

    Returns:
        `NOWHERE` where the measure has no end, such as extrapolated exposure, or where N is not given.

    Examples:
        >>> exposure = Measure(name="exposure", title="exposure", means="Bits.", ranked="value")
        >>> zone_of(exposure, [1023]).top, zone_of(exposure) == NOWHERE
        (9.5, True)
        >>> gain = Measure(name="gain", title="gain", means="Bits.", ranked="gain")
        >>> round(zone_of(gain, [1023]).top, 2)
        8.06
    """
    if not measure.ranked:
        bottom, top = measure.saturated
        return SaturationZone(top=top, bottom=bottom)
    places = min(references, default=0) + 1
    if places == 1:
        return NOWHERE
    ceiling = math.log2(places) if measure.ranked == "value" else math.lgamma(places + 1) / math.log(2) / places
    return SaturationZone(top=ceiling - HALF_A_BIT)
