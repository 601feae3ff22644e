"""A membership attack that reads signals, for tests of what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import Signals


@dataclass(frozen=True, kw_only=True)
class ReadsSignals:
    knows: ClassVar[str] = "signals of one model"
    reads_coins: ClassVar[bool] = False

    reads_signals: tuple[str, ...] = ("el2n",)

    def scores(self, signals: Signals) -> FloatArray:
        return -signals.signals[self.reads_signals[0]]
