"""Zeroing of hidden units, one by one, for one example at a time: the units in their order, and margins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.contracts.signal import Network, SignalContext

if TYPE_CHECKING:
    from torch import Tensor, nn

_ROWS = 1 << 12
"""Rows of one forward pass, about."""


def num_units(federation: Federation) -> int:
    """The number of hidden units of the network."""
    return sum(width for _, width, _ in unit_layers(federation.model, federation))


def reference_rows(context: SignalContext, count: int) -> Examples:
    """So many rows of the population, drawn at random, the same for all models; all if there are fewer."""
    population = context.federation.population
    order = context.stream("unit ablation references").permutation(len(population))
    return population.take(np.sort(order[:count]))


def input_noise(context: SignalContext, sigma: float, draws: int) -> FloatArray | None:
    """(draws, *input shape) normal noise, the same for all models and rows; None for a standard deviation of 0."""
    shape = draws, *context.federation.store.inputs.shape[1:]
    return sigma * context.stream("unit ablation noise").standard_normal(shape) if sigma else None


def ablate(
    context: SignalContext,
    function: Network,
    examples: Examples,
    reference: Examples,
    cap: int,
    noise: FloatArray | None = None,
) -> tuple[FloatArray, BoolArray, FloatArray]:
    """Zero up to `cap` units of a model, one by one, for each example alone.

    With `noise` (draws, *input shape), scores are means over inputs to which each draw is added. Answers are about the
    inputs themselves.

    Returns:
        Margins and correctness (n, cap + 1) after 0 to `cap` zeroed units, and the units (n, cap), NaN after the end.
        Of equal scores the first unit is taken.
    """
    n, at_once = len(examples), max(1, _ROWS // (1 + len(reference)))
    margin, right = np.empty((n, cap + 1)), np.empty((n, cap + 1), dtype=bool)
    units = np.empty((n, cap))
    for start in range(0, n, at_once):
        some = np.arange(start, min(start + at_once, n))
        margin[some], right[some], units[some] = _ablate(context, function, examples.take(some), reference, cap, noise)
    return margin, right, units


def _ablate(
    context: SignalContext,
    function: Network,
    examples: Examples,
    reference: Examples,
    cap: int,
    noise: FloatArray | None,
) -> tuple[FloatArray, BoolArray, FloatArray]:
    import torch

    from fedmem.modalities.loss import example_losses
    from fedmem.modalities.scores import answers
    from fedmem.training.derivatives import double

    layers = unit_layers(context.network, context.federation)
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
        with mask_outputs(context.network, layers, of_rows):
            outputs = function(inputs)
            seen = [outputs] if noise is None else [function(inputs + torch.from_numpy(draw)) for draw in noise]
        of_examples = answers(outputs[:n].detach().numpy(), examples.targets)
        margin[:, k], right[:, k] = of_examples[0], of_examples[1]
        if k == cap:
            break
        losses = torch.stack([example_losses(logits, targets) for logits in seen]).mean(dim=0)
        objective = losses[n:].reshape(n, rows - 1).mean(dim=1) - losses[:n]
        (scores,) = torch.autograd.grad(objective.sum(), leaf)
        scores = scores.nan_to_num(nan=-torch.inf).masked_fill(mask == 0, -torch.inf)
        best, chosen = scores.max(dim=1)
        is_ended |= best <= 0
        going = torch.nonzero(~is_ended)[:, 0]
        mask[going, chosen[going]] = 0.0
        units[going.numpy(), k] = chosen[going].numpy()
    return margin, right, units


def unit_layers(network: nn.Module, federation: Federation) -> list[tuple[str, int, int]]:
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
def mask_outputs(network: nn.Module, layers: Sequence[tuple[str, int, int]], mask: Tensor) -> Iterator[None]:
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
