"""Images without labels, about which models answer with log-densities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedmem.modalities.images import Images


@dataclass(frozen=True, kw_only=True)
class UnlabelledImages(Images):
    """Images as `Images` describes them, with no label. A model gives the log-density of each, (n, 1), in nats.

    Attributes:
        binary: Whether every pixel is 0 or 1. A density is then a probability, so that log-densities are at most 0.

    >>> UnlabelledImages().problem((1, 8, 8), 1), UnlabelledImages().problem((1, 8, 8), 10)
    ('', 'rows without labels have one output, their log-density, so num_classes is 1, not 10')
    """

    kind: ClassVar[str] = "unlabelled_images"
    densities: ClassVar[bool] = True

    binary: bool = True

    def problem(self, shape: tuple[int, ...], num_classes: int) -> str:
        """An image has two axes at least, and there is one output."""
        if num_classes != 1:
            return f"rows without labels have one output, their log-density, so num_classes is 1, not {num_classes}"
        return super().problem(shape, num_classes)

    @property
    def is_binary(self) -> bool:
        """Whether every pixel is 0 or 1."""
        return self.binary
