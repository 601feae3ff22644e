"""Labels of readings, written briefly."""

from __future__ import annotations

from fedmem.contracts.measurement import LABELS, Label, Labels, LabelValue
from fedmem.reporting.measures import MEASURING
from fedmem.scenario.catalogue import kinds, load

KINDS = {name: label.kind for name, label in LABELS.items()}
for _family in MEASURING:
    for _kind in kinds(_family):
        _own: tuple[Label, ...] = getattr(load(_family, _kind), "row_labels", ())
        KINDS |= {label.name: label.kind for label in _own}


def labels(text: str = "", /, **more: LabelValue | None) -> Labels:
    """Labels from `name=value` pairs, parted by spaces, with the kinds that components declare.

    >>> labels("place=owner fpr=0.1") == Labels.of(place="owner", fpr=0.1)
    True
    """
    numbers = {"whole": int, "number": float}
    pairs = dict(pair.split("=", 1) for pair in text.split())
    return Labels.of({name: numbers.get(KINDS.get(name, "text"), str)(value) for name, value in pairs.items()}, **more)
