"""How much lower the loss of an example is where it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Reading
from fedmem.estimation.statistics import mean, means_by_coin
from fedmem.estimation.two_way import of_difference, place_among


@dataclass(frozen=True, kw_only=True)
class LossGap:
    """Mean loss over runs without the example minus mean loss over runs with it; the mean over a kind.

    Fields: none.

    >>> LossGap().measures[0].unit
    'nats'
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="loss_gap", title="loss gap", means="Loss without the example minus with it.", unit="nats", null=0.0
        ),
    )
    min_runs: ClassVar[int] = 2

    def estimate(self, view: View) -> Sequence[Estimate]:
        """One value for each kind."""
        found, values, is_in = [], -mean(view.loss, axis=1), view.audit.is_in
        inside, outside = (side[0] for side in means_by_coin(values, is_in, np.ones((1, view.audit.runs))))
        for kind in view.audit.kinds:
            rows = np.flatnonzero((view.audit.kind == kind) & ~np.isnan(inside - outside))
            if len(rows):
                found.append(
                    Estimate(
                        metric="loss_gap",
                        kind=kind,
                        value=float((inside - outside)[rows].mean()),
                        influence=place_among(of_difference(values[:, rows], is_in[:, rows]), rows, len(view.audit)),
                        null=0.0,
                        n=len(rows),
                        examples=rows,
                    )
                )
        return found

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """None."""
        return ()
