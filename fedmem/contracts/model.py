"""Contracts of models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from fedmem.contracts.declarations import Declaration, declare, read_declaration

if TYPE_CHECKING:
    from torch import Tensor, nn


@runtime_checkable
class Model(Protocol):
    """Builds a network. `stackable` is False where clients must be trained one by one (buffers, recurrent kernels).

    It may declare what `ModelDeclaration` lists.
    """

    stackable: ClassVar[bool]

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module: ...


@runtime_checkable
class TableModel(Protocol):
    """A model that has to know the columns of a table, `Tables.blocks` of `fedmem.modalities.tables`.

    For `stackable`, see `Model`.
    """

    stackable: ClassVar[bool]

    def build_table(self, blocks: tuple[int, ...], num_classes: int) -> nn.Module: ...


@runtime_checkable
class StepwiseNetwork(Protocol):
    """A network of texts that reads one token after another from a state; see `CausalModel` in `modalities/text/`."""

    def start(self, count: int) -> tuple[Tensor, ...]: ...

    def advance(self, state: tuple[Tensor, ...], tokens: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]: ...


@dataclass(frozen=True, kw_only=True)
class ModelDeclaration(Declaration):
    """The declarations of a model, with their defaults.

    Attributes:
        texts: Whether it maps token numbers (n, l) int64, l up to the length of a row, to logits (n, l, V). Those at a
            place depend on the tokens up to there alone. It then reads nothing else; other models read no texts.
    """

    texts: bool = declare(False, "true or false")


def model_declaration(model: object) -> ModelDeclaration:
    """The declarations of a model.

    >>> from fedmem.models.transformer import Transformer
    >>> model_declaration(Transformer()).texts
    True
    """
    return read_declaration(ModelDeclaration, model)
