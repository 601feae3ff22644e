"""Local SGD whose updates are cut to their largest values; what was cut off is sent in later rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt, Le

from fedmem.clients._local import LocalSgd
from fedmem.contracts.arrays import Params
from fedmem.contracts.client import ClientState, Outcome
from fedmem.training.updates import prune_update


@dataclass(frozen=True, kw_only=True)
class TopK(LocalSgd):
    """`sgd` with sparsification and error feedback (Stich et al., 2018): the largest values of `u + e` are sent.

    With u the update of this round and e the residual, which is zero at first: `s = top_k(u + e)`, `e = u + e - s`, and
    `w_0 + s` is sent. Of the n values of each parameter, `n - floor((1 - share) n)` are sent; among equal magnitudes,
    the last ones. The client keeps the model that it trained.

    The residual holds what earlier rounds learned. An update may therefore leak rows that are no longer there, and a
    defence that cuts updates off only delays. Without error feedback this is the defence `prune`.

    Guarantees:

    - what was sent in all rounds and the residual add up to all updates, but for rounding;
    - a `share` of 1 sends what `sgd` sends, but for rounding, with a residual of zero;
    - at least one value of each parameter is sent.

    Fields:
        share: Share of the values of each parameter that are sent.

    >>> import torch
    >>> before, trained = {"w": torch.zeros(4)}, {"w": torch.tensor([1.0, -3.0, 2.0, 0.5])}
    >>> outcome = TopK(share=0.25).final({"params": trained, "residual": {"w": torch.zeros(4)}}, before)
    >>> outcome.sent["w"].tolist(), outcome.memory["w"].tolist()
    ([0.0, -3.0, 0.0, 0.0], [1.0, 0.0, 2.0, 0.5])

    Reference: Stich, Cordonnier and Jaggi (2018), sparsified SGD with memory; Karimireddy et al. (2019), error feedback
    fixes SignSGD and other gradient compression schemes.
    """

    steps_by_rows: ClassVar[bool] = True

    share: Annotated[float, Gt(0), Le(1)] = 0.1

    def init(self, before: Params, payload: Params, memory: Params) -> ClientState:
        """As `sgd`, with the residual of the client's last round."""
        residual = memory or {name: value.new_zeros(value.shape) for name, value in before.items()}
        return {**super().init(before, payload, memory), "residual": residual}

    def final(self, state: ClientState, before: Params) -> Outcome:
        """Send the largest values, and remember the others."""
        params, residual = state["params"], state["residual"]
        full_update = {name: value - before[name] + residual[name] for name, value in params.items()}
        update = prune_update(full_update, 1 - self.share)
        return Outcome(
            sent={name: before[name] + value for name, value in update.items()},
            kept=params,
            memory={name: value - update[name] for name, value in full_update.items()},
        )
