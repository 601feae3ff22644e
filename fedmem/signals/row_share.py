"""The share of the rows behind an update that have some value in a column of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.signal import SignalContext
from fedmem.signals._observed_rounds import ObservedRounds


@dataclass(frozen=True, kw_only=True)
class RowShare(ObservedRounds):
    """The share of a client's rows with `value` in `column`, or of the rows of all clients behind an aggregate.

    It is a fact about the data, which labels clients for `client_attribute`, and no quantity of a model. It counts the
    rows that are trained on in that run and round. Generated rows have no value. It is stored once a model as
    `row_share.rows`, with the first drawn row of the test set. Tables have no rows of it. NaN without rows.

    Fields

    - `column`: a column of the data or a sensitive attribute, whether or not it is an input; `class` is the label.
    - `value`: the value, as text; of classes the name, or the number where they have no names.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    Errors: `ComponentError` for a column or a value that the data do not have.

    >>> RowShare(column="sex", value="Female").set_rows
    1
    """

    texts: ClassVar[bool] = True
    set: ClassVar[str] = "test"
    set_rows: ClassVar[int] = 1
    passes: ClassVar[float] = 0.0
    reads_update: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("row_share",)

    column: str = "class"
    value: str = "0"

    def variant_names(self, federation: Federation) -> Mapping[str, Sequence[str]]:
        """One value. Errors: `ComponentError` for a column or a value that the data do not have."""
        self._matches(federation, np.zeros(0, dtype=np.int64))
        return {"row_share": ("rows",)}

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """(T, n, 1)."""
        shares = np.array([self._share(context.federation, transition) for transition in context.transitions])
        return {"row_share": np.repeat(shares[:, None, None], len(context.examples), axis=1)}

    def _share(self, federation: Federation, transition: Transition) -> float:
        clients = (transition.client,) if transition.level == "local" else transition.clients
        rows = [federation.rows(transition.run, client, transition.round) for client in clients]
        ids = federation.store.ids[np.concatenate([np.zeros(0, dtype=np.int64), *rows])]
        return float(self._matches(federation, ids).mean()) if len(ids) else math.nan

    def _matches(self, federation: Federation, ids: IntArray) -> BoolArray:
        return federation.row_columns.matches(self.column, self.value, ids)
