"""Local stochastic gradient descent, the client of federated averaging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedmem.clients._local import LocalSgd
from fedmem.contracts.arrays import Params
from fedmem.contracts.client import ClientState, Outcome


@dataclass(frozen=True, kw_only=True)
class Sgd(LocalSgd):
    """Mini-batch SGD for a number of epochs or steps, each epoch in an order of its own (McMahan et al., 2017).

    The model that is sent is also kept. The client understands `mu` and `linear` of the server payload (`fedprox`,
    `scaffold`, `feddyn`). Where `linear` is in the payload, it reports the learning rate of the round as `lr`.

    >>> Sgd(lr=0.1, epochs=2, batch_size=4).num_steps(10)
    6
    >>> Sgd(lr=0.1, steps=5, batch_size=4).num_steps(10)
    5

    Reference: McMahan et al. (2017), communication-efficient learning of deep networks from decentralized data.
    """

    steps_by_rows: ClassVar[bool] = True
    central: ClassVar[bool] = True

    def final(self, state: ClientState, before: Params) -> Outcome:
        """Send the model and keep the same."""
        return self._send_all(state)
