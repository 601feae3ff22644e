"""A small vision transformer, written of products and softmaxes that can be stacked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types

from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class SmallViT:
    """Squares of an image, attention between them, and a linear layer on their mean; logits (n, C).

    The image is cut into squares of `patch` x `patch` pixels (Dosovitskiy et al., 2021). A linear layer maps each to
    `width` numbers, and learned numbers of each place are added. The blocks are those of `transformer`, but each square
    attends to all. Attention, and two linear layers with GELU, four times as wide between, each follow a norm and are
    added to their input. The mean over squares replaces the class token (Beyer et al., 2022).

    Fields

    - `patch`: height and width of a square; divides those of the images.
    - `width`: numbers that stand for a square; a multiple of `heads`.
    - `heads`: of each attention, each of `width / heads`.
    - `layers`: how many blocks.

    Guarantees:

    - parameters are named after `patches`, `places`, `blocks`, `norm` and `output`, in this order;
    - neither buffers nor dropout: many clients can be trained as one stack.

    Errors: `ComponentError` for inputs that are no images, a patch that does not divide them, and a width that the
    heads do not divide.

    >>> network = SmallViT(patch=4, width=8, heads=2, layers=1).build((1, 8, 8), 10)
    >>> sum(value.numel() for value in network.parameters())
    1146

    References: Dosovitskiy et al. (2021), An Image is Worth 16x16 Words; Beyer, Zhai and Kolesnikov (2022), Better
    plain ViT baselines for ImageNet-1k.
    """

    stackable: ClassVar[bool] = True

    patch: Annotated[int, annotated_types.Ge(1)] = 4
    width: Annotated[int, annotated_types.Ge(1)] = 32
    heads: Annotated[int, annotated_types.Ge(1)] = 4
    layers: Annotated[int, annotated_types.Ge(1)] = 2

    def __post_init__(self) -> None:
        if self.width % self.heads:
            below = self.width // self.heads * self.heads
            widths = [str(width) for width in (below, below + self.heads) if width]
            raise ComponentError(
                "width", f"{self.width} cannot be divided among {self.heads} heads; use {' or '.join(widths)}"
            )

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A freshly initialised network, from torch's own generator."""
        from fedmem.models._small_vit import PatchClassifier

        if len(input_shape) != 3:
            raise ComponentError(
                "model.kind",
                f"small_vit needs images (channels, height, width), but inputs have shape {tuple(input_shape)}; choose "
                "`model: {kind: mlp}`",
            )
        if any(size % self.patch for size in input_shape[1:]):
            fitting = [n for n in range(1, min(input_shape[1:]) + 1) if not any(size % n for size in input_shape[1:])]
            raise ComponentError(
                "model.patch",
                f"squares of {self.patch} pixels do not divide images of {input_shape[1]}x{input_shape[2]}; use one of "
                f"{', '.join(map(str, fitting))}",
            )
        return PatchClassifier(self, input_shape, num_classes)
