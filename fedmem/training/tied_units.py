"""Example-tied dropout: forward passes that keep fixed hidden units, and in training those tied to each row.

A hook of a module drops units. It keeps the fixed ones, so that the network is the one that is watched. `TiedForward`
is a copy with the same tensors, which is given the units of each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.data import Examples
from fedmem.contracts.tied_units import TiedLayer, TiedUnits
from fedmem.seeding import Streams, stream
from fedmem.training.model_checks import perturb_parameters

TRIALS = 8
"""Random parameters at which entries that act through some units alone are found."""


class KeptUnits:
    """A forward hook that keeps some units of the output (n, U, ...) of a module, and sets the others to zero.

    `kept` (U,) is the same for all rows; `of_rows` (n, U) takes its place where it is not None.

    >>> layer = nn.Identity()
    >>> _ = layer.register_forward_hook(KeptUnits("", torch.tensor([True, False])))
    >>> layer(torch.tensor([[3.0, 4.0]])).tolist()
    [[3.0, 0.0]]
    """

    def __init__(self, name: str, kept: Tensor) -> None:
        self.name = name
        self.kept = kept
        self.of_rows: Tensor | None = None

    def __call__(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        """The output with the other units dropped."""
        if self.of_rows is None and self.kept.device != output.device:
            self.kept = self.kept.to(output.device)  # once
        kept = self.kept[None] if self.of_rows is None else self.of_rows
        # no product, so that an infinite value of a dropped unit is dropped too
        return torch.where(kept.view(*kept.shape, *[1] * (output.dim() - 2)), output, output.new_zeros(()))


def fixed_units(tied: TiedUnits, layer: TiedLayer) -> IntArray:
    """The units that everybody trains, ascending, from a stream of the layer's own."""
    order = stream(tied.seed, f"fixed units of {layer.name}").permutation(layer.units)
    return np.sort(order[: layer.fixed])


def own_units(tied: TiedUnits, layer: TiedLayer, keys: Iterable[int]) -> list[IntArray]:
    """The units that are tied to each of these ids of examples, or numbers of clients, ascending.

    Each draws `layer.tied` of the units that are not fixed, without replacement and from a stream of its own. Two draws
    overlap by a hypergeometric number of units. A larger share adds units to those of a smaller one.
    """
    others = np.setdiff1d(np.arange(layer.units), fixed_units(tied, layer))
    places = [key % 2**64 for key in keys]
    rngs = Streams(tied.seed, f"units of {layer.name} tied to each {tied.unit}").generators(
        run=[0] * len(places), round_number=0, client=places
    )
    return [np.sort(others[rng.permutation(len(others))[: layer.tied]]) for rng in rngs]


def example_ids(store: Examples) -> IntArray:
    """(n,) an id of the example of each row of a store, by which its units are drawn.

    It is the row of the data set. Generated rows have negative ids, which may repeat in a store; they are numbered here
    in their order, which runs, rounds and phases share.

    >>> rows = Examples(inputs=np.zeros((4, 1)), targets=np.zeros(4, np.int64), ids=np.array([7, -1, 5, -1]))
    >>> example_ids(rows).tolist()
    [7, -1, 5, -2]
    """
    ids = store.ids.copy()
    generated = ids < 0
    ids[generated] = -1 - np.arange(np.count_nonzero(generated))
    return ids


def drop_units(network: nn.Module, tied: TiedUnits) -> None:
    """Make a network keep the fixed units alone, in every forward pass; in place."""
    for layer in tied.layers:
        kept = torch.zeros(layer.units, dtype=torch.bool)
        kept[torch.from_numpy(fixed_units(tied, layer))] = True
        network.get_submodule(layer.name).register_forward_hook(KeptUnits(layer.name, kept))


