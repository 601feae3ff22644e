"""Reconstruction from trained weights: inputs whose margins have the weights as a combination of their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge, Gt

from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Kkt:
    """Searches inputs of which the final weights are a combination of gradients of margins, by Adam in float64.

    Gradient descent on a homogeneous network with a small loss tends to a direction of largest margin. There the
    conditions of Karush, Kuhn and Tucker hold: `theta = sum_i lambda_i grad Phi_i(x_i)` with lambda_i >= 0. The margin
    Phi_i is `f_y - max_{c != y} f_c`. The attack minimises over inputs x in [0, 1] and multipliers lambda

    `|theta - sum_i lambda_i grad Phi_i(x_i)|² / |theta|² + penalty * sum_i relu(min_multiplier - u_i)²`,

    where `u_i = lambda_i / s`. The scale s fits theta best at the start, with all multipliers equal. In backward passes
    the step of ReLU is replaced by `sigmoid(sharpness * z)`, so that inputs have a slope.

    The adversary knows the final weights, the architecture and how many rows have each label. It reads no update and no
    model before: where an update is known, it is added to the weights. A row that is no support point has the
    multiplier 0, and cannot come back. With weight decay, the same condition holds at a stationary point.

    Returns `candidates` inputs for each row, so m = candidates * n, and their labels. `distance` is the norm of the
    rest divided by that of the weights, 0 for weights that are explained. It is that of the step itself and of the best
    multipliers, so that it can be compared with that of the true rows (`kkt_residual`). It is NaN, and inputs are grey,
    where weights are zero or not finite. A small distance does not show that inputs are rows: with few weights many
    inputs explain them.

    Fields

    - `steps`: steps of Adam; in the second half its steps fall to a thousandth.
    - `lr`: step size of inputs, on [0, 1].
    - `multiplier_lr`: step size of the multipliers u, which are 1 at the start.
    - `candidates`: inputs for each row.
    - `min_multiplier`: multipliers u below it are penalised; 0 only keeps them from turning negative.
    - `penalty`: weight of this penalty.
    - `sharpness`: of the sigmoid; larger is nearer to the step of ReLU.
    - `noise`: standard deviation of inputs at the start, around grey.
    - `restarts`: searches from different starts. The one with the least `distance` counts.

    Guarantees:

    - the result of a target depends on its generator, and on no other target;
    - the model is used in its current mode, and is not changed.

    Errors: `ComponentError` where labels are not granted, or with one class.

    >>> import torch
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> params = {"weight": torch.tensor([[0.3, 0.6], [-0.3, -0.6]])}
    >>> from fedmem.modalities.tables import Tables
    >>> target = GradientTarget(
    ...     model=model, params=params, gradient={}, num_images=1, input_shape=(2,), num_classes=2,
    ...     modality=Tables(), knows="", labels=np.array([0])
    ... )
    >>> found, = Kkt(candidates=1).reconstruct([target], [np.random.default_rng(0)])
    >>> bool(abs(found.inputs[0, 1] / found.inputs[0, 0] - 2) < 1e-5)
    True

    References: Haim, Vardi, Yehudai, Shamir and Irani (2022), Reconstructing Training Data from Trained Neural
    Networks. Buzaglo, Haim, Yehudai, Vardi, Oz, Nikankin and Irani (2023), Deconstructing Data Reconstruction.
    """

    steps: Annotated[int, Gt(0)] = 1500
    lr: Annotated[float, Gt(0)] = 0.02
    multiplier_lr: Annotated[float, Gt(0)] = 0.02
    candidates: Annotated[int, Gt(0)] = 2
    min_multiplier: Annotated[float, Ge(0)] = 0.0
    penalty: Annotated[float, Ge(0)] = 5.0
    sharpness: Annotated[float, Gt(0)] = 20.0
    noise: Annotated[float, Ge(0)] = 0.3
    restarts: Annotated[int, Gt(0)] = 4

    @property
    def knows(self) -> tuple[str, ...]:
        """How many rows have each label."""
        return ("labels",)

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        """One set of candidates per target, in their order."""
        return [self._search(target, rng) for target, rng in zip(targets, rngs, strict=True)]

    def _search(self, target: GradientTarget, rng: np.random.Generator) -> Reconstruction:
        import torch

        from fedmem.training.largest_margin import margin_gradient, unexplained_share

        if target.labels is None or target.num_classes < 2:
            raise ComponentError(
                "attack.kind", "kkt needs counts per label and two classes or more; use another attack"
            )
        update = target.update or {}
        weights = {n: p.double() + update[n].double() if n in update else p.double() for n, p in target.params.items()}
        theta = torch.cat([value.flatten() for value in weights.values()])
        labels = np.repeat(target.labels, self.candidates)
        size = float(theta.norm())
        if not math.isfinite(size) or size == 0:
            grey = np.full((len(labels), *target.input_shape), 0.5, dtype=np.float32)
            note = "nothing was found: the weights are zero or not finite"
            return Reconstruction(inputs=grey, labels=labels, distance=math.nan, note=note)
        of_labels = torch.from_numpy(labels)

        def combine(inputs: Tensor, multipliers: Tensor) -> Tensor:
            return margin_gradient(target.model, weights, inputs, of_labels, multipliers, sharpness=self.sharpness)

        best, min_distance = None, math.inf
        for _ in range(self.restarts):
            noise = self.noise * rng.standard_normal((len(labels), *target.input_shape))
            inputs = self._descend(torch.from_numpy(np.clip(0.5 + noise, 0.0, 1.0)), theta, combine)
            distance = unexplained_share(target.model, weights, inputs, of_labels)
            if best is None or distance < min_distance:
                best, min_distance = inputs, distance
        assert best is not None
        return Reconstruction(inputs=best.float().cpu().numpy(), labels=labels, distance=min_distance)

    def _descend(self, start: Tensor, theta: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Inputs at the end of one search from a start, where `combine` gives the combination of margin gradients."""
        import torch

        size, share = float(theta.norm()), torch.ones(len(start), dtype=torch.float64)
        first = combine(start, share).detach()
        scale = float(first @ theta / first.square().sum().clamp(min=1e-300))
        scale = scale if scale > 0 else size / max(float(first.norm()), 1e-150)
        states = [[value, torch.zeros_like(value), torch.zeros_like(value)] for value in (start, share)]
        for step in range(1, self.steps + 1):
            inputs, share = (state[0].detach().requires_grad_() for state in states)
            rest = theta - combine(inputs, scale * share)
            objective = (
                rest.square().sum() / size**2 + self.penalty * (self.min_multiplier - share).relu().square().sum()
            )
            slopes = torch.autograd.grad(objective, [inputs, share])
            decay = 10 ** (-3 * max(0.0, 2 * step / self.steps - 1))
            for state, slope, lr in zip(states, slopes, (self.lr, self.multiplier_lr), strict=True):
                state[0] = _adam(state, slope.nan_to_num(0.0), lr * decay, step)
            states[0][0].clamp_(0.0, 1.0)
        return states[0][0]


def _adam(state: list[Tensor], slope: Tensor, rate: float, step: int) -> Tensor:
    """The next value of [value, first moment, second moment], whose moments are updated in place."""
    value, first, second = state
    first.mul_(0.9).add_(slope, alpha=0.1)
    second.mul_(0.999).addcmul_(slope, slope, value=0.001)
    return value - rate * first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-12)
