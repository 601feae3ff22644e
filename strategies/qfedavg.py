"""Averaging in which clients with a larger loss count more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt

from ._geometry import drop_non_finite, move_model, products, updates
from ._rule import Arrays, Round, ServerRule


@dataclass(frozen=True, kw_only=True)
class QFedAvg(ServerRule):
    """q-FedAvg, a step on the sum of `F_k^(q + 1)` instead of the mean loss, for fairness (Li et al., 2020).

    With `u_k` the updates, `F_k` the loss of client k, and `L = 1 / lr`: `w = w + sum_k L F_k^q u_k / sum_k h_k`,
    `h_k = q F_k^(q - 1) L^2 |u_k|^2 + L F_k^q`.

    - `q` 0 is uniform averaging. A larger `q` leans to clients of large loss, hard and atypical ones, and shortens the
      step where updates are long.
    - Ignores the numbers of examples; keeps no state.
    - `F_k` is the mean loss over the batches of the client's round. In the paper it is the loss of the model that was
      sent, which clients would have to evaluate first. Flower's class takes the metric that clients call `train_loss`,
      as here.
    - A client whose loss or model is not finite counts as absent. Without any client the model is kept. A loss of zero
      counts as 1e-10.
    - Flower's class agrees, but returns float64 and empties the replies.

    Fields:
        q: How much a large loss counts.
        lr: Learning rate of the clients, whose inverse stands for the Lipschitz constant of their gradients.

    >>> sent = {"w": torch.tensor([[[2.0], [0.0]]])}
    >>> present = torch.ones((1, 2), dtype=torch.bool)
    >>> ids, report = torch.arange(2)[None], {"loss": 2.0 * present.double()}
    >>> start = {"w": torch.zeros(1, 1)}
    >>> round = Round(number=1, before=start, sent=sent, weights=ids, present=present, clients=ids, report=report)
    >>> [QFedAvg(q=q, lr=1.0).rule({}, round)[0]["w"].item() for q in (0.0, 1.0)]
    [1.0, 0.5]

    Reference: Li, Sanjabi, Beirami and Smith (2020), fair resource allocation in federated learning.
    """

    reads: ClassVar[tuple[str, ...]] = ("loss",)

    q: Annotated[float, Ge(0)] = 1.0
    lr: Annotated[float, Gt(0)] = 0.1

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """One step on the reweighted losses."""
        if "loss" not in rnd.report:
            raise ValueError(
                "qfedavg weighs clients by their loss, but no client says its own; let clients report `train_loss` "
                "among their metrics, or use fedavg"
            )
        loss = rnd.report["loss"]
        rnd = drop_non_finite(replace(rnd, present=rnd.present & loss.isfinite()))
        loss = torch.where(rnd.present, loss, torch.ones_like(loss)).clamp(min=1e-10)
        vectors = updates(rnd)
        # the paper's numerator and denominator, both divided by L
        up = torch.where(rnd.present, loss**self.q, torch.zeros_like(loss))
        h = up * (1 + self.q * products(vectors, vectors) / (self.lr * loss))
        total = h.cumsum(dim=1)[:, -1:]
        return move_model(rnd, vectors, up / torch.where(total > 0, total, torch.ones_like(total))), state
