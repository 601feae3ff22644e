"""The fields of adapters of low rank."""

from __future__ import annotations

from typing import Annotated, Literal

import annotated_types
from pydantic import BaseModel, Field, Strict


class Lora(BaseModel, frozen=True, extra="forbid"):
    """Low-rank adapters: `W x` becomes `W x + (alpha / r) B A x` in the target layers. A and B alone are trained.

    A (r, in) is drawn and B (out, r) is zero at first, so that the network begins as it was pretrained.

    Clients send A and B, and strategies average each of them. The product of two means is not the mean of the products.
    So the aggregate does not change W by the mean of what clients change it by.

    Fields

    - `r`: the rank of each adapter.
    - `alpha`: the scale of adapters.
    - `targets`: endings of the names of the layers that get one, such as `query`; empty for those that the package peft
      takes for this architecture.
    - `dropout`: 0, since runs draw from their own streams alone.

    Reference: Hu et al. (2022), LoRA: Low-Rank Adaptation of Large Language Models.
    """

    r: Annotated[int, annotated_types.Ge(1), Strict()] = Field(default=8, description="The rank of each adapter.")
    alpha: Annotated[float, annotated_types.Gt(0), Strict()] = Field(default=16.0, description="The scale of adapters.")
    targets: tuple[str, ...] = Field(
        default=(),
        description="Endings of the names of the layers that get one; empty for those that peft takes.",
    )
    dropout: Literal[0] = Field(default=0, description="0, since runs draw from their own streams alone.")
