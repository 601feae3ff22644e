"""A multi-layer perceptron for tables, with an embedding for each category."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import annotated_types

from fedmem.errors import ComponentError
from fedmem.models.mlp import MLP

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class TabularMLP:
    """Embeds each categorical column of a table, joins the numeric ones, then an `mlp`; logits (n, C).

    The columns are those of `Tables.blocks`. A block of 1 is a number in [0, 1] and goes in as it is. A block of k > 1
    is a category as a one-hot. A matrix (embedding, k) without bias turns it into the matrix's column for that
    category, the embedding of the category. It has min(`embedding`, k) numbers, standard normal at first.

    Fields

    - `embedding`: numbers that stand for a category; at most as many as there are categories.
    - `hidden`: width of each hidden layer after that.
    - `activation`: what follows each hidden layer.

    Guarantees:

    - parameters are `embedded.block{i}.weight` for each category, i its position among the columns, then those of
      `mlp`, in this order;
    - no buffers and no randomness in the forward pass: many clients can be trained as one stack.

    Errors: `ComponentError` if the data are no table.

    >>> network = TabularMLP(embedding=2, hidden=()).build_table((1, 3), 2)
    >>> [(name, tuple(parameter.shape)) for name, parameter in network.named_parameters()]
    [('embedded.block1.weight', (2, 3)), ('output.weight', (2, 3)), ('output.bias', (2,))]

    Reference: Guo and Berkhahn (2016), Entity Embeddings of Categorical Variables.
    """

    stackable: ClassVar[bool] = True

    embedding: Annotated[int, annotated_types.Ge(1)] = 8
    hidden: tuple[Annotated[int, annotated_types.Ge(1)], ...] = (64,)
    activation: Literal["relu", "tanh", "sigmoid"] = "relu"

    def build_table(self, blocks: tuple[int, ...], num_classes: int) -> nn.Module:
        """A freshly initialised network, from torch's own generator; `blocks` are the sizes of the columns."""
        if not blocks:
            raise ComponentError(
                "model.kind",
                "tabular_mlp needs a table, whose data set says which columns are numbers and which categories, but "
                "these data are no table. Choose `model: {kind: mlp}`, or a table such as `dataset: {kind: adult}`",
            )
        from torch import nn

        from fedmem.models._embedded import Embedded

        embedded = Embedded(blocks, self.embedding)
        network = nn.Sequential()
        network.add_module("embedded", embedded)
        rest = MLP(hidden=self.hidden, activation=self.activation).build((embedded.width,), num_classes)
        for name, layer in rest.named_children():
            network.add_module(name, layer)
        return network
