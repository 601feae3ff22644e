"""Canaries: images of noise with a random label, and a generator that can make more of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.errors import ComponentError
from fedmem.types import ClientData, Examples, Injected, Role

if TYPE_CHECKING:
    from fedmem.spare import Spare

_FEWEST_BINARY_PIXELS = 32


@dataclass(frozen=True, kw_only=True)
class RandomPattern:
    """Every pixel is drawn independently, the label uniformly over the classes; nothing about them can be learnt.

    The pattern does not depend on the label, so fresh references (`references`) are patterns without a label: a canary
    is ranked among them under its own label. The space has 2^pixels members if binary, so a reference never happens to
    be the canary; below 32 pixels binary patterns are refused.

    Fields

    - `per_client`: canaries on every client.
    - `copies`: how often an in canary is trained on in each epoch, all copies under one coin.
    - `values`: `binary` draws 0 or 1 with equal odds, far from any natural image; `uniform` draws from [0, 1).
    - `label`: name of this injection in every output; its kind if left out.

    Guarantees:

    - canaries and references come from one generator and are independent;
    - takes no real row; ids are negative.

    Errors: `ComponentError` for binary patterns of fewer than 32 pixels.

    >>> RandomPattern().references(2, (1, 8, 8), np.random.default_rng(0)).shape
    (2, 1, 8, 8)

    Reference: Carlini, Liu, Erlingsson, Kos and Song (2019), The Secret Sharer, carried over to classification.
    """

    role: ClassVar[Role] = "canary"

    per_client: Annotated[int, annotated_types.Ge(1)] = 4
    copies: Annotated[int, annotated_types.Ge(1)] = 1
    values: Literal["binary", "uniform"] = "binary"
    label: Annotated[str, annotated_types.MinLen(1)] | None = None

    @property
    def name(self) -> str:
        """What the kind is called in outputs."""
        return self.label or "random_pattern"

    def spare_rows(self, num_clients: int) -> int:
        """Canaries are made, not taken."""
        return 0

    def total_copies(self, num_clients: int) -> int:
        """Copies of all canaries."""
        return num_clients * self.per_client * self.copies

    def plan(self, clients: Sequence[ClientData], spare: Spare, num_classes: int, rng: np.random.Generator) -> Injected:
        """`per_client` canaries for each client, in order of client."""
        count = len(clients) * self.per_client
        inputs = self.references(count, clients[0].examples.inputs.shape[1:], rng)
        examples = Examples(inputs=inputs, targets=rng.integers(num_classes, size=count), ids=-1 - np.arange(count))
        return Injected(
            examples=examples,
            holder=np.repeat(np.array([data.client for data in clients], dtype=np.int32), self.per_client),
            copies=np.full(count, self.copies, dtype=np.int32),
        )

    def references(self, count: int, input_shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
        """(count, *input_shape) fresh patterns."""
        shape = (count, *input_shape)
        if self.values == "uniform":
            return rng.random(shape, dtype=np.float32)
        if math.prod(input_shape) < _FEWEST_BINARY_PIXELS:
            raise ComponentError(
                "injections",
                f"binary random_pattern wants at least {_FEWEST_BINARY_PIXELS} values per input, but inputs have shape "
                f"{tuple(input_shape)}; write `values: uniform`",
            )
        return rng.integers(2, size=shape).astype(np.float32)
