"""Local SGD whose last layers stay with each client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from fedmem.clients._local import LocalSgd
from fedmem.clients._personal import keep_personal_layers, with_personal_layers
from fedmem.contracts.client import ClientState, Outcome
from fedmem.contracts.types import Params
from fedmem.errors import ComponentError


@dataclass(frozen=True, kw_only=True)
class FedPer(LocalSgd):
    """`sgd` with personal layers (Arivazhagan et al., 2019): the last ones are trained at each client and never sent.

    A client begins its first turn with the initial values of its own layers, later ones with those that it ended its
    last turn with. It sends them back as they came, so that any strategy leaves them alone, or nearly: a mean of equal
    values is rounded. What labels alone teach, such as a wrong one, is mostly learned there.

    At level local a model is read with its holder's layers, at level global the aggregate is: each audit example with
    those of its holder, as they were when it last took part, and test data with those of each such holder in turn. The
    aggregate that is saved has the initial ones.

    Guarantees:

    - nothing that is sent depends on the values of one's own layers but through the gradients of the others;
    - with `layers: 0` it is `sgd`.

    Errors: `ComponentError` if no layer is left to share.

    Fields:
        layers: how many of the last layers that have parameters stay, in the order in which the network names them.

    >>> import torch
    >>> names = ("hidden.weight", "hidden.bias", "output.weight", "output.bias")
    >>> FedPer().own({name: torch.zeros(2) for name in names})
    ('output.weight', 'output.bias')

    Reference: Arivazhagan, Aggarwal, Singh and Choudhary (2019), federated learning with personalization layers.
    """

    steps_by_rows: ClassVar[bool] = True

    layers: Annotated[int, Ge(0)] = 1

    def own(self, params: Params) -> tuple[str, ...]:
        """The parameters of the last layers."""
        known = list(dict.fromkeys(name.rpartition(".")[0] for name in params))
        if self.layers >= len(known):
            raise ComponentError(
                "client.layers",
                f"{self.layers} layers stay with each client, but the network has {len(known)} with parameters, so "
                f"that nothing would be shared; use at most {len(known) - 1}",
            )
        last = known[len(known) - self.layers :]
        return tuple(name for name in params if name.rpartition(".")[0] in last)

    def init(self, before: Params, offer: Params, memory: Params) -> ClientState:
        """As `sgd`, from the aggregate with one's own layers in it."""
        return super().init(with_personal_layers(before, memory), offer, {})

    def final(self, state: ClientState, before: Params) -> Outcome:
        """Keep all, send the rest."""
        return keep_personal_layers(state, before, self.own(before))
