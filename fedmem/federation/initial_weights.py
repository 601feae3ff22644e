"""The network of a scenario and the weights that its runs start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import Params
from fedmem.contracts.data import Dataset
from fedmem.contracts.model import TableModel
from fedmem.contracts.validation import a_kind, logits_of
from fedmem.errors import ComponentError
from fedmem.guards.guarding import Guard
from fedmem.modalities.tables import Tables
from fedmem.seeding import stream
from fedmem.training.model_checks import frozen_parameters, interaction

if TYPE_CHECKING:
    from torch import nn

    from fedmem.scenario.scenario import Scenario


ROWS = 4
"""Rows of the data about which a network is asked before anything is trained."""


def initialise(scenario: Scenario, data: Dataset, run: int | None = None) -> tuple[nn.Module, Params]:
    """The network and its initial parameters, drawn from their own stream, or from that of a run."""
    import torch

    seed = int(stream(scenario.seed, "initial weights", run=run).integers(2**63))
    model = scenario.model
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        table = isinstance(model, TableModel)
        with Guard("model", model, "build_table" if table else "build", run=run) as guard:
            if isinstance(model, TableModel):
                blocks = data.modality.blocks if isinstance(data.modality, Tables) else ()
                module = model.build_table(blocks, data.num_classes)
            else:
                module = model.build(data.train.inputs.shape[1:], data.num_classes)
            _check_module(guard, module)
        _check_pure(module)
        _check_trained(module)
        if run is None:
            _try(module, data)
    return module, {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def _check_module(guard: Guard, module: object) -> None:
    """A network with floating parameters that are finite."""
    import torch

    if not isinstance(module, torch.nn.Module):
        guard.reject(f"it returned {a_kind(module)}, should be a torch.nn.Module")
    parameters = dict(module.named_parameters())
    guard.require(parameters, "the network has no parameters, so that nothing could be trained")
    for name, value in parameters.items():
        if not value.is_floating_point() or not torch.isfinite(value).all():
            guard.reject(f"its parameter {name!r} is {a_kind(value)}, should be floating numbers, all of them finite")


def _try(module: nn.Module, data: Dataset) -> None:
    """Asks the network about a few rows: outputs of the wrong shape, or that follow from other rows, are refused."""
    import torch

    rows = torch.from_numpy(data.train.inputs[np.linspace(0, len(data.train) - 1, ROWS).astype(int)].copy())
    expected_shape = (*data.train.targets[:1].repeat(2, axis=0).shape, data.num_classes)
    with Guard("model", module, "forward") as guard, torch.no_grad():
        logits_of(guard, module(rows[:2]), expected_shape)
    problem = interaction(module, rows, wild=data.modality.any_values)
    if problem:
        raise ComponentError(
            "model",
            f"{problem}. Clipping of single examples, margins and gradient leakage need a model whose output for an "
            "example follows from that example and the parameters alone. Use GroupNorm or LayerNorm instead of "
            "BatchNorm, and no sum, mean or attention over the batch",
        )


def _check_pure(module: nn.Module) -> None:
    """Outputs have to follow from parameters and inputs alone, or watching a model would change it."""
    from torch.nn.modules.dropout import _DropoutNd

    for name, _ in module.named_buffers():
        raise ComponentError(
            "model",
            f"has the buffer {name!r}; running statistics belong to nobody when clients of many runs share one network "
            "and would be moved by being looked at. Use GroupNorm or LayerNorm instead of BatchNorm",
        )
    for name, part in module.named_modules():
        if isinstance(part, _DropoutNd) and part.p > 0:
            raise ComponentError(
                "model",
                f"has dropout at {name!r}, which draws from torch's global generator, so that the same scenario would "
                "give other numbers; leave it out (client.weight_decay regularises as well)",
            )


def _check_trained(module: nn.Module) -> None:
    """All parameters are trained, sent, aggregated and stored, so that frozen ones would not stay what they are."""
    frozen = frozen_parameters(module)
    if frozen:
        raise ComponentError(
            "model",
            f"has {frozen}; clients train, send and store all parameters, so that these would change as "
            "well and the results would be those of full fine-tuning. Adapters are not supported: remove "
            "requires_grad_(False), or use a model that trains all its parameters",
        )
