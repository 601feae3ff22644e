"""Logits of all classes on test examples, stored for estimators that compare what models say of new examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.signal import SignalContext
from fedmem.signals._observed_rounds import ObservedRounds


@dataclass(frozen=True, kw_only=True)
class Logits(ObservedRounds):
    """z_c − mean over classes of z: the centred logit of each class c, on test examples.

    The softmax is blind to a number that is added to all logits of an example. So logits are centred: they sum to 0.
    With two classes they are ± half of the difference of both logits, which is the margin.

    They are stored as `logit.0`, `logit.1`, ... in `set_signals.parquet`, and have no rows in tables.
    `unique_information` reads them. Each value is 4 bytes, so that all observed rounds can be large: `fedmem check` has
    the size. Most uses need the last round alone, with `every` equal to `rounds`. A model that has diverged has NaN or
    infinity.

    Fields

    - `rows`: on how many test examples; all, where there are no more.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> Logits(rows=50).set, Logits(rows=50).set_rows
    ('test', 50)
    """

    texts: ClassVar[bool] = False
    set: ClassVar[str] = "test"
    per_class: ClassVar[tuple[str, ...]] = ("logit",)

    rows: Annotated[int, Gt(0)] = 200

    @property
    def set_rows(self) -> int:
        """The rows that are asked for."""
        return self.rows

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        logits = context.logits()
        return {"logit": logits - logits.mean(axis=-1, keepdims=True)}
