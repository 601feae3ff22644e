"""Confidence series: a classifier of what one model sequence says about an example over rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt

from fedmem.attacks._series_classifier import TrainedOn, score_function
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals


@dataclass(frozen=True, kw_only=True)
class ConfidenceSeries:
    """CS-MIA after Gu, Bai and Xu (2022): membership from the confidence of one model sequence over rounds.

    The score is the log odds of membership by ridge logistic regression on the last `length` margins of the sequence.
    At the owner these are its rounds of participation, as a server sees them. At level global they are the aggregates,
    as any client sees them. The margin log p_y − log Σ_{c≠y} p_c is the confidence on the scale of log odds.

    With `trained_on: other_runs`, the classifier of a run is trained on all examples of the kind in the other runs.
    Margins are measured from the mean of their example over runs. The other runs are shadow runs, as for LiRA, which
    reads the last margin alone. With `other_examples`, there is one federation. The attacker knows which of
    half of the other examples are members, and margins are measured from the mean over examples.

    - the penalty of the weights is `ridge` times their number; all rounds are used, and none is chosen by its accuracy;
    - rounds without the model are skipped, and a sequence shorter than `length` counts as average where it is missing;
    - reads coins, those of other runs or of other examples; never that of the target;
    - has no scores at the other clients. NaN where the margin is NaN.

    Fields:
        length: the number of last values that are read.
        trained_on: `other_runs` or `other_examples`.
        ridge: the penalty.

    >>> import numpy as np
    >>> is_in = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], dtype=bool)
    >>> series = np.stack([0.1 * is_in, 1.0 * is_in])
    >>> scores = ConfidenceSeries().scores(Signals(margin=series[-1], is_in=is_in, series={"margin": series}))
    >>> bool(scores[is_in].min() > scores[~is_in].max())
    True

    Reference: Gu, Bai and Xu (2022), CS-MIA: Membership inference attack based on prediction confidence series in
    federated learning.
    """

    title: ClassVar[str] = "confidence series"
    legend: ClassVar[str] = (
        "attack that classifies the margins of one model sequence over rounds, trained on other runs or examples"
    )
    knows: ClassVar[str] = "margins over rounds of shadow federations, or members among other examples"
    min_runs: ClassVar[int] = 8
    reads_series: ClassVar[tuple[str, ...]] = ("margin",)

    length: Annotated[int, Gt(0)] = 8
    trained_on: TrainedOn = "other_runs"
    ridge: Annotated[float, Gt(0)] = 1.0

    @property
    def counts_groups(self) -> bool:
        """Whether coins of the attacked run are left out: those of other examples could be that of the attacked one."""
        return self.trained_on == "other_runs"

    def scores(self, signals: Signals) -> FloatArray:
        """Log odds of membership (R, m)."""
        return self.scores_under_coins(signals)(signals.is_in)

    def scores_under_coins(self, signals: Signals) -> Callable[[BoolArray], FloatArray]:
        """The same as a function of the coins."""
        return score_function(signals, [signals.series["margin"]], self.length, self.ridge, self.trained_on)
