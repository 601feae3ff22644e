"""Reconstruction of the rows of a table from a gradient: categories are searched as shares, restarts are pooled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Gt, Le
from numpy.typing import NDArray

from fedmem.attacks._columns import touched_columns
from fedmem.attacks._descent import DECAYS
from fedmem.attacks._matching import Matching
from fedmem.attacks._problems import Problem, Solution, best_restarts, starts
from fedmem.attacks._targets import validate_targets
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.errors import ComponentError
from fedmem.modalities.tables import Tables, column_slices, to_one_hot

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Tabular:
    """Finds rows of a table whose gradient points where the target's does, in the manner of TabLeak.

    Minimises `1 - cos(grad loss(x, y), g)`. Adam takes the sign of the slope, and its step shrinks tenfold at 3/8, 5/8
    and 7/8 of the way. On Adult the sign finds more cells than the slope. The row x is made of free numbers z, block by
    block of the table. A category is the softmax of its k numbers, so that its shares sum to one at every step. A
    number is clipped to [0, 1]. Several restarts are pooled, since cells on which they agree are more often right. The
    pool is the share `pooled` of restarts with the smallest distances. Their rows of equal labels are matched with
    those of the best restart (Hungarian method on squared error). Then a category is where the mean of the shares is
    largest, and a number is the median.

    Before any search, the gradients of the first layers show which categories no row has, and which numbers are 0 in
    all rows. The gradients are zero there, and these cells are excluded (`columns: touched`).

    Takes targets of one model, of any number of rows each. Returns rows (num_images, width) that the table could hold,
    a one-hot for each category, and sorted labels (num_images,). The distance is that of these rows, in 0..2; lower is
    better.

    Fields

    - `steps`: optimisation steps of each restart.
    - `lr`: first step size, of numbers in [0, 1] and of logarithms of shares alike.
    - `restarts`: independent starts for each target.
    - `pooled`: share of the restarts that is pooled, those that fit best; at least one.
    - `columns`: whether `all` columns may hold something, or those `touched` by the gradient. An update that was pruned
      or rounded has other zeros, and requires `all`. One with noise or weight decay has none, so no column is lost.
    - `labels`: whether labels are `inferred`, or `known` to the adversary.

    Guarantees:

    - it knows the model, its parameters, the gradient, the columns and the number of rows, and labels with `known`;
    - restarts are chosen by the distance alone, never by the truth;
    - the result of a target does not depend on other targets, except for rounding;
    - a target without a direction (zero, or not finite) gets a distance of NaN.

    Errors: `ComponentError` if the data are not a table; those of `inverting_gradients`.

    >>> import torch
    >>> model, row = torch.nn.Linear(4, 3), torch.tensor([[0.25, 0.0, 1.0, 0.0]])
    >>> params = dict(model.named_parameters())
    >>> loss = torch.nn.functional.cross_entropy(model(row), torch.tensor([2]))
    >>> gradient = dict(zip(params, torch.autograd.grad(loss, list(params.values()))))
    >>> from fedmem.modalities.tables import Tables
    >>> target = GradientTarget(
    ...     model=model, params=params, gradient=gradient, num_images=1, input_shape=(4,), num_classes=3, knows="",
    ...     modality=Tables(blocks=(1, 3)),
    ... )
    >>> found, = Tabular().reconstruct([target], [np.random.default_rng(0)])
    >>> found.labels.tolist(), found.inputs.round(2).tolist()
    ([2], [[0.25, 0.0, 1.0, 0.0]])

    Reference: Vero, Balunović, Dimitrov and Vechev (2023), TabLeak: Tabular Data Leakage in Federated Learning.
    """

    steps: Annotated[int, Gt(0)] = 300
    lr: Annotated[float, Gt(0)] = 0.2
    restarts: Annotated[int, Gt(0)] = 10
    pooled: Annotated[float, Gt(0), Le(1)] = 0.5
    columns: Literal["touched", "all"] = "touched"
    labels: Literal["inferred", "known"] = "inferred"

    @property
    def knows(self) -> tuple[str, ...]:
        """The labels, where they are given."""
        return ("labels",) if self.labels == "known" else ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        """One reconstruction per target, in their order."""
        for target in targets:
            if not _blocks(target):
                raise ComponentError(
                    "attack.kind",
                    "tabular reconstructs the rows of a table, and these data are none. Use inverting_gradients, or a "
                    "data set that says which columns are categories, such as adult",
                )
        return best_restarts(starts(validate_targets(targets), rngs, self.restarts), self._solve, together=True)

    def _column_mask(self, target: GradientTarget) -> Tensor:
        """(width,) 1 where a row may hold something, 0 where none does."""
        import torch

        is_allowed = (
            touched_columns(target) if self.columns == "touched" else np.ones(target.input_shape, dtype=np.bool_)
        )
        for part in column_slices(_blocks(target)):
            # a category that no column is left to is not known after all
            is_allowed[part] |= part.stop - part.start > 1 and not is_allowed[part].any()
        return torch.from_numpy(is_allowed.astype(np.float32))

    def _solve(self, problems: Sequence[Problem]) -> list[Solution]:
        """Optimise a stack of problems, and pool those of each target; all of them are given the same answer."""
        import torch

        blocks, matching = _blocks(problems[0].target), Matching(problems)
        free, first, second = matching.starts, torch.zeros_like(matching.starts), torch.zeros_like(matching.starts)
        mask = torch.stack([self._column_mask(problem.target) for problem in problems])[:, None].to(free)
        for step in range(self.steps):
            free.requires_grad_()
            (slope,) = torch.autograd.grad(matching.cosine(_rows(free, blocks, mask)).sum(), free)
            with torch.no_grad():
                sign = slope.nan_to_num_(0.0).sign_()
                first.mul_(0.9).add_(sign, alpha=0.1)
                second.mul_(0.999).addcmul_(sign, sign, value=0.001)
                unbiased = math.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
                lr = self.lr * 0.1 ** sum(8 * step >= eighths * self.steps for eighths in DECAYS)
                free = _clip_numbers(free - lr * unbiased * first / (second.sqrt() + 1e-8), blocks)
        rows = _rows(free.detach(), blocks, mask)
        distances, arrays = matching.cosine(rows).tolist(), rows.cpu().numpy()
        answers: list[Solution] = []
        for _, group in groupby(range(len(problems)), key=lambda i: problems[i].index):
            places = list(group)
            # a restart without a distance comes last
            order = sorted(places, key=lambda i: (distances[i] != distances[i], distances[i]))
            best = order[: max(1, round(self.pooled * len(order)))]
            labels = problems[places[0]].labels
            inputs = _pool_restarts(np.stack([arrays[i, : len(labels)] for i in best]), labels, blocks)
            pooled_problem = replace(problems[places[0]], inputs=inputs)
            distance = float(Matching([pooled_problem]).cosine(torch.from_numpy(inputs)[None].to(rows)).detach())
            answers += [Solution(inputs=inputs, labels=labels, distance=distance)] * len(places)
        return answers


def _blocks(target: GradientTarget) -> tuple[int, ...]:
    """The columns of a table, () where the data are none or its columns are not described."""
    return target.modality.blocks if isinstance(target.modality, Tables) else ()


def _rows(free: Tensor, blocks: Sequence[int], mask: Tensor) -> Tensor:
    """The rows that free numbers (S, n, width) stand for, with nothing where `mask` (S, 1, width) is 0."""
    import torch

    pieces = zip(torch.split(free, list(blocks), dim=-1), torch.split(mask, list(blocks), dim=-1), strict=True)
    return torch.cat(
        [
            (piece + (piece_mask - 1) * 1e4).softmax(-1) if piece.shape[-1] > 1 else piece * piece_mask
            for piece, piece_mask in pieces
        ],
        dim=-1,
    )


def _clip_numbers(free: Tensor, blocks: Sequence[int]) -> Tensor:
    """With the numbers of the table in [0, 1]; those behind categories stay free."""
    places = [part.start for part in column_slices(blocks) if part.stop - part.start == 1]
    free[..., places] = free[..., places].clamp(0.0, 1.0)
    return free


def _pool_restarts(rows: NDArray[np.float32], labels: NDArray[np.int64], blocks: Sequence[int]) -> NDArray[np.float32]:
    """(n, width) one table from several (q, n, width), the best first."""
    from scipy.optimize import linear_sum_assignment

    beside = [rows[0]]
    for other in rows[1:]:
        costs = np.square(other[:, None] - rows[0][None]).sum(-1) + 1e6 * (labels[:, None] != labels[None])
        other_rows, place = linear_sum_assignment(costs)
        beside.append(other[other_rows[np.argsort(place)]])
    stacked = np.stack(beside)
    categories = np.repeat(np.array(blocks) > 1, blocks)
    mean = np.where(categories, stacked.mean(axis=0), np.median(stacked, axis=0)).astype(np.float32)
    return to_one_hot(mean, blocks)
