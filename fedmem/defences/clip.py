"""Updates are scaled down to a norm of at most S."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt

from fedmem.contracts.arrays import Params
from fedmem.contracts.defence import Draws
from fedmem.training.updates import clip_update


@dataclass(frozen=True, kw_only=True)
class Clip:
    """`u * min(1, S / |u|)`, with the L2 norm over all parameters together (McMahan et al., 2018).

    Bounds how far one client can move the model. Clipping alone is no privacy: the direction, which reveals what a
    client holds, is sent as it is. With `noise` after it, it is the Gaussian mechanism.

    Guarantees:

    - a longer update has norm S, computed in float64 and rounded as the parameters are; a shorter one is unchanged;
    - an update of zero stays zero.

    Fields:
        norm: S, the largest L2 norm.

    >>> import torch
    >>> Clip(norm=5.0).apply({"w": torch.tensor([6.0, 8.0])}, {})["w"].tolist()
    [3.0, 4.0]

    Reference: McMahan et al. (2018), learning differentially private recurrent language models.
    """

    draws: ClassVar[Draws] = "none"

    norm: Annotated[float, Gt(0)] = 1.0

    @property
    def norm_bound(self) -> float:
        """S."""
        return self.norm

    def apply(self, update: Params, drawn: Params) -> Params:
        """Scale the update where it is too long."""
        return clip_update(update, self.norm)
