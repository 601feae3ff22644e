"""The last layer of a network, solved again with an L2 penalty on features that stay as they are, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedmem.contracts.arrays import Params
from fedmem.contracts.model import last_layer
from fedmem.training.inverse_products import solve_by_conjugate_gradients

TOLERANCE = 1e-10
"""Length of the gradient at which a head counts as solved, relative to that of the head of zeros."""

ROUNDING = 1e-14
"""The same relative to the sum of the lengths of the gradients of rows, below which it is rounding."""

NEWTON_STEPS = 50
"""Steps of Newton's method at most; about ten are needed."""


def head_features(network: nn.Module, params: Params, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """(n, d) what the last layer is given, with a 1 at the end where it has a bias, and (n, C) the logits.

    Raises:
        ValueError: if the last layer is not linear, or is given more than one vector for each row.

    Examples:
        >>> layer = nn.Linear(2, 3).double()
        >>> features, logits = head_features(layer, dict(layer.named_parameters()), torch.zeros(4, 2).double())
        >>> features.tolist()[0], logits.shape
        ([0.0, 0.0, 1.0], torch.Size([4, 3]))
    """
    name = last_layer(network, np.asarray(inputs[:1]))
    layer = network.get_submodule(name)
    given: list[Tensor] = []

    def note(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        given.append(arguments[0])

    handle = layer.register_forward_pre_hook(note)
    try:
        with torch.no_grad():
            logits: Tensor = functional_call(network, params, (inputs,))
    finally:
        handle.remove()
    if not isinstance(layer, nn.Linear) or len(given) != 1 or given[0].ndim != 2:
        raise ValueError(f"the last layer, `{name}`, is not linear in one vector for each row; leave representer out")
    features = given[0]
    if layer.bias is not None:
        features = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
    return features, logits


def solve_head(features: Tensor, targets: Tensor, weights: Tensor, penalty: float) -> Tensor | None:
    """(C, d) the minimum W of Σ_i w_i H(t_i, softmax(W φ_i)) + λ ‖W‖², or None where it was not reached.

    H is the cross-entropy. The method is Newton's, with steps from conjugate gradients. At the minimum,
    W = Σ_i α_i φ_iᵀ with α_i = w_i (t_i − p_i) / (2 λ).

    Args:
        features: (n, d) φ_i.
        targets: (n, C) probabilities t_i.
        weights: (n,) w_i.
        penalty: λ, above 0.

    Examples:
        >>> features = torch.tensor([[1.0], [-1.0]]).double()
        >>> solved = solve_head(features, torch.eye(2).double(), torch.full((2,), 0.5).double(), 0.1)
        >>> p = (features @ solved.T).softmax(dim=1)
        >>> alpha = 0.5 * (torch.eye(2).double() - p) / 0.2
        >>> bool((alpha.T @ features - solved).abs().max() < 1e-8)
        True
    """
    shape = targets.shape[1], features.shape[1]

    def value(head: Tensor) -> float:
        losses = -(targets * (features @ head.T).log_softmax(dim=1)).sum(dim=1)
        return float(weights @ losses + penalty * head.square().sum())

    def slope(head: Tensor, p: Tensor) -> Tensor:
        return (weights[:, None] * (p - targets)).T @ features + 2 * penalty * head

    head = torch.zeros(shape, dtype=torch.float64)
    gradient = slope(head, (features @ head.T).softmax(dim=1))
    # gradients of rows may cancel but for rounding, as with equal features and as many rows of each class
    uncancelled = weights * (targets - 1.0 / shape[0]).norm(dim=1) * features.norm(dim=1)
    goal = max(TOLERANCE * float(gradient.norm()), ROUNDING * float(uncancelled.sum()))
    for _ in range(NEWTON_STEPS):
        if float(gradient.norm()) <= goal:
            return head
        p = (features @ head.T).softmax(dim=1)

        def curvature(vectors: Tensor, p: Tensor = p) -> Tensor:
            """The Hessian without the penalty, times each vector (q, C · d)."""
            change = torch.einsum("nd,qcd->qnc", features, vectors.view(-1, *shape))
            change = p * (change - (p * change).sum(dim=2, keepdim=True)) * weights[:, None]
            return torch.einsum("qnc,nd->qcd", change, features).flatten(1)

        step = solve_by_conjugate_gradients(curvature, 2 * penalty, -gradient.view(1, -1), tolerance=1e-6)
        if not bool(step.isfinite().all()):
            return None
        before, step = value(head), step.view(shape)
        descent = float((gradient * step).sum())
        length = 1.0
        # the last steps change the objective by less than its rounding
        while value(head + length * step) > before + 1e-4 * length * descent + 1e-13 * abs(before) and length > 1e-6:
            length /= 2
        head = head + length * step
        gradient = slope(head, (features @ head.T).softmax(dim=1))
    return head if float(gradient.norm()) <= goal else None
