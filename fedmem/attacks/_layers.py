"""The gradient of each problem in a stack, as far as an objective needs it: inner products, layer by layer.

The contribution of a layer to the gradient of its weights follows from its inputs and from the slope of the loss at its
outputs. So problems of one model need neither gradients of their own nor copies of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Outer:
    """The gradient of a matrix, `sum over rows of slope x input`, one for each of B: (B, R, out) and (B, R, in)."""

    slopes: Tensor
    inputs: Tensor

    def products(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Its inner products with what is wanted, in as many groups for each problem as there are, and with itself.

        `directions` (S, ...) has the entries of S problems; returns (S,) and (S,).
        """
        (rows, width), outs = self.inputs.shape[1:], self.slopes.shape[2]
        matrices = directions.reshape(len(self.inputs), outs, width)
        if rows * (width + outs) < width * outs:
            # Few rows: <D'A, W> is the sum of A * DW, and |D'A|² that of AA' * DD', so D'A need not be built.
            dot = ((self.slopes @ matrices) * self.inputs).flatten(1).sum(1)
            square = ((self.inputs @ self.inputs.mT) * (self.slopes @ self.slopes.mT)).flatten(1).sum(1)
        else:
            built = self.slopes.mT @ self.inputs
            dot, square = (built * matrices).flatten(1).sum(1), built.square().flatten(1).sum(1)
        return dot.reshape(len(directions), -1).sum(1), square.reshape(len(directions), -1).sum(1)


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A gradient that is small enough to be built, (S, ...)."""

    gradient: Tensor

    def products(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """(S,) inner products with what is wanted and with itself."""
        return (self.gradient * directions).flatten(1).sum(1), self.gradient.square().flatten(1).sum(1)


Part = Outer | Whole

Reader = Callable[["Tensor", "Tensor", int], dict[str, Part]]
"""From what went into a layer, the slope at what came out, and S, to the gradients of its parameters by name."""


def reader(module: nn.Module) -> Reader | None:
    """How to read this layer; None for unknown layers, and for layers with hooks or with another `forward`."""
    from torch import nn

    if module._forward_hooks or module._backward_hooks or module._backward_pre_hooks:
        return None
    call = type(module).forward
    if isinstance(module, nn.Linear) and call is nn.Linear.forward:
        return _linear
    if isinstance(module, nn.Conv2d) and call is nn.Conv2d.forward:
        padding = _padding(module)
        return None if padding is None else lambda inputs, slopes, count: _conv(module, padding, inputs, slopes, count)
    if isinstance(module, nn.GroupNorm) and call is nn.GroupNorm.forward:
        return lambda inputs, slopes, count: _norm(module, inputs, slopes, count)
    return None


def _linear(inputs: Tensor, slopes: Tensor, count: int) -> dict[str, Part]:
    rows = slopes.reshape(count, -1, slopes.shape[-1])
    parts: dict[str, Part] = {"weight": Outer(slopes=rows, inputs=inputs.reshape(count, -1, inputs.shape[-1]))}
    return parts | {"bias": Whole(gradient=rows.sum(1))}


def _conv(module: nn.Conv2d, padding: Sequence[int], inputs: Tensor, slopes: Tensor, count: int) -> dict[str, Part]:
    """A convolution is a linear layer of patches, one row for each place; its few weights are built image by image."""
    from torch.nn import functional

    size, dilation, stride = (tuple(value) for value in (module.kernel_size, module.dilation, module.stride))
    patches = functional.unfold(inputs, size, dilation, tuple(padding), stride)  # (S n, in * size, places)
    flat, groups = slopes.flatten(2), module.groups
    # this way round the slope of the patches comes out as they lie in memory
    rows, columns = (value.reshape(-1, value.shape[1] // groups, value.shape[2]) for value in (flat, patches))
    built = (columns @ rows.mT).mT.reshape(count, -1, *module.weight.shape)
    bias = flat.sum(2).reshape(count, -1, flat.shape[1])
    return {"weight": Whole(gradient=_sum_over_images(built)), "bias": Whole(gradient=_sum_over_images(bias))}


def _sum_over_images(values: Tensor) -> Tensor:
    """Over the images of each problem."""
    return values.squeeze(1) if values.shape[1] == 1 else values.sum(1)


def _padding(module: nn.Conv2d) -> Sequence[int] | None:
    """Zeros on either side; None where they are of another kind, or not the same on both."""
    if module.padding_mode != "zeros":
        return None
    if not isinstance(module.padding, str):
        return module.padding
    around = [step * (size - 1) for size, step in zip(module.kernel_size, module.dilation, strict=True)]
    if module.padding == "valid":
        return [0, 0]
    return None if any(value % 2 for value in around) else [value // 2 for value in around]


def _norm(module: nn.GroupNorm, inputs: Tensor, slopes: Tensor, count: int) -> dict[str, Part]:
    from torch.nn import functional

    plain = functional.group_norm(inputs, module.num_groups, eps=module.eps)

    def sum_over_images(values: Tensor) -> Whole:
        each = values.flatten(2).sum(2)
        return Whole(gradient=_sum_over_images(each.reshape(count, -1, each.shape[1])))

    return {"weight": sum_over_images(slopes * plain), "bias": sum_over_images(slopes)}
