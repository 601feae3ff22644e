"""Local SGD whose normalisation layers stay with each client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedmem.clients._local import LocalSgd
from fedmem.clients._personal import keep_personal_layers, with_personal_layers
from fedmem.contracts.arrays import Params
from fedmem.contracts.client import ClientState, Outcome
from fedmem.errors import ComponentError


@dataclass(frozen=True, kw_only=True)
class LocalNorm(LocalSgd):
    """`sgd` whose scales and shifts of normalisation layers are trained at each client and never sent.

    The idea of FedBN (Li et al., 2021) for networks with GroupNorm, which have no running statistics. With BatchNorm,
    `norm: {kind: local}` of the scenario is FedBN, for any client. Clients whose
    inputs look different (`feature_skew`) each have their own scales. It begins, sends and is read as `fedper`.

    A normalisation layer is one whose weight has a single axis.

    Guarantees:

    - what is sent depends on a client's own scales and shifts only through the gradients of the other layers.

    Errors: `ComponentError` if the network has no such layers.

    >>> import torch
    >>> shapes = {"conv.weight": (4, 1, 3, 3), "conv.bias": (4,), "norm.weight": (4,), "norm.bias": (4,)}
    >>> LocalNorm().personal_parameters({name: torch.zeros(shape) for name, shape in shapes.items()})
    ('norm.weight', 'norm.bias')

    Reference: Li, Jiang, Zhang, Kamp and Dou (2021), FedBN: federated learning on non-IID features via local batch
    normalization.
    """

    steps_by_rows: ClassVar[bool] = True

    def personal_parameters(self, params: Params) -> tuple[str, ...]:
        """Scales and shifts."""
        layers = {name.rpartition(".")[0] for name, v in params.items() if name.endswith("weight") and v.ndim == 1}
        if not layers:
            raise ComponentError(
                "client.kind",
                "local_norm keeps normalisation layers at each client, but the network has none; use a model that has, "
                "such as {kind: small_cnn}, or client sgd",
            )
        return tuple(name for name in params if name.rpartition(".")[0] in layers)

    def init(self, before: Params, payload: Params, memory: Params) -> ClientState:
        """As `sgd`, from the aggregate with one's own layers in it."""
        return super().init(with_personal_layers(before, memory), payload, {})

    def final(self, state: ClientState, before: Params) -> Outcome:
        """Keep all, send the rest."""
        return keep_personal_layers(state, before, self.personal_parameters(before))
