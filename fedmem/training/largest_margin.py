"""Gradients of the margins of rows, of which the weights of a network of largest margin are a combination."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fedmem.contracts.arrays import Params


def margins(outputs: Tensor, labels: Tensor) -> Tensor:
    """(n,) the output of the label minus the largest other one.

    >>> margins(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([1])).tolist()
    [-2.0]
    """
    own = functional.one_hot(labels, outputs.shape[-1]).bool()
    return outputs[own] - outputs.masked_fill(own, -math.inf).amax(-1)


def margin_gradient(
    model: nn.Module,
    weights: Params,
    inputs: Tensor,
    labels: Tensor,
    multipliers: Tensor,
    *,
    sharpness: float | None = None,
) -> Tensor:
    """sum_i multipliers_i grad_theta (f_y - max_{c != y} f_c)(x_i), flat, differentiable in inputs and multipliers.

    Args:
        model: The network; its own parameters are not read.
        weights: Its parameters by name, float64.
        inputs: (m, *shape).
        labels: (m,) classes.
        multipliers: (m,).
        sharpness: Of the sigmoid that replaces the step of ReLU; None for the step itself.

    >>> model = nn.Linear(2, 2, bias=False)
    >>> weights, one = {"weight": torch.zeros(2, 2)}, torch.ones(1)
    >>> margin_gradient(model, weights, torch.tensor([[3.0, 4.0]]), torch.tensor([1]), one).tolist()
    [-3.0, -4.0, 3.0, 4.0]
    """
    leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
    with torch.enable_grad(), _smooth(sharpness):
        outputs = functional_call(model, leaves, (inputs,))
        total = (margins(outputs, labels) * multipliers).sum()
        slopes: tuple[Tensor | None, ...] = torch.autograd.grad(
            total, list(leaves.values()), create_graph=True, allow_unused=True
        )
    parts = [torch.zeros_like(v) if s is None else s for v, s in zip(leaves.values(), slopes, strict=True)]
    return torch.cat([part.flatten() for part in parts])


def unexplained_share(model: nn.Module, weights: Params, inputs: Tensor, labels: Tensor) -> float:
    """min over lambda >= 0 of `|theta - sum_i lambda_i grad Phi_i(x_i)| / |theta|`, in 0..1, with Phi of `margins`.

    It is solved by non-negative least squares, in float64. It is 1 without rows. It is NaN where weights are zero or
    not finite, where gradients are not finite, and where the solver gives up.

    >>> model = nn.Linear(2, 2, bias=False)
    >>> weights = {"weight": torch.tensor([[-3.0, -4.0], [3.0, 4.0]])}
    >>> unexplained_share(model, weights, torch.tensor([[0.3, 0.4]]), torch.tensor([1])) < 1e-6
    True
    """
    from scipy.optimize import nnls

    weights = {name: value.detach().double() for name, value in weights.items()}
    theta = torch.cat([value.flatten() for value in weights.values()])
    size, rows, one = float(theta.norm()), inputs.detach().double(), torch.ones(1, dtype=torch.float64)
    if not math.isfinite(size) or size == 0:
        return math.nan
    if not len(rows):
        return 1.0
    columns = torch.stack(
        [margin_gradient(model, weights, rows[i : i + 1], labels[i : i + 1], one).detach() for i in range(len(rows))],
        dim=1,
    )
    if not torch.isfinite(columns).all():
        return math.nan
    try:
        _, rest = nnls(columns.numpy(), theta.numpy(), maxiter=30 * len(rows))
    except RuntimeError:
        return math.nan
    return float(rest) / size


def _smooth(sharpness: float | None) -> AbstractContextManager[Any]:
    """While it is entered, ReLU has its own value and the slope sigmoid(sharpness * z)."""
    if sharpness is None:
        return nullcontext()
    steepness: float = sharpness
    replaced = {functional.relu, torch.relu, Tensor.relu}

    class Smooth(TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            if func not in replaced:
                return func(*args, **(kwargs or {}))
            soft = functional.softplus(args[0] * steepness) / steepness
            return args[0].clamp(min=0.0).detach() + (soft - soft.detach())

    return Smooth()
