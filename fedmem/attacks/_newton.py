"""Gradients matched in Euclid's distance by L-BFGS, in float64: what DLG and iDLG have in common.

In float32 the difference of two long gradients is rounding noise before images are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedmem.attacks._lbfgs import minimise
from fedmem.attacks._matching import Matching
from fedmem.attacks._problems import Problem, Solution

if TYPE_CHECKING:
    from torch import Tensor

ENOUGH = 1e-16
"""A squared distance, relative to the target, that is nothing but rounding of an update in float32."""


def approach(problems: Sequence[Problem], *, steps: int, lr: float, memory: int, soft: bool) -> list[Solution]:
    """Minimise |G - T|² / |T|² over images, and with `soft` over the logits of label weights as well.

    Images are free while they are looked for, and clipped to [0, 1] in the end; the distance is that of the clipped
    ones. Label weights start even; the heaviest label is given in the end, and images are sorted by it.
    """
    import torch

    whole = Matching(problems, torch.float64)
    shape, pixels = whole.starts.shape, whole.starts[0].numel()
    parts = [whole.starts.flatten(1)]
    if soft:
        parts.append(torch.zeros_like(whole.labels).flatten(1))
    rows_before, matching = torch.arange(len(problems)), whole

    def labels_at(points: Tensor, like: Matching) -> Tensor:
        if not soft:
            return like.labels
        return points[:, pixels:].reshape(len(points), *whole.labels.shape[1:]).softmax(-1)

    def objective(rows: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal rows_before, matching
        if len(rows) < len(rows_before):
            rows_before, matching = rows, whole.take(rows)
        points = points.detach().requires_grad_()
        images = points[:, :pixels].reshape(len(points), *shape[1:])
        values = matching.euclid(images, labels_at(points, matching))
        (slope,) = torch.autograd.grad(values.sum(), points)
        return values.detach(), slope

    solved_points = minimise(objective, torch.cat(parts, dim=1), steps=steps, lr=lr, memory=memory, enough=ENOUGH)
    images = solved_points[:, :pixels].reshape(shape).nan_to_num(0.5).clamp(0.0, 1.0)
    weights = labels_at(solved_points, whole)
    distances = whole.euclid(images, weights).tolist()
    image_arrays, heaviest = images.float().cpu().numpy(), weights.argmax(-1).cpu().numpy()
    solutions = []
    for i, problem in enumerate(problems):
        labels = heaviest[i, : len(problem.labels)] if soft else problem.labels
        order = np.argsort(labels, kind="stable")
        solutions.append(Solution(inputs=image_arrays[i][order], labels=labels[order], distance=distances[i]))
    return solutions
