"""The contract of networks whose forward pass in training differs from the one that watches them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmem.contracts.client_shards import ClientShards
from fedmem.contracts.tied_units import TiedUnits

if TYPE_CHECKING:
    from torch import Tensor, nn

STATISTICS = ("running_mean", "running_var")
"""The names of the buffers of a layer that are its running statistics."""


@dataclass(frozen=True, kw_only=True)
class TrainingMode:
    """The difference between the forward passes of clients in training and all others, which are in evaluation mode.

    Attributes:
        statistics: Entries of a model that are running statistics. Forward passes in training update them; no client
            algorithm steps on them.
        personal: Entries of a model that stay with each client because of the scenario's `norm`.
        draws: Whether a forward pass in training draws from a global generator, as dropout does.
        changes: Whether a forward pass in training gives other outputs, although it neither draws nor has statistics.
        min_rows: Rows of the smallest batch that the network can be trained on. BatchNorm of vectors cannot compute the
            variance of a single example. A step on fewer rows has a gradient of zero, like one on an empty batch.
        tied: The hidden units that only some rows keep in training; None where all rows keep all. They are given to
            each forward pass, so that the network itself stays in evaluation mode.
        client_shards: The shards whose clients train one constituent of the network each; None where all clients train
            the whole.

    >>> TrainingMode().differs, TrainingMode(draws=True).differs
    (False, True)
    """

    statistics: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()
    draws: bool = False
    changes: bool = False
    min_rows: int = 1
    tied: TiedUnits | None = None
    client_shards: ClientShards | None = None

    @property
    def differs(self) -> bool:
        """Whether training mode differs. Such clients are trained one by one, in a network of their own."""
        return bool(self.statistics) or self.draws or self.changes


def layers_with_statistics(module: nn.Module) -> dict[str, nn.Module]:
    """The layers of a network with running statistics, such as BatchNorm, by name.

    >>> from torch import nn
    >>> list(layers_with_statistics(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.GroupNorm(1, 2))))
    ['1']
    """
    return {name: part for name, part in module.named_modules() if getattr(part, "running_mean", None) is not None}


def running_statistics(module: nn.Module) -> dict[str, Tensor]:
    """The running means and variances of a network, by name, not copied. The number of batches is none of them.

    >>> from torch import nn
    >>> list(running_statistics(nn.BatchNorm1d(2)))
    ['running_mean', 'running_var']
    """
    return {
        entry_name(name, part): getattr(layer, part).detach()
        for name, layer in layers_with_statistics(module).items()
        for part in STATISTICS
    }


def entry_name(layer: str, part: str) -> str:
    """The name of a parameter or buffer of a layer.

    >>> entry_name("norm", "weight"), entry_name("", "weight")
    ('norm.weight', 'weight')
    """
    return f"{layer}.{part}" if layer else part


def training_copy(module: nn.Module, statistics: tuple[str, ...] = ()) -> nn.Module:
    """A copy of a network in training mode, but for layers whose statistics are not among these.

    >>> from torch import nn
    >>> module = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()).eval()
    >>> [part.training for part in training_copy(module)]
    [False, True]
    >>> [part.training for part in training_copy(module, ("0.running_mean", "0.running_var"))]
    [True, True]
    """
    from copy import deepcopy

    module_copy = deepcopy(module).train()
    for layer in _constant_layers(module_copy, statistics):
        layer.eval()
    return module_copy


def _constant_layers(module: nn.Module, statistics: tuple[str, ...]) -> Iterator[nn.Module]:
    for name, layer in layers_with_statistics(module).items():
        if entry_name(name, STATISTICS[0]) not in statistics:
            yield layer
