"""What tests of leakage share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.contracts.measurement import Labels, Measurement, Reading

QUICK = InvertingGradients(steps=40)


@dataclass(frozen=True)
class Answers:
    """An attack that returns the images it was made with, for every target."""

    images: NDArray[np.float32]
    knows: tuple[str, ...] = ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        labels = np.zeros(len(self.images), dtype=np.int64)
        return [Reconstruction(inputs=self.images, labels=labels, distance=0.0) for _ in targets]


def ins(readings: Sequence[tuple[Any, Reading]]) -> list[Reading]:
    return [reading for _, reading in readings if reading.subject and "coin" not in reading.labels]


def _among(reading: Reading) -> tuple[int, int, str]:
    """The size of the gallery, the peers in it, and the kind."""
    labels = reading.labels
    return labels.integer("gallery"), labels.integer("peers"), labels.text("kind")


def outs(readings: Sequence[tuple[Any, Reading]]) -> list[Reading]:
    return [reading for _, reading in readings if reading.labels.get("coin") == "out"]


def victim(
    run: int,
    round_number: int,
    value: float,
    metric: str = "margin",
    kind: str = "typical",
    owner: int = 0,
    coin: str = "in",
) -> Measurement:
    own = Labels.of(view="aggregate", knows="lr", coin="out" if coin == "out" else None, owner=owner, kind=kind)
    reading = Reading(metric=metric, value=value, subject="3", labels=own)
    return Measurement(run=run, round=round_number, level="global", client=-1, source="leakage", reading=reading)


@dataclass(frozen=True)
class Asks:
    """An attack that keeps what it was shown, and offers grey."""

    knows: tuple[str, ...]
    shown: list[GradientTarget]

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        self.shown.extend(targets)
        grey = np.full((1, *targets[0].input_shape), 0.5, dtype=np.float32)
        return [Reconstruction(inputs=grey, labels=np.zeros(1, dtype=np.int64), distance=0.0) for _ in targets]
