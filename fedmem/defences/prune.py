"""The smallest values of an update are set to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le

from fedmem.contracts.arrays import Params
from fedmem.contracts.defence import Draws
from fedmem.training.updates import prune_update


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Gradient pruning: `floor(share * n)` of n values, those of smallest magnitude, are set to zero.

    Values that are cut off are lost, unlike in client `top_k`, which sends them later. Against gradient inversion
    pruning has to cut most of the update to help: what is left is the part with the largest signal.

    Guarantees:

    - exactly so many values are zero (more if the update has zeros beyond them); the others do not change by a bit;
    - of equal magnitudes the one that stands first in its parameter goes first;
    - values that are not numbers are never cut, so that they are found out.

    Fields:
        share: share of the values that are cut, 0 to 1.
        within: `layer` prunes each parameter separately, `model` all of them at once, so that layers with small updates
            lose more.

    >>> import torch
    >>> Prune(share=0.5).apply({"w": torch.tensor([3.0, -1.0, 2.0, 1.0])}, {})["w"].tolist()
    [3.0, 0.0, 2.0, 0.0]

    Reference: Zhu, Liu and Han (2019), deep leakage from gradients, section 5.
    """

    draws: ClassVar[Draws] = "none"

    share: Annotated[float, Ge(0), Le(1)] = 0.9
    within: Literal["layer", "model"] = "layer"

    def apply(self, update: Params, drawn: Params) -> Params:
        """Cut the smallest values."""
        return prune_update(update, self.share, whole=self.within == "model")
