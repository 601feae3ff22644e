"""From views to the series that a membership attack reads: nothing of a later round than that of the attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.estimator import View
from fedmem.contracts.series import Series


def last_round(view: View, rows: IntArray) -> IntArray:
    """(n,) the round of the model that a view shows of each example; −1 where it shows none."""
    if view.round is not None:
        return np.full(len(rows), view.round)
    models = view.sets["audit"].models
    of = models.of[0, rows]
    return np.where(of < 0, -1, models.round[of])


def series_until(view: View, rows: IntArray, names: Sequence[str]) -> Mapping[str, FloatArray]:
    """(S, R, n) values by name of the sequence of a place on these examples, up to the round of the view.

    Quantities that were not read are left out.
    """
    if view.series is None or not names:
        return {}
    until = last_round(view, rows)
    is_later = view.series.rounds[:, None] > until
    count = int((~is_later).any(1).sum())
    series = {}
    for name in names:
        values = view.series.values(name)
        if values is not None:
            series[name] = np.where(is_later[:, None], np.nan, values[:, :, rows])[:count]
    return series


def others_until(view: View, rows: IntArray, names: Sequence[str]) -> Mapping[str, Sequence[FloatArray]]:
    """For each round up to that of the view (K, R, n) values by name of the other clients of the round."""
    if view.others is None:
        return {}
    until = last_round(view, rows)
    return {
        name: OtherClients(series=view.others, name=name, columns=rows, until=until)
        for name in names
        if view.others.has(name)
    }


@dataclass(frozen=True, kw_only=True)
class OtherClients(Sequence[FloatArray]):
    """One quantity of the other clients of each observed round, gathered when it is asked for.

    Attributes:
        series: Of the other clients.
        name: Of the quantity.
        columns: (n,) the examples.
        until: (n,) the last round that is shown of each.
    """

    series: Series
    name: str
    columns: IntArray
    until: IntArray

    def __len__(self) -> int:
        """S, the number of rounds."""
        return int((self.series.rounds <= self.until.max(initial=-1)).sum())

    @overload
    def __getitem__(self, position: int) -> FloatArray: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[FloatArray]: ...
    def __getitem__(self, position: int | slice) -> FloatArray | Sequence[FloatArray]:
        """(K, R, n) the values at a round; NaN where the round is later than that of the view."""
        places = range(len(self))[position]
        if isinstance(places, range):
            return [self[place] for place in places]
        values = self.series.at_round(self.name, places, self.columns)
        return np.where(self.series.rounds[places] > self.until, np.nan, values)
