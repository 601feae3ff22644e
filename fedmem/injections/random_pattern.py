"""Canaries: images of noise with a random label, and a generator that can make more of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.errors import ComponentError
from fedmem.injections._patches import FEWEST_BINARY
from fedmem.injections._placement import PlacedInjection

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class RandomPattern(PlacedInjection):
    """Every pixel is drawn independently, the label uniformly over the classes; nothing about them can be learnt.

    The pattern does not depend on the label. So fresh references (`references`) are patterns without a label, and a
    canary is ranked among them under its own label. The space has 2^pixels members if binary, so a reference never
    happens to be the canary; below 32 pixels binary patterns are refused.

    Fields

    - `values`: `binary` draws 0 or 1 with equal odds, far from any natural image; `uniform` draws from [0, 1).

    Guarantees:

    - canaries and references come from one generator and are independent;
    - takes no real row; ids are negative.

    Errors: `ComponentError` for binary patterns of fewer than 32 pixels, and for tables: use `random_row` there.

    >>> from fedmem.contracts.data import Dataset, Examples
    >>> rows = Examples(inputs=np.zeros((2, 1, 8, 8), np.float32), targets=np.array([0, 1]), ids=np.arange(2))
    >>> from fedmem.modalities.undescribed import modality_of_shape
    >>> data = Dataset(train=rows, test=rows, num_classes=2, modality=modality_of_shape(rows.inputs.shape[1:]))
    >>> space = Space.of(data)
    >>> RandomPattern().references(2, space, np.random.default_rng(0)).shape
    (2, 1, 8, 8)

    Reference: Carlini, Liu, Erlingsson, Kos and Song (2019), The Secret Sharer, carried over to classification.
    """

    role: ClassVar[Role] = "canary"
    densities: ClassVar[bool] = True

    values: Literal["binary", "uniform"] = "binary"

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """Canaries are made, not taken."""
        return 0

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """`per_client` canaries for each owner, in order of client."""
        return self._plan_canaries(self.references, clients, space, rng)

    def references(self, count: int, space: Space, rng: np.random.Generator) -> NDArray[np.float32]:
        """(count, *shape) fresh patterns."""
        if not space.modality.any_values:
            raise ComponentError(
                "injections",
                f"random_pattern fills images with noise, but the data are {space.modality.kind}; "
                "use random_row, whose rows the table could hold",
            )
        if self.values == "uniform":
            return rng.random((count, *space.shape), dtype=np.float32)
        if math.prod(space.shape) < FEWEST_BINARY:
            raise ComponentError(
                "injections",
                f"binary random_pattern needs at least {FEWEST_BINARY} values per input, but inputs have shape "
                f"{space.shape}; write `values: uniform`",
            )
        return rng.integers(2, size=(count, *space.shape)).astype(np.float32)
