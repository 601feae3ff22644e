"""Targets of cross-influence: the examples whose losses may change because an audit example was trained on.

A signal that reads the influence τ(j→i) of each audit example j on each of Q targets i

- has the field `targets: NumTargets = 0`, which is Q;
- declares `variants = ("<signal>_on",)`, and as its `variant_names` the `InfluenceTargets.names`;
- gives values (T, m, Q) of that name, in the order of `InfluenceTargets.examples`; with no targets (T, m, 0);
- adds Q gradients, or what else a target costs, to its `passes_in`.

τ is the influence of the *presence* of j. It is positive where training on j lowers the loss on i, or raises the logit
of its label. Estimators read it by `contracts.signal.variants_of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.seeding import stream

NumTargets = Annotated[int, Ge(0), "identity_neutral"]
"""The type of the field `targets`."""


@dataclass(frozen=True, kw_only=True)
class InfluenceTargets:
    """Q examples that influence is read on: some audit examples, then some test examples.

    They depend on the numbers of audit and test examples alone. So they are the same for all models and signals, and of
    two numbers of targets the larger has those of the smaller.

    Attributes:
        audit: Audit examples, ascending: half of the targets, rounded up.
        test: Rows of the test set, ascending: the other half.

    Examples:
        >>> InfluenceTargets(audit=np.array([2]), test=np.array([0, 7])).names
        ('audit.2', 'test.0', 'test.7')
    """

    audit: IntArray
    test: IntArray

    @classmethod
    def draw(cls, federation: Federation, count: int) -> InfluenceTargets:
        """`count` targets; all that there are where a half is larger than its set."""
        sets = {"audit": (len(federation.audit), (count + 1) // 2), "test": (len(federation.test), count // 2)}
        drawn = {
            name: np.sort(stream(0, f"influence targets of {name}").permutation(size)[:half])
            for name, (size, half) in sets.items()
        }
        return cls(**drawn)

    @property
    def names(self) -> tuple[str, ...]:
        """(Q,) the names of the variants, `audit.<audit example>` and `test.<row of the test set>`."""
        return tuple(f"{name}.{row}" for name, rows in self._parts for row in rows.tolist())

    def examples(self, federation: Federation) -> Examples:
        """The Q examples, in the order of their names."""
        return Examples.concatenate([federation.audit.examples.take(self.audit), federation.test.take(self.test)])

    def __len__(self) -> int:
        return len(self.audit) + len(self.test)

    @property
    def _parts(self) -> tuple[tuple[str, IntArray], ...]:
        return ("audit", self.audit), ("test", self.test)


def on_itself_and_targets(name: str, values: FloatArray) -> Mapping[str, FloatArray]:
    """The values of a signal by name, from (..., 1 + Q) of each example: on itself, then on the targets.

    >>> parts = on_itself_and_targets("tracin", np.zeros((2, 5, 4)))
    >>> {name: part.shape for name, part in parts.items()}
    {'tracin': (2, 5), 'tracin_on': (2, 5, 3)}
    """
    return {name: values[..., 0], f"{name}_on": values[..., 1:]}
