"""Unit ablation: how many hidden units have to be zeroed until a model no longer gives the label of an example."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from annotated_types import Gt, Le

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._observed_rounds import ObservedRounds

if TYPE_CHECKING:
    from torch import Tensor, nn

_ROWS = 1 << 12
"""Rows of one forward pass, about."""


@dataclass(frozen=True, kw_only=True)
class UnitAblation(ObservedRounds):
    """Hidden units are zeroed one by one: those that matter most to one example and least to other rows.

    A unit is a hidden unit or a channel at the end of a hidden block. With J = −ℓ_j + mean ℓ over reference rows, the
    score of a unit is Σ over its activations a of a · ∂J/∂a. After a ReLU without normalisation that is
    Σ w · ∂J/∂w over its incoming weights and bias. The unit with the largest score is zeroed, for this example
    alone, and scores are formed again. It ends after `cap` units, or when no score is positive.

    - `units_to_flip`: the number of zeroed units after which the model is first wrong about the example. 0 where it is
      wrong without any, and cap + 1 where it is still right at the end (censored);
    - `units_censored`: whether it is still right at the end, 0 or 1;
    - `ablation_fall`: the margin without zeroed units, minus the mean margin after 1 to `cap` of them, in nats.

    Examples are read whether or not the model is right, also in runs without the example. The gain of `ablation_fall`
    is the mean fall in runs with the example minus that in runs without it. Stored without rows in tables:
    `ablated_margin.<k>`, the margin after k zeroed units, constant once zeroing has ended, and `ablated_unit.<i>`, the
    number of the i-th zeroed unit, for the first five.

    References are drawn from the population, the same for all models. At a client, only its own examples are read. NaN
    for a model that has diverged.

    Fields

    - `units`: the cap; if left out, a share of all hidden units, at least one.
    - `share`: this share.
    - `reference`: how many rows of the population are used, at most.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> UnitAblation(units=3).variants
    ('ablated_margin', 'ablated_unit')

    Reference: Maini et al. (2023), Can neural network memorization be localized?
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        *signal_measures(
            Measure(
                name="units_to_flip",
                title="units to flip",
                means="Number of zeroed hidden units until the answer is wrong; the cap plus 1 if it stays right.",
                is_not="It is not memorisation: few units are also enough where the model is unsure.",
                range=(0.0, math.inf),
                digits=1,
            )
        ),
        *signal_measures(
            Measure(
                name="units_censored",
                title="still right at the cap",
                means="Whether the answer is right after the largest number of zeroed units.",
                is_not="It depends on the cap, which is a field.",
                unit="share",
                range=(0.0, 1.0),
            )
        ),
        *signal_measures(
            Measure(
                name="ablation_fall",
                title="fall of the margin by zeroed units",
                means="The margin of the label minus its mean after 1 to cap zeroed units.",
                is_not="It is large for all examples of a model that depends on few units.",
                unit="nats",
                trained_on="higher",
            )
        ),
    )
    texts: ClassVar[bool] = False
    owners_only: ClassVar[bool] = True
    needs_population: ClassVar[bool] = True
    min_blocks: ClassVar[int] = 1
    variants: ClassVar[tuple[str, ...]] = ("ablated_margin", "ablated_unit")

    units: Annotated[int, Gt(0)] | None = None
    share: Annotated[float, Gt(0), Le(1)] = 0.2
    reference: Annotated[int, Gt(0)] = 20

    def passes_in(self, federation: Federation) -> tuple[float, float]:
        """A forward and a backward pass of the example and of all references for each unit."""
        rows = 1 + min(self.reference, len(federation.population))
        return 3.0 * rows * (self._cap(federation) + 1), 0.0

    def variant_names(self, federation: Federation) -> Mapping[str, Sequence[str]]:
        """Margins by the number of zeroed units, and the first of these."""
        cap = self._cap(federation)
        first = range(1, min(_FIRST, cap) + 1)
        return {"ablated_margin": [*map(str, range(cap + 1))], "ablated_unit": [*map(str, first)]}

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        cap = self._cap(context.federation)
        shape = len(context.transitions), len(context.examples)
        margin = np.full((*shape, cap + 1), np.nan)
        right = np.zeros((*shape, cap + 1), dtype=bool)
        unit = np.full((*shape, min(_FIRST, cap)), np.nan)
        reference = self._reference(context)
        for position in range(len(context.transitions)):
            rows = np.flatnonzero(context.is_owner()[position])
            at_once = max(1, _ROWS // (1 + len(reference)))
            for start in range(0, len(rows), at_once):
                some = rows[start : start + at_once]
                ablated = ablate(context, position, context.examples.take(some), reference, cap)
                margin[position, some], right[position, some] = ablated[:2]
                unit[position, some] = ablated[2][:, :_FIRST]
        is_known = ~np.isnan(margin).any(axis=2)
        # the first number of units after which it is wrong
        count = np.where(right.all(axis=2), cap + 1.0, np.argmin(right, axis=2))
        return {
            "units_to_flip": np.where(is_known, count, np.nan),
            "units_censored": np.where(is_known, right.all(axis=2).astype(np.float64), np.nan),
            "ablation_fall": margin[:, :, 0] - margin[:, :, 1:].mean(axis=2),
            "ablated_margin": margin,
            "ablated_unit": unit,
        }

    def _cap(self, federation: Federation) -> int:
        """The largest number of zeroed units; never all of them."""
        total = sum(width for _, width, _ in _unit_layers(federation.model, federation))
        return max(1, min(total - 1, self.units or int(self.share * total)))

    def _reference(self, context: SignalContext) -> Examples:
        population = context.federation.population
        order = context.stream("unit ablation references").permutation(len(population))
        return population.take(np.sort(order[: self.reference]))


_FIRST = 5
"""How many of the zeroed units are stored by their numbers."""


def ablate(
    context: SignalContext, position: int, examples: Examples, reference: Examples, cap: int
) -> tuple[FloatArray, np.ndarray[Any, np.dtype[np.bool_]], FloatArray]:
    """Margins and correctness (n, cap + 1) after 0 to `cap` zeroed units, and the units (n, cap), NaN after the end."""
    import torch

    from fedmem.modalities.loss import example_losses
    from fedmem.modalities.scores import answers
    from fedmem.training.derivatives import double

    layers = _unit_layers(context.network, context.federation)
    n, rows = len(examples), 1 + len(reference)
    repeated = reference.take(np.tile(np.arange(rows - 1), n))
    inputs = double(np.concatenate([examples.inputs, repeated.inputs]))
    targets = torch.from_numpy(np.concatenate([examples.targets, repeated.targets]))
    mask = torch.ones(n, sum(width for _, width, _ in layers), dtype=torch.float64)
    is_ended = torch.zeros(n, dtype=torch.bool)
    margin, right = np.empty((n, cap + 1)), np.empty((n, cap + 1), dtype=bool)
    units = np.full((n, cap), np.nan)
    for k in range(cap + 1):
        leaf = mask.clone().requires_grad_()
        of_rows = torch.cat([leaf, leaf.repeat_interleave(rows - 1, dim=0)])
        with _mask_outputs(context.network, layers, of_rows):
            outputs = context.function(position)(inputs)
        of_examples = answers(outputs[:n].detach().numpy(), examples.targets)
        margin[:, k], right[:, k] = of_examples[0], of_examples[1]
        if k == cap:
            break
        losses = example_losses(outputs, targets)
        objective = losses[n:].reshape(n, rows - 1).mean(dim=1) - losses[:n]
        (scores,) = torch.autograd.grad(objective.sum(), leaf)
        scores = scores.nan_to_num(nan=-torch.inf).masked_fill(mask == 0, -torch.inf)
        best, chosen = scores.max(dim=1)
        is_ended |= best <= 0
        going = torch.nonzero(~is_ended)[:, 0]
        mask[going, chosen[going]] = 0.0
        units[going.numpy(), k] = chosen[going].numpy()
    return margin, right, units


def _unit_layers(network: nn.Module, federation: Federation) -> list[tuple[str, int, int]]:
    """The modules at whose outputs units are zeroed, each with the number of its units and their axis."""
    import torch

    from fedmem.training.blocks import hidden_blocks, parameter_blocks

    kind = next(network.parameters()).dtype
    sample = torch.from_numpy(np.array(federation.store.inputs[:1])).to(kind)
    shapes: dict[str, tuple[int, ...]] = {}
    names = hidden_blocks(network, sample)
    blocks = parameter_blocks(network, sample, [name for name, _ in network.named_parameters()])
    with ExitStack() as stack, torch.no_grad():
        for name in names:
            hook = network.get_submodule(name).register_forward_hook(
                lambda _, __, output, name=name: shapes.update({name: tuple(output.shape)})
            )
            stack.callback(hook.remove)
        network(sample)
    layers = []
    for name, block in zip(names, blocks, strict=False):
        has_kernel = any(network.get_parameter(entry).dim() > 2 for entry in block)
        axis = 1 if has_kernel else len(shapes[name]) - 1
        layers.append((name, shapes[name][axis], axis))
    return layers


@contextmanager
def _mask_outputs(network: nn.Module, layers: Sequence[tuple[str, int, int]], mask: Tensor) -> Iterator[None]:
    """The network with the outputs of units times the mask (rows, units) of each row."""
    with ExitStack() as stack:
        start = 0
        for name, width, axis in layers:
            part = mask[:, start : start + width]
            start += width

            def apply(_: nn.Module, __: Any, output: Tensor, part: Tensor = part, axis: int = axis) -> Tensor:
                shape = [1] * output.dim()
                shape[0], shape[axis] = part.shape
                return output * part.reshape(shape)

            stack.callback(network.get_submodule(name).register_forward_hook(apply).remove)
        yield
