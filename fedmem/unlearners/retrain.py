"""Models are replaced by initial weights: the rounds of the phase train again without the forgotten rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedmem.contracts.arrays import Params
from fedmem.contracts.unlearner import UnlearningContext


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """Exact unlearning: training starts again from the initial weights of the run (Bourtoule et al., 2021).

    Give the phase as many rounds as the first training. No run trains on forgotten rows, so that their memorisation is
    0 but for noise. Runs without these rows are already the reference for the results of other unlearners, at no cost.
    `retrain` is the reference for their costs.

    Fields: none.

    >>> Retrain()
    Retrain()

    Reference: Bourtoule et al. (2021), Machine Unlearning.
    """

    def unlearn(self, context: UnlearningContext) -> Sequence[Params]:
        """The initial weights of each run."""
        return [run.initial for run in context.runs]
