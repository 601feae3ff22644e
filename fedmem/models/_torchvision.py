"""Networks of torchvision, for images of any size and channels; imported only when one is built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn

from fedmem.contracts.arrays import Params
from fedmem.contracts.model import add_network_note
from fedmem.errors import ComponentError, FolderError
from fedmem.models.torchvision import Torchvision, sizes_of
from fedmem.weights.files import read_params
from fedmem.weights.matching import load_weights

_HEADS = ("fc", "heads.head")
"""The names of the last layers."""


class PlainAttention(nn.MultiheadAttention):
    """Attention of an input to itself by products and a softmax, which can be stacked and derived twice.

    Names, initialisation and outputs are those of the class that it is derived from.
    """

    def forward(self, query: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        """The output (n, l, width), and no weights."""
        count, length, width = query.shape
        assert self.in_proj_weight is not None
        queries, keys, values = (
            part.reshape(count, length, self.num_heads, self.head_dim).transpose(1, 2)
            for part in nn.functional.linear(query, self.in_proj_weight, self.in_proj_bias).tensor_split(3, dim=2)
        )
        weights = (queries @ keys.transpose(2, 3) / self.head_dim**0.5).softmax(dim=3)
        mixed = (weights @ values).transpose(1, 2).reshape(count, length, width)
        return nn.functional.linear(mixed, self.out_proj.weight, self.out_proj.bias), None


def build_network(model: Torchvision, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The network of a component, freshly initialised or with the weights of its file."""
    sizes = sizes_of(model)
    if sizes:
        network = _vision_transformer(sizes, input_shape, num_classes)
    else:
        network = _resnet(model, input_shape[0], num_classes)
    if model.weights:
        _load(network, Path(model.weights).expanduser(), model.weights)
    return network


def _resnet(model: Torchvision, channels: int, num_classes: int) -> nn.Module:
    """A ResNet of torchvision, its first layer for these channels and, if asked for, for small images."""
    network: Any = torchvision.models.get_model(model.architecture, weights=None, num_classes=num_classes)
    width = network.conv1.out_channels
    if model.stem == "small":
        network.conv1 = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif channels != network.conv1.in_channels:
        network.conv1 = nn.Conv2d(channels, width, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network  # type: ignore[no-any-return]


def _vision_transformer(sizes: Mapping[str, int], input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """A VisionTransformer of torchvision whose attention can be stacked, its first layer for these channels."""
    channels, size, _ = input_shape
    network: Any = torchvision.models.VisionTransformer(
        image_size=size,
        patch_size=sizes["patch_size"],
        num_layers=sizes["layers"],
        num_heads=sizes["heads"],
        hidden_dim=sizes["width"],
        mlp_dim=sizes["mlp_width"],
        num_classes=num_classes,
    )
    first = network.conv_proj
    if channels != first.in_channels:
        network.conv_proj = nn.Conv2d(channels, first.out_channels, first.kernel_size, stride=first.stride)
        fan_in = channels * first.kernel_size[0] * first.kernel_size[1]
        nn.init.trunc_normal_(network.conv_proj.weight, std=fan_in**-0.5)
        nn.init.zeros_(network.conv_proj.bias)
    # zeros, as torchvision has them, would give all other layers no gradient in the first step
    network.heads.head.reset_parameters()
    for block in network.encoder.layers:
        plain = PlainAttention(block.self_attention.embed_dim, block.self_attention.num_heads, batch_first=True)
        plain.load_state_dict(block.self_attention.state_dict())
        block.self_attention = plain
    return network  # type: ignore[no-any-return]


def _load(network: nn.Module, file: Path, text: str) -> None:
    """Copies the weights of a file; a last layer for another number of classes stays fresh, which a note says.

    Errors: `ComponentError` at `model.weights`.
    """
    try:
        weights = read_params(file)
    except FolderError as error:
        raise ComponentError("model.weights", str(error)) from error
    weights, state = _with_new_names(weights, network.state_dict()), network.state_dict()
    head = next(name for name in _HEADS if f"{name}.weight" in state)
    given = weights.get(f"{head}.weight")
    is_other = given is not None and given.shape[0] != state[f"{head}.weight"].shape[0]
    leave = (f"{head}.*",) if is_other else ()
    loaded = load_weights(network, weights, text, leave=leave, place="model.weights")
    classes = f", since the file has {given.shape[0]} classes" if given is not None and is_other else ""
    add_network_note(network, loaded.text(text) + classes)


def _with_new_names(weights: Params, state: Params) -> Params:
    """The weights under the names that torchvision has now, and with counters that older files lack.

    >>> import torch
    >>> list(_with_new_names({"encoder.layers.0.mlp.linear_2.bias": torch.zeros(1)}, {}))
    ['encoder.layers.0.mlp.3.bias']
    """
    numbers = {"1": "0", "2": "3"}
    named = {re.sub(r"\.mlp\.linear_([12])\.", lambda m: f".mlp.{numbers[m[1]]}.", k): v for k, v in weights.items()}
    counters = {name: value for name, value in state.items() if name.endswith(".num_batches_tracked")}
    return {**counters, **named}
