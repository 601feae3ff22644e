"""First-order descent on many problems at once, in a box."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from fedmem.attacks._problems import Problem, Solution

if TYPE_CHECKING:
    from torch import Tensor


class Stack(Protocol):
    """Problems along a leading axis: where they start, (S, n, *shape), and some of them as a stack of their own."""

    @property
    def starts(self) -> Tensor: ...

    def take(self, rows: Tensor) -> Self: ...


Some = TypeVar("Some", bound=Stack)

DECAYS = (3, 5, 7)
"""Eighths of the way at which the step shrinks tenfold."""

WORTH = 1e-3
"""The share of itself by which an objective has to fall, to count as better."""


def descend(
    problems: Sequence[Problem],
    whole: Some,
    distance: Callable[[Some, Tensor], Tensor],
    prior: Callable[[Some, Tensor], tuple[Tensor, Tensor]],
    *,
    steps: int,
    lr: float,
    signed: bool,
    patience: int | None = None,
) -> list[Solution]:
    """Adam on `distance + prior` from the starts of the problems, which are a stack, clipped to [0, 1] after each step.

    At images (S, n, *shape) `distance` returns (S,). `prior` returns its value (S,) and its slope in the images.

    With `signed` the sign of the slope goes into Adam. The step shrinks tenfold at 3/8, 5/8 and 7/8 of the way. With
    `patience`, the step of a problem also shrinks as soon as its objective has not improved for `patience` steps. A
    problem that stalls after its step has shrunk three times leaves the stack with its current images. Each problem is
    judged by its own objective alone. The returned distance excludes the prior.
    """
    import torch

    matching = whole
    images, final_images = whole.starts, whole.starts.clone()
    first, second = torch.zeros_like(images), torch.zeros_like(images)
    here, pace = torch.arange(len(problems)), _Pace(len(problems))
    for step in range(steps):
        images.requires_grad_()
        near = distance(matching, images)
        (slope,) = torch.autograd.grad(near.sum(), images)
        with torch.no_grad():
            extra, its_slope = prior(matching, images)
            slope = slope.add_(its_slope).nan_to_num_(0.0)
            slope = slope.sign_() if signed else slope
            first.mul_(0.9).add_(slope, alpha=0.1)
            second.mul_(0.999).addcmul_(slope, slope, value=0.001)
            unbiased = math.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            due = sum(8 * step >= eighths * steps for eighths in DECAYS)
            move = first / (second.sqrt() + 1e-8)
            if patience is None:
                move.mul_(lr * unbiased * 0.1**due)
            else:
                shrunk, stays = pace.advance(near + extra, due, patience)
                rate = (lr * unbiased * 0.1**shrunk).to(images)
                # who leaves keeps the images that were judged
                move.mul_((rate * stays.to(rate)).reshape(-1, *[1] * (images.ndim - 1)))
            images = (images - move).clamp_(0.0, 1.0)
            if patience is not None and not bool(stays.all()):
                final_images[here] = images
                here, images, first, second = (value[stays] for value in (here, images, first, second))
                if not len(here):
                    break
                matching, pace = matching.take(torch.nonzero(stays).flatten()), pace.take(stays)
    final_images[here] = images.detach()
    distances = distance(whole, final_images).tolist()
    final_arrays = final_images.float().cpu().numpy()
    return [
        Solution(inputs=final_arrays[i, : len(problem.labels)].copy(), labels=problem.labels, distance=distances[i])
        for i, problem in enumerate(problems)
    ]


class _Pace:
    """How often the step of each problem has shrunk, its best objective, and for how long there was no better one."""

    def __init__(self, count: int) -> None:
        import torch

        self._shrunk, self._since = (torch.zeros(count, dtype=torch.float64) for _ in range(2))
        self._lowest = torch.full((count,), math.inf, dtype=torch.float64)

    def advance(self, objective: Tensor, due: int, patience: int) -> tuple[Tensor, Tensor]:
        """(S,) how often the steps have shrunk, of which `due` are for all problems, and whether a problem goes on."""
        import torch

        value = objective.detach().double().cpu()
        better = value < self._lowest * (1 - WORTH)
        self._lowest = torch.where(better, value, self._lowest)
        self._since = torch.where(better, 0.0, self._since + 1)
        self._shrunk = self._shrunk.clamp(min=due)
        tired = self._since >= patience
        stays = ~(tired & (self._shrunk >= len(DECAYS)))
        self._shrunk, self._since = self._shrunk + tired, torch.where(tired, 0.0, self._since)
        return self._shrunk.clamp(max=len(DECAYS)), stays

    def take(self, rows: Tensor) -> _Pace:
        pace = _Pace(0)
        pace._shrunk, pace._since, pace._lowest = self._shrunk[rows], self._since[rows], self._lowest[rows]
        return pace
