"""Canaries: a random patch blended into one public image, fainter and smaller than an image of noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.errors import ComponentError
from fedmem.injections._patches import FEWEST_BINARY, patch
from fedmem.injections._placement import PlacedInjection

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class BlendedPatch(PlacedInjection):
    """x = (1 - a) mean + a key inside a patch, x = mean outside; key and place are random, the label uniform.

    `mean` is the mean of all training inputs, and a is `opacity`. Every value of the key is 0 or 1 with equal odds, and
    the place is uniform. All canaries and references lie on this one image. On images of their own, a rank would show
    how easy an image is before it shows anything about the key. The exposure is about the key, its place and its label.

    Fields

    - `opacity`: weight of the key, from faint to 1 (the key alone).
    - `size`: sides of the patch as a share of those of the image, rounded to pixels.

    Guarantees:

    - canaries and references come from one generator and are independent;
    - takes no real row; ids are negative.

    Errors: `ComponentError` where inputs are no images, or the patch has fewer than 32 values.

    >>> BlendedPatch(per_client=2).reserve_rows(20, 900)
    0

    Reference: Chen, Liu, Li, Lu and Song (2017), Targeted Backdoor Attacks (blended keys); Carlini et al. (2019).
    """

    role: ClassVar[Role] = "canary"

    opacity: Annotated[float, annotated_types.Gt(0), annotated_types.Le(1)] = 0.5
    size: Annotated[float, annotated_types.Gt(0), annotated_types.Le(1)] = 0.75

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """Canaries are made, not taken."""
        return 0

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """`per_client` canaries for each owner, in order of client."""
        return self._plan_canaries(self.references, clients, space, rng)

    def references(self, count: int, space: Space, rng: np.random.Generator) -> NDArray[np.float32]:
        """(count, *shape) fresh keys at fresh places on the same image."""
        height, width = patch(space, self.name, self.size)
        values = math.prod(space.shape[:-2]) * height * width
        if values < FEWEST_BINARY:
            raise ComponentError(
                "injections.size",
                f"a patch of {height} x {width} pixels has {values} values, but at least {FEWEST_BINARY} are needed to "
                "distinguish canaries and references. Raise size, at most to 1",
            )
        keys = rng.integers(2, size=(count, *space.shape[:-2], height, width))
        top = rng.integers(space.shape[-2] - height + 1, size=count)
        left = rng.integers(space.shape[-1] - width + 1, size=count)
        images = np.repeat(space.mean[None].astype(np.float64), count, axis=0)
        for image, key, y, x in zip(images, keys, top, left, strict=True):
            place = (..., slice(y, y + height), slice(x, x + width))
            image[place] += self.opacity * (key - image[place])
        return images.astype(np.float32)
