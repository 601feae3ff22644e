"""The contract of networks some of whose hidden units are trained by a few examples or clients alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TiedLayer:
    """The units at the outputs of one module of a network: its columns, or channels of its maps.

    Attributes:
        name: The module.
        units: Their number.
        fixed: How many of them everybody trains, and evaluation keeps.
        tied: How many of the others an example or client trains.
    """

    name: str
    units: int
    fixed: int
    tied: int

    @property
    def others(self) -> int:
        """The units that evaluation drops.

        >>> TiedLayer(name="activation1", units=10, fixed=2, tied=1).others
        8
        """
        return self.units - self.fixed


@dataclass(frozen=True, kw_only=True)
class TiedUnits:
    """Example-tied dropout: the layers that it acts on, and whose units are drawn together.

    In training, a row keeps the fixed units and those tied to its example, or to the client that trains on it. All
    other forward passes keep the fixed units alone. Kept outputs are not scaled.

    Attributes:
        layers: The layers, each with units that evaluation drops.
        unit: Whether units are tied to examples or to clients.
        seed: The seed of their streams.
    """

    layers: tuple[TiedLayer, ...]
    unit: Literal["example", "client"] = "example"
    seed: int = 0
