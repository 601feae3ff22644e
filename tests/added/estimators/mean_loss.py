"""How high the loss of audit examples is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.estimator import Estimate, Influence, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Reading


@dataclass(frozen=True, kw_only=True)
class MeanLoss:
    """The mean loss of the examples of a kind, whether they were trained on or not.

    Fields: none.

    >>> MeanLoss().measures[0].unit
    'nats'
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(name="mean_loss", title="mean loss", means="Mean loss of audit examples.", unit="nats"),
    )

    def estimate(self, view: View) -> Sequence[Estimate]:
        """One value for each kind."""
        found = []
        for kind in view.audit.kinds:
            rows = np.flatnonzero((view.audit.kind == kind) & ~np.isnan(view.loss).all(axis=(0, 1)))
            if not len(rows):
                continue
            cells = np.zeros((view.audit.runs, len(view.audit)))
            found.append(
                Estimate(
                    metric="mean_loss",
                    kind=kind,
                    value=float(np.nanmean(view.loss[:, :, rows])),
                    influence=Influence(examples=np.zeros(len(view.audit)), cells=cells),
                    null=float("nan"),
                    n=len(rows),
                    examples=rows,
                )
            )
        return found

    def tests(self, view: View) -> Sequence[tuple[int, Reading]]:
        """None."""
        return ()
