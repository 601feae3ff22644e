"""Which columns of a table hold anything, read off the gradients of the layers that see them, without any search."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.arrays import BoolArray
from fedmem.contracts.attack import GradientTarget

if TYPE_CHECKING:
    from torch import Tensor


def touched_columns(target: GradientTarget) -> BoolArray:
    """(width,) False where every row behind a gradient has a 0, as far as the gradient shows it.

    Column j adds `sum over rows of slope x_j` to the gradient of a linear layer that reads it. That is zero in all
    units if column j is 0 in every row, as for a category that does not occur. Only layers that read columns of the
    rows unchanged are used. Nothing is known of other columns, or where no entry is zero (weight decay, noise).

    - An update that was pruned or rounded has other zeros, and misleads.
    """
    import torch
    from torch import nn

    is_touched = np.ones(target.input_shape, dtype=np.bool_)
    trial = torch.arange(1, is_touched.size + 1, dtype=torch.float32).reshape(1, -1)
    inputs_by_layer: dict[str, Tensor] = {}
    model = copy.deepcopy(target.model)

    def note(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            inputs_by_layer.setdefault(name, inputs[0].detach())

        return hook

    for name, part in model.named_modules():
        if isinstance(part, nn.Linear):
            part.register_forward_hook(note(name))
    with torch.no_grad():
        model(trial.to(next(model.parameters()).device))
    for name, inputs in inputs_by_layer.items():
        gradient = target.gradient.get(f"{name}.weight".lstrip("."))
        columns = inputs.double().cpu().numpy().reshape(-1) - 1
        # a layer whose inputs are the numbers of columns reads the columns themselves
        if gradient is not None and len(inputs) == 1 and np.isin(columns, np.arange(is_touched.size)).all():
            is_touched[columns.astype(np.int64)] &= (gradient.detach() != 0).any(0).cpu().numpy()
    return is_touched
