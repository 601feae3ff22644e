"""The passive white-box attacker of Nasr, Shokri and Houmansadr, with a linear classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt

from fedmem.attacks._series_classifier import TrainedOn, score_function
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals


@dataclass(frozen=True, kw_only=True)
class Nasr:
    """The passive attack of Nasr, Shokri and Houmansadr (2019), with ridge logistic regression in place of networks.

    It reads the last `length` models of a sequence. Of each it takes the loss, the margin, the norm of the last layer's
    gradient, and the alignment of the update with the example. At the owner it is the local attacker, a server that
    sees the client alone. At level global it is a client that sees the aggregates. The paper's attacker also reads
    activations and whole gradients; its active attacks are not implemented.

    With `trained_on: other_examples`, the attacker sees one federation and knows which of half of the other examples
    are members. Quantities are measured from their mean over examples. With `other_runs`, it is trained on the other
    runs as shadow runs, and they are measured from the mean of their example.

    - needs `signals: [{kind: last_layer_norm}, {kind: update_alignment}]`; norms are read as log(1 + x);
    - the penalty of the weights is `ridge` times their number;
    - rounds without the model are skipped, and a sequence shorter than `length` counts as average where it is missing;
    - reads coins, those of other examples or of other runs; never that of the target;
    - has no scores at the other clients. NaN where the margin is NaN.

    Fields:
        length: the number of last values that are read of each quantity.
        trained_on: `other_examples` or `other_runs`.
        ridge: the penalty.

    >>> Nasr().reads_series
    ('loss', 'margin', 'last_layer_norm', 'update_alignment')

    Reference: Nasr, Shokri and Houmansadr (2019), Comprehensive privacy analysis of deep learning.
    """

    title: ClassVar[str] = "Nasr passive"
    legend: ClassVar[str] = (
        "white-box attack that classifies losses, margins, gradient norms and alignments over rounds, trained on "
        "other examples of the same federation, or on other runs"
    )
    knows: ClassVar[str] = "models and updates over rounds of one federation, and members among other examples"
    min_runs: ClassVar[int] = 8
    reads_series: ClassVar[tuple[str, ...]] = ("loss", "margin", "last_layer_norm", "update_alignment")

    length: Annotated[int, Gt(0)] = 4
    trained_on: TrainedOn = "other_examples"
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
        loss, margin, norm, alignment = (signals.series[name] for name in self.reads_series)
        quantities = [loss, margin, np.log1p(norm), alignment]
        return score_function(signals, quantities, self.length, self.ridge, self.trained_on)
