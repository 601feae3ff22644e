"""Adversarial distance: the length of the smallest change of an input that changes the class that a model predicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import Network, SignalContext, signal_measures
from fedmem.signals._observed_rounds import ObservedRounds

if TYPE_CHECKING:
    from torch import Tensor

_STEPS = 3
"""Steps that most examples need, for the price."""

_FURTHER = 1.02
"""The published factor by which a change is tried longer, since a boundary is otherwise reached but not crossed."""


@dataclass(frozen=True, kw_only=True)
class AdversarialDistance(ObservedRounds):
    """‖r‖₂ of the smallest change r of the input that DeepFool finds to change the predicted class; at least 0.

    Let k be the predicted class, z the logits and g_c = ∂(z_k − z_c)/∂x. The nearest boundary is that of the class c
    with the smallest (z_k − z_c)/‖g_c‖₂. If logits are linear, the step −(z_k − z_c) g_c/‖g_c‖² ends there. The sum r
    of the steps is tried 2 % longer, until the predicted class changes. With linear logits one step is exact. Otherwise
    a change of 1.02 r suffices, and a smaller one may exist.

    The predicted class need not be the label. The changed input may lie outside the range of inputs. NaN where no
    boundary is found in `steps`, or where the model has diverged. By default the models of other clients are not read.

    Fields

    - `steps`: the largest number of steps.
    - `classes`: how many classes are tried, in the order of their logits at the example.
    - `others`: read it at the models of clients that do not hold the example as well.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> AdversarialDistance().steps
    50

    Reference: Moosavi-Dezfooli, Fawzi and Frossard (2016), DeepFool: a simple and accurate method to fool deep neural
    networks. As a metric of examples: Carlini, Erlingsson and Papernot (2019).
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="adversarial_distance",
            title="adversarial distance",
            means="Length of the smallest change found in the input that changes the predicted class.",
            is_not="It is an upper bound of the smallest change up to 2 %, in the scale of the inputs.",
            range=(0.0, math.inf),
        )
    )
    texts: ClassVar[bool] = False

    steps: Annotated[int, Gt(0)] = 50
    classes: Annotated[int, Ge(2)] = 10
    others: bool = False

    @property
    def owners_only(self) -> bool:
        """Unless others are asked for."""
        return not self.others

    @property
    def passes(self) -> float:
        """A slope for every class in each of about three steps, and a last forward pass."""
        return 1.0 + _STEPS * (1.0 + 2.0 * (self.classes - 1))

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        from fedmem.training.derivatives import double

        shape = len(context.transitions), len(context.examples)
        found = np.full(shape, np.nan)
        asked = np.ones(shape, dtype=bool) if self.others else context.is_owner()
        for t in range(shape[0]):
            rows = np.flatnonzero(asked[t])
            if len(rows):
                inputs = double(context.examples.inputs[rows])
                changes = changes_of_answer(context.function(t), inputs, self.steps, self.classes)
                found[t, rows] = changes.flatten(1).norm(dim=1).numpy()
        return {"adversarial_distance": found}


def changes_of_answer(function: Network, x: Tensor, steps: int, classes: int) -> Tensor:
    """(n, ...) the changes of inputs x up to a boundary that DeepFool finds; NaN where it finds none.

    >>> import torch
    >>> x = torch.tensor([[3.0, 1.0]]).double()
    >>> changes_of_answer(lambda inputs: torch.cat([inputs[:, :1], 0 * inputs[:, :1]], dim=1), x, 50, 10).tolist()
    [[-3.0, 0.0]]
    """
    import torch

    found = torch.full_like(x, torch.nan)
    order = function(x).argsort(dim=1, descending=True, stable=True)[:, :classes]
    moved, active = torch.zeros_like(x), torch.arange(len(x))
    for _ in range(steps):
        here = (x[active] + _FURTHER * moved[active]).requires_grad_()
        with torch.enable_grad():
            logits = function(here)
            ahead = logits.gather(1, order[active, :1]) - logits.gather(1, order[active, 1:])
            slopes = torch.stack(
                [torch.autograd.grad(column.sum(), here, retain_graph=True)[0] for column in ahead.unbind(1)], dim=1
            ).flatten(2)
        ahead, lengths = ahead.detach(), slopes.norm(dim=2)
        is_there = (logits.detach().argmax(dim=1) != order[active, 0]) | (ahead == 0).any(dim=1)
        is_there &= logits.detach().isfinite().all(dim=1)
        done = active[is_there]
        found[done] = moved[done]
        far = torch.where(lengths > 0, ahead / lengths, torch.inf)
        nearest = far.nan_to_num(nan=torch.inf).min(dim=1)
        goes_on = ~is_there & nearest.values.isfinite()
        if not goes_on.any():
            break
        rows = torch.arange(len(active))[goes_on]
        index = nearest.indices[rows]
        step = -(ahead[rows, index] / lengths[rows, index].square())[:, None] * slopes[rows, index]
        active = active[goes_on]
        moved[active] += step.reshape(len(active), *x.shape[1:])
    else:
        is_other = function(x[active] + _FURTHER * moved[active]).argmax(dim=1) != order[active, 0]
        done = active[is_other]
        found[done] = moved[done]
    return found
