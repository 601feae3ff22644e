"""Hidden blocks of a network, and what examples look like after each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedmem.contracts.arrays import Params

POSITIONS = 4
"""Maps of features are averaged over their positions, down to this many along each axis; sequences to its square."""


def hidden_blocks(network: nn.Module, sample: Tensor) -> tuple[str, ...]:
    """The names of the modules at whose outputs the hidden blocks of a network end, in the order of their calls.

    A block begins at a part of the network with a matrix or a kernel among its parameters. It has all parts that follow
    up to the next one, such as a normalisation, an activation and a pooling. Flattening is left out. The last block
    yields the logits and is no hidden one. A part that wraps the whole network is looked into.

    Args:
        network: The network, in the type of `sample`.
        sample: Inputs (n, ...) with which it is called once.

    Examples:
        >>> layers = [nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)]
        >>> hidden_blocks(nn.Sequential(*layers), torch.zeros(1, 4))
        ('2', '4')
    """
    prefix, parts = "", list(network.named_children())
    while len(parts) == 1 and list(parts[0][1].children()):
        prefix, parts = f"{prefix}{parts[0][0]}.", list(parts[0][1].named_children())
    calls: list[str] = []
    _call(network, None, sample, {f"{prefix}{name}": lambda name, _: calls.append(name) for name, _ in parts})
    modules = {f"{prefix}{name}": part for name, part in parts}
    called = [name for name in dict.fromkeys(calls) if not isinstance(modules[name], nn.Flatten)]
    starts = [i for i, name in enumerate(called) if any(value.dim() > 1 for value in modules[name].parameters())]
    return tuple(called[start - 1] for start in starts[1:])


def parameter_blocks(network: nn.Module, sample: Tensor, names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """The entries of a model that belong to each block of a network, the hidden ones and the last, in order of calls.

    Blocks begin as those of `hidden_blocks`. So a normalisation, its bias and its running statistics go with the matrix
    or kernel before them. Parts in a list are parts of the network. Entries of no part that is called, and those of
    parts before the first matrix, go with the first block. Each of `names` is in one block; a block without any is left
    out, such as a frozen one.

    Args:
        network: The network, in the type of `sample`.
        sample: Inputs (n, ...) with which it is called once.
        names: The entries, such as trained parameters and running statistics.

    Examples:
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.ReLU(), nn.Linear(3, 2))
        >>> parameter_blocks(network, torch.zeros(1, 4), network.state_dict())
        (('0.weight', '0.bias', '1.weight', '1.bias'), ('3.weight', '3.bias'))
    """
    prefix, parts = "", _called_parts(network)
    while len(parts) == 1 and list(parts[0][1].children()):
        prefix, parts = f"{prefix}{parts[0][0]}.", _called_parts(parts[0][1])
    calls: list[str] = []
    _call(network, None, sample, {f"{prefix}{name}": lambda name, _: calls.append(name) for name, _ in parts})
    modules = {f"{prefix}{name}": part for name, part in parts}
    number, numbers = 0, {}
    for name in dict.fromkeys(calls):
        number += any(value.dim() > 1 for value in modules[name].parameters())
        numbers[name] = max(number - 1, 0)
    blocks: list[list[str]] = [[] for _ in range(max(number, 1))]
    for entry in names:
        owner = next((name for name in numbers if entry.startswith(f"{name}.")), None)
        blocks[0 if owner is None else numbers[owner]].append(entry)
    return tuple(tuple(block) for block in blocks if block)


def _called_parts(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a network, those in lists and mappings as parts of their own."""
    parts: list[tuple[str, nn.Module]] = []
    for name, part in network.named_children():
        inside = _called_parts(part) if isinstance(part, nn.ModuleList | nn.ModuleDict) else None
        parts += [(name, part)] if inside is None else [(f"{name}.{inner}", module) for inner, module in inside]
    return parts


def features_of(
    network: nn.Module, params: Params, inputs: Tensor, blocks: tuple[str, ...]
) -> tuple[list[Tensor], Tensor]:
    """The features (n, width) after each block, and the logits (n, C).

    Maps (n, channels, height, width) are averaged over their positions, down to 4 x 4.

    >>> network = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> params = {"0.weight": torch.tensor([[1.0], [-1.0]]), "2.weight": torch.eye(2)}
    >>> features_of(network, params, torch.tensor([[3.0]]), ("1",))[0][0].tolist()
    [[3.0, 0.0]]
    """
    kept: dict[str, Tensor] = {}
    with torch.no_grad():
        logits = _call(network, params, inputs, dict.fromkeys(blocks, lambda name, output: kept.update({name: output})))
    return [_pool_maps(kept[name]) for name in blocks], logits


def _pool_maps(maps: Tensor) -> Tensor:
    """(n, width) features, of maps averaged over positions."""
    if maps.dim() == 4:
        maps = nn.functional.adaptive_avg_pool2d(maps, (min(POSITIONS, maps.shape[2]), min(POSITIONS, maps.shape[3])))
    elif maps.dim() == 3:
        maps = nn.functional.adaptive_avg_pool1d(maps, min(POSITIONS**2, maps.shape[2]))
    return maps.flatten(1)


def _call(
    network: nn.Module, params: Params | None, inputs: Tensor, watched: dict[str, Callable[[str, Tensor], Any]]
) -> Tensor:
    """The output of the network; each watched module's name and output are passed on when it is called."""
    with ExitStack() as stack, torch.no_grad():
        for name, note in watched.items():
            hook = network.get_submodule(name).register_forward_hook(
                lambda _, __, output, name=name, note=note: note(name, output) and None
            )
            stack.callback(hook.remove)
        output: Tensor = network(inputs) if params is None else functional_call(network, params, (inputs,))
    return output
