"""Adapters of low rank: their fields, and how a network gets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import annotated_types
from pydantic import BaseModel, Field, Strict

from fedmem.errors import ComponentError
from fedmem.wording import choices


class Lora(BaseModel, frozen=True, extra="forbid"):
    """Low-rank adapters: `W x` becomes `W x + (alpha / r) B A x` in the target layers. A and B alone are trained.

    A (r, in) is drawn and B (out, r) is zero at first, so that the network begins as it was pretrained.

    Clients send A and B, and strategies average each of them. The product of two means is not the mean of the products.
    So the aggregate does not change W by the mean of what clients change it by.

    Fields

    - `r`: the rank of each adapter.
    - `alpha`: the scale of adapters, which is divided by `r`.
    - `targets`: endings of the names of the layers that get one, such as `query`. It may be left out: the layers
      are then those that the package peft takes for this architecture.
    - `dropout`: 0, since runs draw from their own streams alone.

    Reference: Hu et al. (2022), LoRA: Low-Rank Adaptation of Large Language Models.
    """

    r: Annotated[int, annotated_types.Ge(1), annotated_types.Le(65_536), Strict()] = Field(
        default=8, description="The rank of each adapter."
    )
    alpha: Annotated[float, annotated_types.Gt(0), Strict()] = Field(default=16.0, description="The scale of adapters.")
    targets: tuple[str, ...] = Field(
        default=(),
        description="Endings of the names of the layers that get one; empty for those that peft takes.",
    )
    dropout: Literal[0] = Field(default=0, description="0, since runs draw from their own streams alone.")


def add_adapters(network: Any, lora: Lora) -> None:
    """Adds adapters to the target layers of a network. Errors: `ComponentError` for a target that names no layer."""
    from peft import LoraConfig, inject_adapter_in_model

    names = [name for name, _ in network.named_modules()]
    unknown = [one for one in lora.targets if not any(f".{name}".endswith(f".{one}") for name in names)]
    if unknown:
        raise _no_target(network, unknown)
    targets = list(lora.targets) or None
    config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=targets, lora_dropout=0.0)  # type: ignore[arg-type]
    try:
        inject_adapter_in_model(config, network)
    except ValueError as error:
        raise _no_target(network, lora.targets) from error


def _no_target(network: Any, targets: Sequence[str]) -> ComponentError:
    """The error for targets that are no layers with weights, with those that are."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    endings = {
        name.rpartition(".")[2] for name, part in network.named_modules() if isinstance(part, nn.Linear | Conv1D)
    }
    which = f"no layer of the network is called {' or '.join(targets)}" if targets else "names no layers"
    return ComponentError("model.peft.targets", f"{which}{choices(targets[0] if targets else '', sorted(endings))}")
