"""Local SGD whose last layers stay with each client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from fedmem.clients._local import LocalSgd
from fedmem.clients._personal import keep_personal_layers, with_personal_layers
from fedmem.contracts.arrays import Params
from fedmem.contracts.client import ClientState, Outcome
from fedmem.errors import ComponentError


@dataclass(frozen=True, kw_only=True)
class FedPer(LocalSgd):
    """`sgd` with personal layers (Arivazhagan et al., 2019): the last ones are trained at each client and never sent.

    A client begins its first participation with the initial values of its own layers. It begins later ones with the
    values at the end of its last participation. In messages, its own layers go back as they came. So any strategy
    leaves them alone, up to the rounding of a mean of equal values. The knowledge of labels alone, such as a wrong one,
    is mostly learned there.

    At level local a model is read with its client's own layers. At level global the aggregate is completed. For an
    audit example it gets the layers of its owning client, as they were at its last participation. For test data it gets
    those of each such client, one after another. The saved aggregate has the initial layers.

    Guarantees:

    - what is sent depends on the values of a client's own layers only through the gradients of the other layers;
    - with `layers: 0` it is `sgd`.

    Errors: `ComponentError` if no layer is left to share.

    Fields:
        layers: How many of the last layers that have parameters stay, in the order in which the network names them.

    >>> import torch
    >>> names = ("hidden.weight", "hidden.bias", "output.weight", "output.bias")
    >>> FedPer().personal_parameters({name: torch.zeros(2) for name in names})
    ('output.weight', 'output.bias')

    Reference: Arivazhagan, Aggarwal, Singh and Choudhary (2019), federated learning with personalization layers.
    """

    steps_by_rows: ClassVar[bool] = True

    layers: Annotated[int, Ge(0)] = 1

    def personal_parameters(self, params: Params) -> tuple[str, ...]:
        """The parameters of the last layers."""
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in params))
        if self.layers >= len(layers):
            raise ComponentError(
                "client.layers",
                f"{self.layers} layers stay with each client, but the network has {len(layers)} with parameters, so "
                f"that nothing would be shared; use at most {len(layers) - 1}",
            )
        last = layers[len(layers) - self.layers :]
        return tuple(name for name in params if name.rpartition(".")[0] in last)

    def init(self, before: Params, payload: Params, memory: Params) -> ClientState:
        """As `sgd`, from the aggregate with one's own layers in it."""
        return super().init(with_personal_layers(before, memory), payload, {})

    def final(self, state: ClientState, before: Params) -> Outcome:
        """Keep all, send the rest."""
        return keep_personal_layers(state, before, self.personal_parameters(before))
