"""The gradient of an unknown row at a stationary point, from all other rows."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray, Params

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Objective:
    """The objective of a training: sum_i w_i l(x_i, y_i; theta) + weight_decay / 2 |theta|², in float64.

    `inputs` (n, ...), `targets` (n,) and `weights` (n,) are of all rows.
    """

    network: nn.Module
    inputs: NDArray[Any]
    targets: IntArray
    weights: FloatArray
    weight_decay: float = 0.0

    def gradient(self, params: Params) -> Params:
        """The gradient at a model, in float64."""
        import torch
        from torch.func import functional_call
        from torch.nn import functional

        network = deepcopy(self.network).double().eval()
        leaves = {name: value.detach().double().requires_grad_() for name, value in params.items()}
        with torch.enable_grad():
            outputs = functional_call(network, leaves, (torch.from_numpy(np.asarray(self.inputs, np.float64)),))
            losses = functional.cross_entropy(outputs, torch.from_numpy(self.targets), reduction="none")
            total = (losses * torch.from_numpy(self.weights)).sum()
            slopes = torch.autograd.grad(total, list(leaves.values()))
        return {n: slope + self.weight_decay * leaves[n].detach() for n, slope in zip(leaves, slopes, strict=True)}

    def without(self, places: NDArray[np.bool_]) -> Objective:
        """The same without these rows; the others keep their weights."""
        kept = ~places
        return replace(self, inputs=self.inputs[kept], targets=self.targets[kept], weights=self.weights[kept])

    def missing_gradient(self, params: Params, places: NDArray[np.bool_]) -> Params:
        """The gradient of the loss of the row at these places, were the model stationary.

        −(sum over all other rows of w_i grad l_i + weight_decay theta) / (sum of w at the places). What is at the
        places is not read. At a stationary point it is exact; elsewhere it is off by the gradient of the objective
        divided by that weight.
        """
        weight = float(self.weights[places].sum())
        return {name: -value / weight for name, value in self.without(places).gradient(params).items()}

    def residual(self, params: Params, places: NDArray[np.bool_]) -> float:
        """|gradient of the objective| / |the part of the rows at these places|: 0 at a stationary point.

        Below 1 the row's own gradient is larger than the error of `missing_gradient`. NaN where the row has no
        gradient, or where one of them is not finite. Only somebody who knows the row can compute it.
        """
        part = _norm(replace(self.without(~places), weight_decay=0.0).gradient(params))
        ratio = _norm(self.gradient(params)) / part if part > 0 else math.nan
        return ratio if math.isfinite(ratio) else math.nan


def _norm(params: Params) -> float:
    return float(sum(float(value.square().sum()) for value in params.values()) ** 0.5)
