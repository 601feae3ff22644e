"""L-BFGS on many problems at once: each has steps, memory and line search of its own.

The implementation of torch has one line search for all parameters, hence for all problems of a stack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Objective = Callable[["Tensor", "Tensor"], tuple["Tensor", "Tensor"]]
"""Values (k,) and slopes (k, d) of the problems in rows (k,), at points (k, d)."""

ARMIJO = 1e-4
"""The share of the decrease predicted by the slope that a step has to achieve."""

SMALLEST = 1e-12
"""A step shorter than this share of its direction comes down no more."""


def minimise(objective: Objective, start: Tensor, *, steps: int, lr: float, memory: int, enough: float) -> Tensor:
    """The lowest points (S, d) found from `start` (S, d) with so many evaluations of the objective.

    Each problem moves along its quasi-Newton direction, at first with step `lr`. The step is halved or shortened more
    (by the minimum of a parabola) until the objective has decreased enough (Armijo). A direction that leads nowhere
    empties the memory of its problem. A problem leaves when its objective is at most `enough`, cannot be decreased
    along its slope either, or is not finite at its start. Problems share evaluations and nothing else.

    Reference: Liu and Nocedal (1989), On the limited memory BFGS method for large scale optimization.

    >>> import torch
    >>> scale = torch.tensor([1.0, 100.0], dtype=torch.float64)
    >>> def bowls(rows, x):
    ...     away = x - rows[:, None]
    ...     return (scale * away.square()).sum(1) / 2, scale * away
    >>> start = torch.zeros(3, 2, dtype=torch.float64)
    >>> minimise(bowls, start, steps=60, lr=1.0, memory=5, enough=1e-20).round(decimals=6).tolist()
    [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    """
    import torch

    points = start.clone()
    rows = torch.arange(len(start))
    value, slope = objective(rows, start)
    state = _State.begin(start, value, slope, lr, memory)
    keep = value.isfinite() & (value > enough)
    for _ in range(steps - 1):
        if not keep.all():
            points[rows[~keep]] = state.point[~keep]
            rows, state = rows[keep], state.take(keep)
            if not len(rows):
                return points
        trial = state.point + state.length[:, None] * state.direction
        keep = state.accept_or_halve(trial, *objective(rows, trial), lr) & (state.value > enough)
    points[rows] = state.point
    return points


@dataclass
class _State:
    """Of each problem: where it is, what it tries, and its last pairs of moves and differences of slopes."""

    point: Tensor
    value: Tensor
    slope: Tensor
    direction: Tensor
    length: Tensor
    moves: Tensor
    """(S, memory, d), the newest last; zeros where there is none yet."""
    changes: Tensor
    inverse: Tensor
    """(S, memory) 1 / (move . change), 0 where there is no pair."""

    @staticmethod
    def begin(point: Tensor, value: Tensor, slope: Tensor, lr: float, memory: int) -> _State:
        pairs = point.new_zeros(len(point), memory, point.shape[1])
        # the first step has no curvature to go by
        length = lr / slope.abs().sum(1).clamp(min=1.0)
        return _State(point, value, slope, -slope, length, pairs, pairs.clone(), pairs[:, :, 0].clone())

    def take(self, rows: Tensor) -> _State:
        return _State(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def accept_or_halve(self, trial: Tensor, value: Tensor, slope: Tensor, lr: float) -> Tensor:
        """Go there or come back half way, and (S,) whether there is anything left to try."""
        import torch

        predicted_change = (self.slope * self.direction).sum(1) * self.length
        finite = value.isfinite() & slope.isfinite().all(1)
        down = finite & (value <= self.value + ARMIJO * predicted_change)
        excess = (value - self.value - predicted_change).clamp(min=1e-300)
        shorter = torch.where(finite, (-predicted_change / (2 * excess)).clamp(0.1, 0.5), 0.1)
        self.length = torch.where(down, torch.full_like(self.length, lr), self.length * shorter)
        if down.any():
            self._move(down, trial[down], value[down], slope[down])
        # nowhere to go: once more from the slope alone, unless that is what was tried
        stuck = (self.length < SMALLEST) | ((self.slope * self.direction).sum(1) >= 0)
        steepest = ~self.inverse.any(1)
        again = stuck & ~steepest
        if again.any():
            self.inverse[again] = 0.0
            self.direction[again] = -self.slope[again]
            self.length[again] = lr / self.slope[again].abs().sum(1).clamp(min=1.0)
        return ~(stuck & steepest)

    def _move(self, down: Tensor, point: Tensor, value: Tensor, slope: Tensor) -> None:
        import torch

        move, change = point - self.point[down], slope - self.slope[down]
        curved = (move * change).sum(1)
        good = curved > 1e-10 * move.norm(dim=1) * change.norm(dim=1)
        moves, changes, inverse = self.moves[down], self.changes[down], self.inverse[down]
        moves[good] = torch.cat((moves[good, 1:], move[good, None]), dim=1)
        changes[good] = torch.cat((changes[good, 1:], change[good, None]), dim=1)
        inverse[good] = torch.cat((inverse[good, 1:], 1.0 / curved[good, None]), dim=1)
        self.moves[down], self.changes[down], self.inverse[down] = moves, changes, inverse
        self.point[down], self.value[down], self.slope[down] = point, value, slope
        self.direction[down] = -_downhill(slope, moves, changes, inverse)


def _downhill(slope: Tensor, moves: Tensor, changes: Tensor, inverse: Tensor) -> Tensor:
    """The inverse Hessian that the pairs suggest, times the slope: the two loops, for all problems."""
    import torch

    remainder, shares = slope, []
    for i in reversed(range(moves.shape[1])):
        share = inverse[:, i] * (moves[:, i] * remainder).sum(1)
        remainder = remainder - share[:, None] * changes[:, i]
        shares.append(share)
    last = changes[:, -1].square().sum(1)
    scale = torch.where(inverse[:, -1] > 0, 1.0 / (inverse[:, -1] * last).clamp(min=1e-300), 1.0)
    direction = scale[:, None] * remainder
    for i, share in enumerate(reversed(shares)):
        back = inverse[:, i] * (changes[:, i] * direction).sum(1)
        direction = direction + (share - back)[:, None] * moves[:, i]
    return direction
