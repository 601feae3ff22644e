"""Values near the end of what a measure can show, where differences are hidden.

Exposure by rank among N references ends at log2(N + 1) bits. A model that knows a canary better than another then
has the same value. The rules here say which values are too near an end to compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

HALF_A_BIT = 0.5
"""An exposure at most so far below its ceiling, in bits, is saturated."""

MARK = "†"
"""Stands behind each saturated value."""


@dataclass(frozen=True, kw_only=True)
class Zone:
    """The saturated ends of a measure: values from `top` up, and from `bottom` down.

    Attributes:
        top: the lowest value that counts as saturated at the upper end; infinite where there is no upper end.
        bottom: the highest value that counts as saturated at the lower end; minus infinite where there is none.

    Examples:
        >>> zone = Zone(top=0.99)
        >>> zone.holds(0.995), zone.holds(0.7), zone.holds(math.nan)
        (True, False, False)
    """

    top: float = math.inf
    bottom: float = -math.inf

    def holds(self, value: float) -> bool:
        """Whether a value is saturated; NaN is not."""
        return value >= self.top or value <= self.bottom

    def joined(self, other: Zone) -> Zone:
        """The values that either zone holds: of several runs the one that saturates first decides."""
        return Zone(top=min(self.top, other.top), bottom=max(self.bottom, other.bottom))


NOWHERE = Zone()
"""The zone of a measure that has no end, or whose end is not known."""

ZONES: Mapping[str, Zone] = {
    "auc": Zone(top=0.99, bottom=0.01),
    "tpr": Zone(top=0.99, bottom=0.0),
    "identified": Zone(top=0.99, bottom=0.0),
    "memorisation": Zone(top=0.95, bottom=-0.95),
    "test_accuracy": Zone(top=0.99),
    "train_accuracy": Zone(top=0.99),
}
"""The zones of measures with fixed ends.

- AUC and rates end at 1: the last .01 is saturated. A rate of exactly 0 is saturated too.
- Self-influence is a difference of two shares of runs and ends at 1: the last .05 is saturated.
"""

RANKED = ("exposure", "exposure_gain")
"""Measures that end with the number of references."""


def zone_of(metric: str, references: Iterable[int] = ()) -> Zone:
    """The zone of a measure.

    - `exposure` is saturated from half a bit below log2(N + 1) up.
    - `exposure_gain` subtracts the exposure of runs without the canary. Its ceiling is lower by the mean over uniform
      ranks, which makes it log2((N + 1)!) / (N + 1).

    Args:
        metric: its name, as in `measurements`.
        references: the numbers N of references that canaries are ranked among, for the measures in `RANKED`. The
            smallest decides.

    Returns:
        `NOWHERE` where the measure has no end, such as extrapolated exposure, or where N is not given.

    Examples:
        >>> zone_of("exposure", [1023]).top, zone_of("auc").top, zone_of("exposure_extrapolated") == NOWHERE
        (9.5, 0.99, True)
        >>> round(zone_of("exposure_gain", [1023]).top, 2)
        8.06
    """
    if metric not in RANKED:
        return ZONES.get(metric, NOWHERE)
    places = min(references, default=0) + 1
    if places == 1:
        return NOWHERE
    ceiling = math.log2(places) if metric == "exposure" else math.lgamma(places + 1) / math.log(2) / places
    return Zone(top=ceiling - HALF_A_BIT)
