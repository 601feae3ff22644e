"""Sensitivity of an example's gradient to one column of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.errors import ComponentError
from fedmem.modalities.loss import example_losses
from fedmem.signals._observed_rounds import ObservedRounds

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class AttributeSensitivity(ObservedRounds):
    """The share of one column in how the gradient norm g of an example depends on its cells, 0 to 1.

    With d_c = ‖∂g/∂x_c‖₂ over the entries of column c, one for a number and k for a category, it is d_c / Σ d. NaN
    where the gradient norm depends on no cell. By default the models of other clients are not read.

    Fields

    - `column`: which column, from 0, in the order in which `fedmem check` lists them; the label is no column.
    - `others`: read it at the models of clients that do not hold the example as well.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> AttributeSensitivity(column=3).columns
    True

    Reference: Mueller, Ziller, Usynin, Knolle, Jungmann, Rueckert and Kaissis (2021), Partial sensitivity analysis in
    differential privacy.
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="attribute_sensitivity",
            title="attribute sensitivity",
            means="Share of one column in how the gradient norm of the example depends on its cells.",
            is_not="It does not say that the value of the column can be inferred.",
            unit="share",
            range=(0.0, 1.0),
        )
    )
    passes: ClassVar[float] = 9.0
    texts: ClassVar[bool] = False
    columns: ClassVar[bool] = True

    column: Annotated[int, Ge(0)] = 0
    others: bool = False

    @property
    def owners_only(self) -> bool:
        """Unless others are asked for."""
        return not self.others

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        from fedmem.training.derivatives import double

        examples = context.examples
        shape = len(context.transitions), len(examples)
        widths = context.column_widths
        if self.column >= len(widths):
            raise ComponentError(
                "column", f"there is no column {self.column}; the table has {len(widths)}, numbered from 0"
            )
        found = np.full(shape, np.nan)
        asked = np.ones(shape, dtype=bool) if self.others else context.is_owner()
        ends = np.cumsum(widths)
        for t in range(shape[0]):
            rows = np.flatnonzero(asked[t])
            if len(rows):
                slopes = norm_slopes(
                    context.network, context.params(t), double(examples.inputs[rows]), examples.targets[rows]
                )
                lengths = np.stack(
                    [np.linalg.norm(part, axis=1) for part in np.split(slopes, ends[:-1], axis=1)], axis=1
                )
                total = lengths.sum(axis=1)
                with np.errstate(invalid="ignore", divide="ignore"):
                    found[t, rows] = np.where(total > 0, lengths[:, self.column] / total, np.nan)
        return {"attribute_sensitivity": found}


def norm_slopes(network: nn.Module, params: Params, x: Tensor, targets: IntArray) -> FloatArray:
    """(n, d) the slopes of each example's gradient norm in its cells (n, d)."""
    import torch
    from torch.func import functional_call, grad, vmap

    from fedmem.training.derivatives import split_entries

    trained, constant = split_entries(network, params)

    def loss(values: Params, row: Tensor, label: Tensor) -> Tensor:
        outputs: Tensor = functional_call(network, {**values, **constant}, (row[None],))
        return example_losses(outputs, label[None])[0]

    def norm(row: Tensor, label: Tensor) -> Tensor:
        gradients = grad(loss)(trained, row, label)
        return sum((value.square().sum() for value in gradients.values()), torch.zeros((), dtype=row.dtype)).sqrt()

    return np.asarray(vmap(grad(norm))(x, torch.from_numpy(targets)).detach().numpy())
