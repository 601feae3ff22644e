"""Which question a p answers, and which one an interval, where the two seem to contradict each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedmem.contracts.measurement import Labels
from fedmem.reporting.cells import Value
from fedmem.reporting.measures import Variant
from fedmem.reporting.summary import Summary
from fedmem.results.run_summary import ALPHA

_SHOWN = 3
"""Places that a note names."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A value of a kind at a level, `local` at the owning client or `global`."""

    measure: Variant
    kind: str
    level: str

    @property
    def name(self) -> str:
        """The place in words."""
        return f"{self.measure.title} of {self.kind}, {self.level}"

    def labels(self) -> Labels:
        """The labels of its row."""
        return self.measure.labels.plus(place="owner" if self.level == "local" else None)

    def gain(self, summary: Summary) -> Value | None:
        """The declared gain of the measure at this place; None without one."""
        name = self.measure.measure.gain
        return summary.value(name, self.level, self.kind, self.labels()) if name else None


def differ(value: Value, null: float) -> bool:
    """Whether p shows an effect that the interval does not, or the other way round."""
    if math.isnan(value.p) or math.isnan(value.low + value.high) or math.isnan(null):
        return False
    return (value.p <= ALPHA) != (value.low > null or value.high < null)


def notes(summary: Summary, places: Sequence[Place]) -> Iterator[str]:
    """Why p and interval differ at these places.

    p compares runs with and without the example. Where a measure has a gain, its value is compared with something else,
    and the gain is what p is about.
    """
    alike = [place for place in places if not place.measure.measure.gain]
    if alike:
        yield (
            f"p and interval differ for {_join([place.name for place in alike])}: p asks whether these examples are "
            "memorised at all, the interval how much others like them would be."
        )
    others = [(place, place.gain(summary)) for place in places if place.measure.measure.gain]
    if others:
        texts = [place.name + (f" (gain {gain.text(place.measure.digits)})" if gain else "") for place, gain in others]
        yield (
            f"p and interval differ for {_join(texts)}. They answer two questions. p compares runs with and without "
            "the same examples, as the gain in brackets does. The value and its interval compare the examples with "
            "their references. They say how exposed the examples are, for any reason."
        )


def _join(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{'; '.join(names[:_SHOWN])}{more}"


def note_of_kinds(names: Sequence[str]) -> Iterator[str]:
    """Explain a difference of two kinds if no p of either shows an effect; nothing without such names."""
    if names:
        yield (
            f"{_join(names)}: the interval of the difference excludes 0, and neither p of the two kinds is "
            f"{ALPHA} or less. These are two questions. p is about one kind and these examples. The difference is "
            "about two kinds and others like them, and it is one of many that are not adjusted."
        )


def is_evident_in_neither(sides: Sequence[Value]) -> bool:
    """Whether both sides of a difference have a p, and neither shows an effect."""
    return len(sides) == 2 and all(side.p > ALPHA for side in sides)
