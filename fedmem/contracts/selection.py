"""Selection: which of its own rows a client leaves out of a round, by a score of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

SelectionScore = Literal["loss", "el2n", "random"]
"""By what rows are ranked, see `Selection.by`."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How a client leaves rows out of a participation.

    The rows with the largest scores are left out, at the model that the client is sent. Of equal scores, the later row
    is left out first. The client counts as before in the aggregate, by all of its rows.

    Attributes:
        by: `loss`, in nats, or `el2n`, the Euclidean length of the probabilities minus the label as a one-hot. With
            `random` each place of a row has a number that is the same in every round of a run.
        share: The share of the client's rows that is left out, rounded down.
    """

    by: SelectionScore
    share: float

    def kept(self, count: int) -> int:
        """How many of so many rows are trained on: at least one of any.

        >>> Selection(by="loss", share=0.25).kept(10), Selection(by="loss", share=0.9).kept(1)
        (8, 1)
        """
        # equal to a whole number but for rounding
        return count - min(math.floor(self.share * count + 1e-9), max(count - 1, 0))
