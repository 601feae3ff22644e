"""Shared by injections that draw on images: a check that inputs are images, and the size of a patch."""

from __future__ import annotations

from fedmem.contracts.data import Space
from fedmem.errors import ComponentError

FEWEST_BINARY = 32
"""Binary values that a canary needs at least: of 2^32 members, a fresh reference never happens to be the canary."""


def sides(space: Space, kind: str) -> tuple[int, int]:
    """Height and width of the images of a data set; an error where its inputs are none."""
    grid = space.modality.grid(space.shape)
    if len(grid) != 2:
        remedy = "random_row, mislabelled or typical"
        if space.modality.any_values:
            remedy = "random_pattern, mislabelled or typical"
        raise ComponentError(
            "injections",
            f"{kind} draws on images, but inputs have shape {space.shape}; use a data set of images, or {remedy}",
        )
    return grid[0], grid[1]


def patch(space: Space, kind: str, size: float) -> tuple[int, int]:
    """Height and width in pixels of a patch whose sides are this share of the image's, at least one pixel."""
    height, width = sides(space, kind)
    return max(1, int(height * size + 0.5)), max(1, int(width * size + 0.5))
