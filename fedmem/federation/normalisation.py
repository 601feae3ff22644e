"""Normalisation layers with running statistics under the policy of a scenario, and networks that draw in training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import Params
from fedmem.contracts.client import ClientAlgorithm
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.federation import Federation
from fedmem.contracts.model import trained_parameters
from fedmem.contracts.needs import needs_of
from fedmem.contracts.probe import Probe
from fedmem.contracts.training_mode import (
    TrainingMode,
    entry_name,
    layers_with_statistics,
    running_statistics,
    training_copy,
)
from fedmem.contracts.validation import batches_of
from fedmem.errors import ComponentError
from fedmem.guards.guarding import Guard
from fedmem.seeding import generator_states, moved_generator, seeded_generators
from fedmem.training.model_checks import differ, parameters_kept, perturb_parameters

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedmem.scenario.normalising import Norm

GROUPS = 32
"""Most groups of a GroupNorm that replaces a BatchNorm; there are gcd(32, channels) groups, as in Opacus."""

CHOICES = (
    "Choose their treatment in the scenario. With norm: {kind: local}, statistics, scales and shifts stay with each "
    "client (FedBN). With norm: {kind: averaged}, statistics are sent and aggregated like parameters. With norm: "
    "{kind: frozen}, they stay as the network was built. With norm: {kind: to_group}, GroupNorm replaces BatchNorm"
)
"""The four policies, for messages."""


def apply_norm(module: nn.Module, norm: Norm | None) -> nn.Module:
    """The network with normalisation layers changed as the policy says; in place, unless the network is one layer.

    `to_group` replaces each BatchNorm by a GroupNorm with `gcd(32, channels)` groups, as Opacus does. A BatchNorm1d
    gets one group, since a group of one number would always be zero. Scales begin at one and shifts at zero. An
    InstanceNorm only loses its statistics. `frozen` puts layers with statistics into evaluation mode.

    Errors: `ComponentError` if the network has running statistics and the scenario no policy, or a policy and the
    network no such layers. Also for updated statistics that are means over all batches (`momentum=None`).

    >>> from torch import nn
    >>> from fedmem.scenario.normalising import Norm
    >>> apply_norm(nn.Sequential(nn.Conv2d(1, 48, 3), nn.BatchNorm2d(48)), Norm(kind="to_group"))[1].num_groups
    16
    """
    from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

    layers = layers_with_statistics(module)
    batch_layers = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    if norm is None:
        if layers:
            raise ComponentError("model", _missing_policy(layers))
        return module
    if not layers and not (norm.kind == "to_group" and batch_layers):
        raise ComponentError(
            "norm",
            f"{norm.kind} is about layers with running statistics, such as BatchNorm, and the network has none; leave "
            "norm out",
        )
    if norm.kind == "to_group":
        return _replace_layers(module)
    if norm.kind == "frozen":
        for layer in layers.values():
            layer.eval()
        return module
    for name, layer in layers.items():
        if isinstance(layer, _NormBase) and layer.momentum is None:
            raise ComponentError(
                "norm",
                f"{norm.kind} updates the statistics of {name!r}, whose momentum is None: they are means over all "
                "batches so far, whose number no message has. Give the layer a momentum, such as 0.1",
            )
    return module


def _missing_policy(layers: dict[str, nn.Module]) -> str:
    name, layer = next(iter(layers.items()))
    count = len(layers)
    some = f"{count} layers with running statistics, such as" if count > 1 else "1 layer with running statistics,"
    return f"has {some} {type(layer).__name__} at {name!r}. {CHOICES}"


def _replace_layers(module: nn.Module) -> nn.Module:
    """The network with GroupNorm in place of each BatchNorm, even if one layer has several names."""
    from torch.nn.modules.batchnorm import _BatchNorm

    if isinstance(module, _BatchNorm):
        return _group_norm(module)
    made: dict[int, nn.Module] = {}
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, _BatchNorm):
                parent._modules[name] = made.setdefault(id(child), _group_norm(child))
    for layer in layers_with_statistics(module).values():
        for part in ("running_mean", "running_var", "num_batches_tracked"):
            layer._buffers[part] = None
        layer.track_running_stats = False  # type: ignore[assignment]
    return module


def _group_norm(layer: nn.Module) -> nn.Module:
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    assert isinstance(layer, _BatchNorm)
    groups = 1 if isinstance(layer, nn.BatchNorm1d) else math.gcd(GROUPS, layer.num_features)
    made = nn.GroupNorm(groups, layer.num_features, layer.eps, layer.affine)
    for name, value in made.named_parameters():
        value.requires_grad_(bool(getattr(layer, name).requires_grad))
    return made


def model_of(module: nn.Module, norm: Norm | None) -> Params:
    """The model that a network begins with: its trained parameters, and statistics that training updates.

    The order is that of the network's state. The values are copies, so that the network may change.
    """
    entries: dict[str, Tensor] = {**trained_parameters(module)}
    if norm is None or not norm.is_updated:
        return {name: value.detach().clone() for name, value in entries.items()}
    entries |= running_statistics(module)
    names = [name for name in module.state_dict() if name in entries]
    return {name: entries[name].detach().clone() for name in dict.fromkeys([*names, *entries])}


def training_mode(module: nn.Module, norm: Norm | None, rows: Tensor) -> TrainingMode:
    """How the network differs in training mode, tested by a trial pass with a few rows (n, ...) on a copy."""
    import torch

    is_updated = norm is not None and norm.is_updated
    statistics = tuple(running_statistics(module)) if is_updated else ()
    personal = _personal(module) if norm is not None and norm.kind == "local" else ()
    trial = training_copy(module, statistics)
    with torch.no_grad(), seeded_generators(0):
        before = generator_states()
        trial(rows)
        draws = moved_generator(before) is not None
        min_rows = 2 if statistics and not _answers(trial, rows[:1]) else 1
    changes = not statistics and not draws and _changes(trial, rows)
    return TrainingMode(statistics=statistics, personal=personal, draws=draws, changes=changes, min_rows=min_rows)


def _changes(trial: nn.Module, rows: Tensor) -> bool:
    """Whether a network in training mode gives other outputs than in evaluation mode, in which it is left."""
    import torch
    from torch import Tensor
    from torch.func import functional_call

    both = [{name: value.detach() for name, value in trained_parameters(trial).items()}, perturb_parameters(trial)]
    with torch.no_grad(), parameters_kept(trial):
        in_training = [functional_call(trial, params, (rows,)) for params in both]
        trial.eval()
        watched = [functional_call(trial, params, (rows,)) for params in both]
    pairs = zip(in_training, watched, strict=True)
    # outputs that are no tensors are refused elsewhere
    return any(isinstance(one, Tensor) and isinstance(other, Tensor) and differ(one, other) for one, other in pairs)


def _answers(module: nn.Module, row: Tensor) -> bool:
    """Whether the network can be trained on a single example; BatchNorm needs two numbers for each channel."""
    try:
        module(row)
    except ValueError:
        return False
    return True


def _personal(module: nn.Module) -> tuple[str, ...]:
    """The names of statistics, scales and shifts of layers with running statistics."""
    trained = trained_parameters(module)
    names = {
        entry_name(name, part)
        for name, layer in layers_with_statistics(module).items()
        for part, _ in layer.named_parameters(recurse=False)
    }
    return (*running_statistics(module), *(name for name in trained if name in names))


def warnings_of(federation: Federation, client: ClientAlgorithm, probes: Sequence[Probe]) -> tuple[str, ...]:
    """Warnings for readers of results about training that differs from evaluation."""
    return (*_small_batches(federation, client), *_unknown_draws(federation, probes))


def _unknown_draws(federation: Federation, probes: Sequence[Probe]) -> Iterator[str]:
    """A warning for each probe that reads gradients if clients train with dropout or other outputs."""
    if not federation.mode.draws and not federation.mode.changes:
        return
    for probe in probes:
        if any(needs_of(part).reads_gradients for _, part in nested_components(probe, "")):
            how = (
                "with dropout. An attacker does not know its draws"
                if federation.mode.draws
                else "in training mode, where the network gives other outputs"
            )
            yield (
                f"probe {kind_of(probe)} reads gradients of the network in evaluation mode, but clients train {how}, "
                "so that a low success may be due to this difference"
            )


def _small_batches(federation: Federation, client: ClientAlgorithm) -> tuple[str, ...]:
    """A warning of clients that have batches with too few rows for the network in round 1; empty without any."""
    if federation.mode.min_rows < 2:
        return ()
    clients = np.arange(federation.num_clients)
    sizes = np.stack(
        [federation.sizes_of(np.full(len(clients), run), clients, 1) for run in range(federation.audit.runs)]
    )
    too_small = [size for size in np.unique(sizes).tolist() if _has_single(client, size)]
    count = int(np.isin(sizes, too_small).any(axis=0).sum())
    if not count:
        return ()
    return (
        f"{count} of {len(clients)} clients have a batch of one example, such as those with {too_small[0]} rows. The "
        "normalisation layers of the network cannot compute its variance in training, so that its step has a gradient "
        "of zero. Choose another batch_size, or norm: {kind: frozen} or {kind: to_group}",
    )


def _has_single(client: ClientAlgorithm, size: int) -> bool:
    """Whether a client with `size` rows has a batch of one row."""
    with Guard("client", client, "batches") as guard:
        batches = batches_of(guard, client.batches(size, np.random.default_rng(0)))
    return bool(((batches >= 0).sum(axis=1) == 1).any())
