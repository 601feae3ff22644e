"""Contracts of models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.declarations import Declaration, declare, read_declaration

if TYPE_CHECKING:
    from torch import Tensor, nn


@runtime_checkable
class Model(Protocol):
    """Builds a network. `stackable` is False where clients must be trained one by one, as with recurrent kernels.

    What clients train are the parameters that require gradients (`trained_parameters`). All others, and buffers, are
    frozen: clients and runs share them.

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
class TextModel(Protocol):
    """A model that has to know the tokens of texts, such as one that was pretrained with a tokenizer.

    `vocabulary` (V,) are the tokens and `length` those of a row. With `num_classes` a text has one class: tokens (n, l)
    int64, -1 after the end of a text, to logits (n, num_classes). None stands for next tokens: logits (n, l, V). For
    `stackable`, see `Model`.
    """

    stackable: ClassVar[bool]

    def build_text(self, vocabulary: tuple[str, ...], length: int, num_classes: int | None) -> nn.Module: ...


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
            place depend on the tokens up to there alone. It then reads no numbers; other models read no such texts.
        labelled_texts: Whether it maps token numbers (n, l) int64, -1 after the end of a text, to logits (n, C) of the
            class of each text. It then reads no numbers.
        densities: Whether it maps inputs to their log-densities in nats, (n, 1), and reads data without labels alone.
            `num_classes` is then 1. Training may draw (`self.training`), as dropout does. In evaluation mode outputs
            follow from the input and the parameters. An estimate by sampling uses noise that all models share.
        binary_inputs: Whether its densities are of inputs whose values are 0 or 1 alone.
        packages: Names of installed packages that its outputs depend on, besides torch. Their versions are in the
            manifest, and a run of other versions is not taken for the same.
        stackable_on_gpu: Whether clients can be trained as a stack although `stackable` is False, and `executor: auto`
            does so on GPUs of NVIDIA. So declare convolutions: a processor takes longer for a stack of them.
    """

    texts: bool = declare(False, "true or false")
    labelled_texts: bool = declare(False, "true or false")
    densities: bool = declare(False, "true or false")
    binary_inputs: bool = declare(False, "true or false")
    packages: tuple[str, ...] = declare((), "a tuple of names of packages")
    stackable_on_gpu: bool = declare(False, "true or false")


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a network that clients train, by name: those that require gradients.

    All other parameters and all buffers are frozen: see `frozen_tensors`. A model in messages, evidence and files is
    its trained parameters.

    >>> from torch import nn
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> _ = network[0].requires_grad_(False)
    >>> list(trained_parameters(network))
    ['1.weight', '1.bias']
    """
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def frozen_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network that no client trains, by name: frozen parameters, then buffers. They are not copied.

    All clients of all runs share them, and no message or file of a run has them.

    >>> from torch import nn
    >>> list(frozen_tensors(nn.BatchNorm1d(2, affine=False)))
    ['running_mean', 'running_var', 'num_batches_tracked']
    """
    frozen = {name: value.detach() for name, value in module.named_parameters() if not value.requires_grad}
    return frozen | {name: value.detach() for name, value in module.named_buffers()}


def last_layer(network: nn.Module, inputs: NDArray[Any]) -> str:
    """The name of the module with parameters of its own whose forward pass on these inputs begins last.

    A module that is called ends before the one that calls it, which may have parameters of its own too.

    >>> from torch import nn
    >>> last_layer(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.ReLU()), np.zeros((1, 2), np.float32))
    '1'
    """
    import torch

    calls: list[str] = []

    def note(name: str) -> Any:
        return lambda *_: calls.append(name)

    modules = {name: part for name, part in network.named_modules() if list(part.parameters(recurse=False))}
    hooks = [part.register_forward_pre_hook(note(name)) for name, part in modules.items()]
    try:
        with torch.no_grad():
            rows = torch.from_numpy(np.array(inputs))
            dtype = next(network.parameters()).dtype
            network(rows.to(dtype) if rows.is_floating_point() else rows)
    finally:
        for hook in hooks:
            hook.remove()
    return calls[-1]


_NOTES = "_fedmem_notes"


def network_notes(module: nn.Module) -> tuple[str, ...]:
    """The sentences on where the weights of a network come from; see `add_network_note`."""
    notes: tuple[str, ...] = vars(module).get(_NOTES, ())
    return notes


def add_network_note(module: nn.Module, text: str) -> None:
    """Adds a sentence on the origin of a network's weights, which `fedmem check` and the manifest of a run show.

    >>> from torch import nn
    >>> network = nn.Linear(2, 3)
    >>> add_network_note(network, "2 tensors are from model.pt")
    >>> network_notes(network)
    ('2 tensors are from model.pt',)
    """
    vars(module)[_NOTES] = (*network_notes(module), text)


def is_trained_stacked(model: Model | TableModel | TextModel, device: str) -> bool:
    """The rule of `executor: auto`: whether clients of a model are trained as a stack on `cpu`, `cuda` or `mps`.

    On a processor, and on GPUs of Apple, of which nothing is known yet, the models that declare `stackable`. On `cuda`
    also those that declare `stackable_on_gpu`: one client after the other would leave most of such a GPU idle.

    >>> from fedmem.models.small_cnn import SmallCNN
    >>> [is_trained_stacked(SmallCNN(), device) for device in ("cpu", "cuda", "mps")]
    [False, True, False]
    """
    return model.stackable or (device == "cuda" and model_declaration(model).stackable_on_gpu)


def model_declaration(model: object) -> ModelDeclaration:
    """The declarations of a model.

    >>> from fedmem.models.transformer import Transformer
    >>> model_declaration(Transformer()).texts
    True
    """
    return read_declaration(ModelDeclaration, model)
