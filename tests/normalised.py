"""Networks with BatchNorm and dropout for tests, and scenarios of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from fedmem.scenario.scenario import Scenario
from tests.tiny import tiny


class Dropping(nn.Module):
    """Dropout as a function, which no layer shows."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.p, self.training)


@dataclass(frozen=True, kw_only=True)
class Normed:
    """A hidden layer with BatchNorm, and dropout where p is above 0."""

    stackable: ClassVar[bool] = True

    p: float = 0.0
    function: bool = False
    momentum: float | None = 0.1
    norm: bool = True

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        size = int(np.prod(input_shape))
        norm = nn.BatchNorm1d(8, momentum=self.momentum) if self.norm else nn.Identity()
        drop = Dropping(self.p) if self.function else nn.Dropout(self.p)
        network = nn.Sequential(nn.Flatten(), nn.Linear(size, 8))
        network.add_module("norm", norm)
        network.add_module("act", nn.ReLU())
        network.add_module("drop", drop)
        network.add_module("out", nn.Linear(8, num_classes))
        return network


def normed(kind: str | None = "averaged", **changes: Any) -> Scenario:
    """The tiny scenario with `Normed` and this policy."""
    model = {"kind": "tests.normalised:Normed", **changes.pop("model", {})}
    policy = {} if kind is None else {"norm": {"kind": kind}}
    return tiny(**{"model": model, **policy, **changes})
