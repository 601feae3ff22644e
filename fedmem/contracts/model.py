"""What a model must do."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import nn


@runtime_checkable
class Model(Protocol):
    """Builds a network. `stackable` is False where clients must be trained one by one (buffers, recurrent kernels).

    One of texts says `texts: ClassVar[bool] = True`: it maps token numbers (n, l) int64, l up to the length of a row,
    to logits (n, l, V), those at a place from the tokens up to there alone. It reads nothing else, and others no texts.
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
