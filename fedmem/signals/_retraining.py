"""One part of a model trained again from its initial weights, with all others as they are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import Params
from fedmem.contracts.data import Examples

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """Plain gradient descent in small batches: passes over the rows, length of a step, and rows of a batch."""

    epochs: int
    lr: float
    batch_size: int

    def __call__(
        self,
        network: nn.Module,
        model: Params,
        initial: Params,
        names: Collection[str],
        rows: Examples,
        rng: np.random.Generator,
        statistics: Collection[str] = (),
    ) -> Params:
        """The model with the entries `names` reset to `initial` and then trained on rows.

        Args:
            network: The network in float64, in evaluation mode.
            model: The model, whose other entries stay as they are.
            initial: The weights that training begins from.
            names: The entries that are trained.
            rows: The rows; without any, the entries stay at `initial`.
            rng: The order of the rows, drawn again for each pass.
            statistics: Running statistics. They are reset and not trained, since the network is in evaluation mode.
        """
        import torch
        from torch.func import functional_call

        from fedmem.modalities.loss import example_losses
        from fedmem.training.derivatives import double

        fixed = {name: value.detach().to("cpu", torch.float64) for name, value in model.items()}
        fixed |= {name: initial[name].detach().to("cpu", torch.float64) for name in names}
        leaves = {name: fixed[name].clone().requires_grad_() for name in names if name not in statistics}
        inputs, targets = double(rows.inputs), torch.from_numpy(np.array(rows.targets))
        for _ in range(self.epochs if leaves else 0):
            order = torch.from_numpy(rng.permutation(len(rows)))
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                with torch.enable_grad():
                    outputs = functional_call(network, {**fixed, **leaves}, (inputs[batch],))
                    loss = example_losses(outputs, targets[batch]).mean()
                    slopes = torch.autograd.grad(loss, list(leaves.values()))
                with torch.no_grad():
                    for leaf, slope in zip(leaves.values(), slopes, strict=True):
                        leaf -= self.lr * slope
        trained = {**{name: fixed[name] for name in names}, **{name: leaf.detach() for name, leaf in leaves.items()}}
        return {**model, **{name: value.to(model[name].dtype) for name, value in trained.items()}}
