"""When and where a signal is read: the fields that all signals have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.signal import SignalContext, SignalLevel


@dataclass(frozen=True, kw_only=True)
class ObservedRounds(ABC):
    """A signal that is read at the observed rounds, or at every so many of them."""

    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[SignalLevel, ...] = ("local", "global")

    @abstractmethod
    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `fedmem.contracts.signal.Signal`."""
