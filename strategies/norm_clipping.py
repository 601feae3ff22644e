"""The mean of updates that are cut to a greatest length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt

from ._geometry import drop_non_finite, move_model, norms, updates
from ._rule import Arrays, Round, ServerRule, share


@dataclass(frozen=True, kw_only=True)
class NormClipping(ServerRule):
    """Each update is shortened to `radius` where it is longer, then averaged (Sun et al., 2019).

    `w = w + sum_k a_k u_k min(1, radius / |u_k|)`, with the length over all arrays.

    Guarantees:

    - one client moves the model by at most its weight times `radius`. Replacing it by another moves the model by at
      most twice that. Without noise this is no differential privacy;
    - an update of zero stays zero. A radius beyond all updates gives `fedavg`, up to rounding;
    - a client whose model is not finite counts as absent; with no client left the model is kept. Keeps no state.

    Clients that learn much from few rows send long updates, so their part is cut.

    Fields:
        radius: Greatest length of an update.
        weighting: `uniform`, or `size` (by number of examples, which clients state themselves).

    >>> sent = {"w": torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])}
    >>> present, clients = torch.ones((1, 2), dtype=torch.bool), torch.arange(2)[None]
    >>> start = {"w": torch.zeros(1, 2)}
    >>> round = Round(number=1, before=start, sent=sent, weights=present.double(), present=present, clients=clients)
    >>> [f"{value:.1f}" for value in NormClipping(radius=1.0).rule({}, round)[0]["w"][0].tolist()]
    ['0.3', '0.4']

    Reference: Sun, Kairouz, Suresh and McMahan (2019), can you really backdoor federated learning?
    """

    radius: Annotated[float, Gt(0)] = 1.0
    weighting: Literal["size", "uniform"] = "uniform"

    @property
    def reads(self) -> tuple[str, ...]:
        """The numbers of rows, where clients count by them."""
        return ("rows",) if self.weighting == "size" else ()

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """Shorten and average."""
        rnd = drop_non_finite(rnd)
        weights = share(rnd.weights if self.weighting == "size" else torch.ones_like(rnd.weights), rnd.present)
        vectors = updates(rnd)
        # a length of zero gives infinity here, hence a factor of one
        return move_model(rnd, vectors, weights * (self.radius / norms(vectors)).clamp(max=1)), state
