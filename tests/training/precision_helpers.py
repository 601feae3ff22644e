"""How far two trained banks are apart."""

from __future__ import annotations

from fedmem.contracts.evidence import TrainedBank


def distance(one: TrainedBank, other: TrainedBank) -> float:
    """The largest difference of final parameters, relative to the largest parameter."""
    pairs = [
        (value, theirs[name])
        for params, theirs in zip(one.params, other.params, strict=True)
        for name, value in params.items()
    ]
    largest = max(float(value.abs().max()) for value, _ in pairs)
    return max(float((value - theirs).abs().max()) for value, theirs in pairs) / largest
