"""Local SGD of a client that leaves out the rows which it finds riskiest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Lt

from fedmem.clients._local import LocalSgd
from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.client import ClientState, Outcome
from fedmem.contracts.selection import Selection, SelectionScore


@dataclass(frozen=True, kw_only=True)
class Selective(LocalSgd):
    """`sgd` on a part of the client's rows: in each participation, those with the largest scores are left out.

    Scores are those of the rows at the model that the client is sent, so that nothing but its own rows is used. Rows
    that are hard then, such as rare or wrongly labelled ones, are the ones that a model tends to memorise. Later
    participations rank again, so that a row may be left out once and trained on later. In the first participation of a
    federation, scores are those of the initial model, and say little.

    `random` leaves out as many rows, in every participation of a run the same ones while its rows stay the same. It is
    what a score must be compared with, since fewer rows and fewer steps alone lower memorisation.

    Guarantees:

    - with a `share` of 0 every bit is that of `sgd`;
    - the server weighs the client by all of its rows;
    - the rule does not look at coins. Whether an example is left out may depend on the other rows of its client;
    - it gives no differential privacy. What is left out of one participation depends on all rows, and on the model.

    Signals that read the objective of clients, such as `influence_function`, are refused.

    Fields:
        by: What rows are ranked by: `loss`, `el2n` (the length of the error of the probabilities; no texts) or
            `random`.
        share: The share of rows that is left out, rounded down, from 0 to less than 1.

    >>> Selective(share=0.25, batch_size=4).num_steps(16)
    3

    References: for `loss` Shen and Sanghavi (2019), Learning with bad training data via iterative trimmed loss
    minimization. For `el2n` Paul, Ganguli and Dziugaite (2021), Deep learning on a data diet. Carlini et al. (2022),
    The privacy onion effect, for what leaving out may do to other rows.
    """

    steps_by_rows: ClassVar[bool] = True

    by: SelectionScore = "loss"
    share: Annotated[float, Ge(0), Lt(1)] = 0.1

    @property
    def selection(self) -> Selection:
        """How rows are left out."""
        return Selection(by=self.by, share=self.share)

    def num_steps(self, num_examples: int) -> int:
        """Steps in a round: those of a client with the rows that are kept."""
        return self._steps_on(self.selection.kept(num_examples))

    def batches(self, num_examples: int, rng: np.random.Generator) -> IntArray:
        """(steps, batch_size) positions among the rows that are kept, which are found at the model that is sent."""
        return super().batches(self.selection.kept(num_examples), rng)

    def final(self, state: ClientState, before: Params) -> Outcome:
        """Send the model and keep the same."""
        return self._send_all(state)