class UnitTable:
    """The units that the rows of a store keep in training, drawn when a row is trained on for the first time.

    It takes a byte for each unit of each row that was trained on, or with `unit: client` of each client.
    """

    def __init__(self, tied: TiedUnits, store: Examples, device: torch.device) -> None:
        self._tied = tied
        self._ids = example_ids(store) if tied.unit == "example" else np.empty(0, dtype=np.int64)
        self._filled = np.zeros(len(self._ids), dtype=bool)
        self._tables = [
            torch.zeros((len(self._ids), layer.units), dtype=torch.bool, device=device) for layer in tied.layers
        ]

    def fill(self, rows: IntArray, client: int) -> None:
        """Draw the units of rows of the store that a client trains on, unless they are there."""
        if self._tied.unit == "client":
            self._add_clients(client + 1)
        places = np.unique(rows) if self._tied.unit == "example" else np.array([client])
        places = places[~self._filled[places]]
        if not len(places):
            return
        keys = self._ids[places].tolist()
        for layer, table in zip(self._tied.layers, self._tables, strict=True):
            kept = np.zeros((len(places), layer.units), dtype=bool)
            kept[:, fixed_units(self._tied, layer)] = True
            for row, units in zip(kept, own_units(self._tied, layer, keys), strict=True):
                row[units] = True
            table[torch.from_numpy(places).to(table.device)] = torch.from_numpy(kept).to(table.device)
        self._filled[places] = True

    def _add_clients(self, count: int) -> None:
        if count <= len(self._ids):
            return
        self._ids = np.arange(count)
        self._filled = np.append(self._filled, np.zeros(count - len(self._filled), dtype=bool))
        self._tables = [
            torch.cat([table, table.new_zeros((count - len(table), table.shape[1]))]) for table in self._tables
        ]

    def read(self, rows: Tensor, clients: Tensor) -> tuple[Tensor, ...]:
        """For each layer the units (..., U) that rows (...) of these clients keep; clients are expanded to the rows."""
        places = (rows if self._tied.unit == "example" else clients.expand_as(rows)).flatten()
        return tuple(table.index_select(0, places).view(*rows.shape, -1) for table in self._tables)


class TiedForward:
    """A network whose rows keep units of their own. It shares all tensors with the network that it is made of."""

    def __init__(self, model: nn.Module, tied: TiedUnits) -> None:
        shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
        self.network = deepcopy(model, dict(shared))
        hooks = {
            hook.name: hook
            for part in self.network.modules()
            for hook in part._forward_hooks.values()
            if isinstance(hook, KeptUnits)
        }
        self._hooks = [hooks[layer.name] for layer in tied.layers]

    def __call__(self, params: Params, inputs: Tensor, kept: Sequence[Tensor]) -> Tensor:
        """The logits of these rows (n, ...), of which each layer keeps the units `kept` (n, U)."""
        for hook, of_rows in zip(self._hooks, kept, strict=True):
            hook.of_rows = of_rows
        try:
            logits: Tensor = functional_call(self.network, params, (inputs,))
            return logits
        finally:
            for hook in self._hooks:
                hook.of_rows = None


def entries_of_units(
    model: nn.Module, tied: TiedUnits, units: Mapping[str, IntArray], rows: Tensor
) -> dict[str, Tensor]:
    """The entries of trained parameters that act on the logits through these units alone, as masks by name.

    They are the weights into and out of the units, and their biases. Where these units are dropped, logits are the
    same whatever the values of the entries.

    An entry is one of them if its derivative is exactly zero where the units are dropped, and is not where all units
    are kept. Derivatives are summed over random parameters and over rows with noise, so that no unit is silent in all.

    Args:
        model: The network, with its hooks.
        tied: Its layers.
        units: The units by the name of the layer.
        rows: Some rows (n, ...) of the data.
    """
    forward = TiedForward(deepcopy(model).double(), tied)
    rng = torch.Generator().manual_seed(0)
    all_kept = [torch.ones((len(rows), layer.units), dtype=torch.bool) for layer in tied.layers]
    others = [kept.clone() for kept in all_kept]
    for layer, kept in zip(tied.layers, others, strict=True):
        kept[:, torch.from_numpy(units[layer.name])] = False
    acts: list[dict[str, Tensor]] = [{}, {}]
    for trial in range(TRIALS):
        params = {name: value.requires_grad_() for name, value in perturb_parameters(forward.network, trial).items()}
        inputs = rows.double() + torch.randn(rows.shape, generator=rng, dtype=torch.float64)
        for found, kept_units in zip(acts, (all_kept, others), strict=True):
            with torch.enable_grad():
                logits = forward(params, inputs, kept_units)
                slopes = torch.randn(logits.shape, generator=rng, dtype=torch.float64)
                gradient = torch.autograd.grad(
                    (logits * slopes).sum(), list(params.values()), allow_unused=True, materialize_grads=True
                )
            for name, value in zip(params, gradient, strict=True):
                found[name] = found.get(name, torch.zeros(value.shape, dtype=torch.bool)) | (value != 0)
    return {name: acts[0][name] & ~acts[1][name] for name in acts[0]}
