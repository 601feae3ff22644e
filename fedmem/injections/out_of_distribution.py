"""Images from another world: gratings with a random label, or real images in negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.injections._patches import sides
from fedmem.injections._placement import PlacedInjection

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class OutOfDistribution(PlacedInjection):
    """Structured images that the data set does not hold.

    A grating is `x = 1/2 + 1/2 sin(2 pi f (u cos t + v sin t) + p)`, with u, v from 0 to 1 over the image. Direction t
    and phase p are uniform on the circle. Frequency f is uniform from 1 to a quarter of the longer side, the same in
    all channels. The label is uniform over the classes. A negative is a real row of the reserve turned upside down
    about the middle of the range of the data. It has its true label, drawn like the labels of the owner's own rows.

    Fields

    - `source`: `gratings` are made and share nothing with the data; `negatives` keep shapes and labels of real rows.

    Guarantees:

    - values stay within the range of the data;
    - gratings take no real row and have negative ids, the id of a negative is the row of the data set.

    Errors: `ComponentError` where inputs are no images.

    >>> OutOfDistribution().reserve_rows(20, 900), OutOfDistribution(source="negatives").reserve_rows(20, 900)
    (0, 80)

    Reference: Hendrycks and Gimpel (2017), A Baseline for Detecting Misclassified and Out-of-Distribution Examples.
    """

    role: ClassVar[Role] = "atypical"
    densities: ClassVar[bool] = True

    source: Literal["gratings", "negatives"] = "gratings"

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """Gratings are made, negatives are taken."""
        return self._num_owners(num_clients) * self.per_client if self.source == "negatives" else 0

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """`per_client` images for each owner, in order of client."""
        owners = self._choose_owners(clients, rng)
        low, high = space.low.min(), space.high.max()
        if self.source == "negatives":
            sides(space, self.name)
            rows = self._rows(owners, reserve, rng)
            return self._place(replace(rows, inputs=low + high - rows.inputs), owners)
        gratings = self._gratings(len(owners) * self.per_client, space, rng)
        return self._plan_inputs((low + (high - low) * gratings).astype(np.float32), owners, space, rng)

    def _gratings(self, count: int, space: Space, rng: np.random.Generator) -> NDArray[np.float64]:
        """(count, *shape) gratings from 0 to 1."""
        height, width = sides(space, self.name)
        angle, phase = rng.uniform(0, 2 * np.pi, size=(2, count, 1, 1))
        frequency = rng.uniform(1, max(1, max(height, width) / 4), size=(count, 1, 1))
        v, u = np.meshgrid(np.arange(height) / height, np.arange(width) / width, indexing="ij")
        waves = np.sin(2 * np.pi * frequency * (u * np.cos(angle) + v * np.sin(angle)) + phase)
        lead = tuple(1 for _ in space.shape[:-2])
        return np.broadcast_to((1 + waves.reshape(count, *lead, height, width)) / 2, (count, *space.shape))
