"""Time series: numbers in [0, 1] in several channels over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedmem.modalities.modality import BARS, Rows, characters, shrink
from fedmem.modalities.numbers import Numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHANNELS, _BARS = 4, 64
"""Channels of a sketch, and characters of each, at most."""


@dataclass(frozen=True, kw_only=True)
class Series(Numbers):
    """Series (channels, length) of numbers in [0, 1]. Neighbours in time belong together, channels do not.

    Readings of reconstructions are those of `Numbers`.

    >>> Series().grid((2, 128)), Series().problem((1, 28, 28), 10)
    ((128,), 'series have shape (channels, length), not (1, 28, 28)')
    """

    kind: ClassVar[str] = "series"

    def problem(self, shape: tuple[int, ...], num_classes: int) -> str:
        """A series has two axes."""
        return "" if len(shape) == 2 else f"series have shape (channels, length), not {shape}"

    def grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Time."""
        return shape[-1:]

    def sketch(self, inputs: Rows) -> tuple[str, ...]:
        """A line of bars for each of the first channels, means over neighbours in time."""
        channels = np.asarray(inputs, dtype=np.float64)[:_CHANNELS]
        return tuple(characters(shrink(channel, 0, _BARS), BARS) for channel in channels)

    @staticmethod
    def draw(axes: Axes, values: Rows) -> None:
        """A line for each channel, from 0 to 1."""
        for channel in values:
            axes.plot(channel, linewidth=0.8)
        axes.set(xticks=[], yticks=[], xlim=(0, values.shape[1] - 1), ylim=(0, 1))
        for spine in axes.spines.values():
            spine.set_color("#CCCCCC")
