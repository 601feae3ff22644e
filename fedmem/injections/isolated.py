"""Audit examples with one input feature each, so that no two of them move the same weights of the first layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.errors import ComponentError
from fedmem.injections._placement import PlacedInjection

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class Isolated(PlacedInjection):
    """Inputs that are zero except for one feature, with a random label; out examples have the same input, another
    label.

    Example j is `x_j = A e_f(j)`, where `f(j)` is a feature of its own and A the `amplitude`. In a linear model its
    gradient is `(p - e_y) x_j`: apart from the bias it moves the weights of feature `f(j)` alone. So an audit reads
    each example without the others. With two classes the gradient of the out example points the other way. The two
    sides are then 2 clips apart after clipping, as far as neighbours that differ in one record (`replace`) can be.

    Use it with the estimator `audit` to test a privacy guarantee. Its memorisation is the influence of a label, not of
    an image.

    Fields

    - `amplitude`: A, in units of the data; null takes the largest value of the data. The bias has the share
      `1 / sqrt(1 + A^2)` of a gradient, so that large values isolate better.

    Guarantees:

    - no two examples share a feature, and a replacement row differs from its example in the label alone;
    - takes no real row, for examples or replacement rows; ids are negative.

    Errors: `ComponentError` where there are fewer features than examples, and for tables with categories.

    >>> from fedmem.contracts.data import Dataset
    >>> rows = Examples(inputs=np.ones((2, 1, 8, 8), np.float32), targets=np.array([0, 1]), ids=np.arange(2))
    >>> from fedmem.modalities.undescribed import modality_of_shape
    >>> data = Dataset(train=rows, test=rows, num_classes=2, modality=modality_of_shape(rows.inputs.shape[1:]))
    >>> space = Space.of(data)
    >>> made = Isolated(per_client=3).plan([ClientData(client=0, examples=rows)], None, space, np.random.default_rng(0))
    >>> made.examples.inputs.sum(axis=(1, 2, 3)).tolist(), (made.examples.targets + made.replacements.targets).tolist()
    ([1.0, 1.0, 1.0], [1, 1, 1])

    Reference: Nasr et al. (2023), Tight Auditing of Differentially Private Machine Learning, whose gradients of single
    coordinates these are inputs for.
    """

    role: ClassVar[Role] = "atypical"
    own_replacements: ClassVar[bool] = True

    amplitude: Annotated[float, annotated_types.Gt(0)] | None = None

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """None: examples are made, not taken."""
        return 0

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """`per_client` examples for each owner, in order of client, each with its replacement row."""
        if not space.modality.any_values:
            raise ComponentError(
                "injections",
                f"isolated sets one feature and all others to zero, which is no input of {space.modality.kind}; "
                "use random_row",
            )
        owners = self._choose_owners(clients, rng)
        count, features = len(owners) * self.per_client, math.prod(space.shape)
        if count > features:
            raise ComponentError(
                "injections",
                f"isolated needs a feature for each of {count} examples, but inputs have {features}; lower per_client "
                "or clients, or use random_pattern",
            )
        inputs = np.zeros((count, features), dtype=np.float32)
        size = float(space.high.max()) if self.amplitude is None else self.amplitude
        inputs[np.arange(count), rng.permutation(features)[:count]] = size
        targets = rng.integers(space.num_classes, size=count)
        others = (targets + rng.integers(1, space.num_classes, size=count)) % space.num_classes
        ids = -1 - np.arange(count)
        examples = Examples(inputs=inputs.reshape(count, *space.shape), targets=targets, ids=ids)
        placed = self._place(examples, owners)
        return replace(placed, replacements=replace(examples, targets=others, ids=ids - count))
