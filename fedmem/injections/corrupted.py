"""Real images, rightly labelled, that are noisy, blurred or partly covered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.injections._patches import sides
from fedmem.injections._placement import PlacedInjection

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class Corrupted(PlacedInjection):
    """A reserve row whose image is damaged; the label, drawn like those of the owner's own rows, stays true.

    Let s be the severity, and let values range from `low` to `high` over the whole data set. `noise` adds normal noise
    of standard deviation s (high - low) and clips. `blur` is a Gaussian of s/4 of the shorter side. `occlusion` covers
    a rectangle at a random place, a share s of the area, with the middle of the range.

    Fields

    - `damage`: the kind of damage to the image.
    - `severity`: how much, above 0 and at most 1.

    Guarantees:

    - values stay within the range of the data; the target is the true one;
    - the row leaves the reserve: no client trains on its undamaged version;
    - the id is the row of the data set.

    Errors: `ComponentError` where inputs are no images.

    >>> Corrupted(per_client=2).reserve_rows(20, 900)
    40

    Reference: Hendrycks and Dietterich (2019), Benchmarking Neural Network Robustness to Common Corruptions.
    """

    role: ClassVar[Role] = "atypical"

    damage: Literal["noise", "blur", "occlusion"] = "noise"
    severity: Annotated[float, annotated_types.Gt(0), annotated_types.Le(1)] = 0.4

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """The damaged rows, in order of client."""
        owners = self._choose_owners(clients, rng)
        sides(space, self.name)
        rows = self._rows(owners, reserve, rng)
        damage = {"noise": self._noise, "blur": self._blur, "occlusion": self._occlusion}[self.damage]
        return self._place(replace(rows, inputs=damage(rows.inputs, space, rng)), owners)

    def _noise(self, inputs: NDArray[np.float32], space: Space, rng: np.random.Generator) -> NDArray[np.float32]:
        low, high = space.low.min(), space.high.max()
        noise = self.severity * float(high - low) * rng.standard_normal(inputs.shape)
        return np.clip(inputs + noise, low, high).astype(np.float32)

    def _blur(self, inputs: NDArray[np.float32], space: Space, rng: np.random.Generator) -> NDArray[np.float32]:
        from scipy.ndimage import gaussian_filter

        sigma = self.severity / 4 * min(sides(space, self.name))
        widths = (0,) * (inputs.ndim - 2) + (sigma, sigma)
        blurred: NDArray[np.float64] = gaussian_filter(inputs.astype(np.float64), widths, mode="nearest")
        return np.clip(blurred, space.low.min(), space.high.max()).astype(np.float32)

    def _occlusion(self, inputs: NDArray[np.float32], space: Space, rng: np.random.Generator) -> NDArray[np.float32]:
        height, width = sides(space, self.name)
        h, w = (max(1, int(side * self.severity**0.5 + 0.5)) for side in (height, width))
        covered = inputs.copy()
        top = rng.integers(height - h + 1, size=len(inputs))
        left = rng.integers(width - w + 1, size=len(inputs))
        for image, y, x in zip(covered, top, left, strict=True):
            image[..., y : y + h, x : x + w] = (space.low.min() + space.high.max()) / 2
        return covered
