"""The network of a scenario and the weights that its runs start from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import Params
from fedmem.contracts.data import Dataset
from fedmem.contracts.model import TableModel, trained_parameters
from fedmem.contracts.validation import a_kind, wrong_logits
from fedmem.errors import ComponentError
from fedmem.federation.freezing import freeze
from fedmem.guards.guarding import NOT_OURS, Guard, PartError, cause_of, line_of
from fedmem.modalities.tables import Tables
from fedmem.seeding import seeded_generators, stream
from fedmem.training.model_checks import STATISTICS, interaction, parameters_kept

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedmem.scenario.scenario import Scenario


ROWS = 4
"""Rows of the data about which a network is asked before anything is trained."""


def initialise(scenario: Scenario, data: Dataset, run: int | None = None) -> tuple[nn.Module, Params]:
    """The network and its initial parameters, drawn from their own stream, or from that of a run."""
    import torch

    seed = int(stream(scenario.seed, "initial weights", run=run).integers(2**63))
    model = scenario.model
    with seeded_generators(seed), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        table = isinstance(model, TableModel)
        with _before_any_run(), Guard("model", model, "build_table" if table else "build", run=run) as guard:
            if isinstance(model, TableModel):
                blocks = data.modality.blocks if isinstance(data.modality, Tables) else ()
                module = model.build_table(blocks, data.num_classes)
            else:
                module = model.build(data.train.inputs.shape[1:], data.num_classes)
            _check_module(guard, module, data)
        freeze(module, scenario.freeze)
        _check_pure(module)
        _check_trained(module)
        if run is None:
            with parameters_kept(module):
                _try(scenario, module, data)
    return module, {name: parameter.detach().clone() for name, parameter in trained_parameters(module).items()}


@contextmanager
def _before_any_run() -> Iterator[None]:
    """A model that fails before any run is a mistake of the user's file, and no failed run."""
    try:
        yield
    except PartError as error:
        error.exit_code = 2
        raise


def _check_module(guard: Guard, module: object, data: Dataset) -> None:
    """A network with floating parameters that are finite; layers that wait for a first batch are given one."""
    import torch
    from torch.nn.parameter import is_lazy

    if not isinstance(module, torch.nn.Module):
        remedy = "; give the class itself, or a function that returns a module" if isinstance(module, type) else ""
        guard.reject(f"it returned {a_kind(module)}, should be a torch.nn.Module{remedy}")
    for name, value in module.named_parameters():
        if value.device.type != "cpu":
            guard.reject(
                f"its parameter {name!r} is on device {value.device}, should be on cpu; leave out .to() and .cuda(), "
                "and say speed.device in the scenario"
            )
        if value.dtype != torch.float32:
            guard.reject(
                f"its parameter {name!r} is {str(value.dtype).removeprefix('torch.')}, should be float32, as inputs "
                "are; leave out .double(), .half() and dtype="
            )
    if any(is_lazy(value) for value in module.parameters()):
        with torch.no_grad():
            module(torch.from_numpy(data.train.inputs[:2].copy()))
    parameters = dict(module.named_parameters())
    guard.require(parameters, "the network has no parameters, so that nothing could be trained")
    for name, value in parameters.items():
        if is_lazy(value):
            guard.reject(
                f"its parameter {name!r} has no shape yet after a first batch, since forward does not use it; "
                "remove the layer"
            )
        if not torch.isfinite(value).all():
            guard.reject(f"its parameter {name!r} is {a_kind(value)}, should be floating numbers, all of them finite")


def _try(scenario: Scenario, module: nn.Module, data: Dataset) -> None:
    """Asks the network about a few rows: outputs of the wrong shape, or that follow from other rows, are refused."""
    import torch

    rows = torch.from_numpy(data.train.inputs[np.linspace(0, len(data.train) - 1, ROWS).astype(int)].copy())
    expected_shape = (*data.train.targets[:1].repeat(2, axis=0).shape, data.num_classes)
    # a container of torch's is named by the model that made it
    part = scenario.model if type(module).__module__.startswith("torch.") else module
    with _before_any_run(), Guard("model", part, "forward") as guard, torch.no_grad():
        outputs = module(rows[:2])
        problem = wrong_logits(outputs, expected_shape, tuple(rows[:2].shape))
        guard.require(problem is None, problem or "")
    _check_constant(module, rows)
    problem = interaction(module, rows, wild=data.modality.any_values)
    if problem:
        raise ComponentError(
            "model",
            f"{problem}. Clipping of single examples, margins and gradient leakage need a model whose output for an "
            "example follows from that example and the parameters alone. Use GroupNorm or LayerNorm instead of "
            "BatchNorm, and no dropout, and no sum, mean or attention over the batch",
        )
    if scenario.model.stackable and scenario.speed.executor != "one_by_one":
        _check_stacks(module, rows)


def _check_stacks(module: nn.Module, rows: Tensor) -> None:
    """Errors: `ComponentError` where `torch.vmap` cannot run several models at once."""
    import torch
    from torch.func import functional_call

    params = {name: value.detach().expand(2, *value.shape) for name, value in trained_parameters(module).items()}
    try:
        with torch.no_grad():
            torch.vmap(lambda values: functional_call(module, values, (rows,)))(params)
    except NOT_OURS:
        raise
    except BaseException as error:
        at = line_of(error, module)
        raise ComponentError(
            "model",
            f"declares stackable = True, but torch.vmap cannot run its forward: {cause_of(error)}"
            f"{f' ({at})' if at else ''}. Write stackable = False, or speed.executor: one_by_one in the scenario; or "
            "leave out operations in place and conditions on values",
        ) from error


def _group_norm_text(module: nn.Module, buffer: str) -> str:
    """The layer to write in place of the one that holds a buffer, with as many groups, up to 4, as divide its channels.

    >>> import torch
    >>> _group_norm_text(torch.nn.Sequential(torch.nn.BatchNorm2d(6)), "0.running_mean")
    ', such as nn.GroupNorm(3, 6) for nn.BatchNorm2d(6)'
    """
    from torch.nn.modules.batchnorm import _NormBase

    layer = module.get_submodule(buffer.rpartition(".")[0])
    if not isinstance(layer, _NormBase) or layer.num_features < 1:
        return ""
    channels = layer.num_features
    groups = max(count for count in range(1, 5) if channels % count == 0)
    return f", such as nn.GroupNorm({groups}, {channels}) for nn.{type(layer).__name__}({channels})"


def _check_pure(module: nn.Module) -> None:
    """Outputs have to follow from parameters and inputs alone, or watching a model would change it.

    Errors: one `ComponentError` with the first buffer and the first dropout.
    """
    problems = [*_buffer_problem(module), *_dropout_problem(module)]
    if problems:
        raise ComponentError("model", ". It also ".join(problems))


def _buffer_problem(module: nn.Module) -> Iterator[str]:
    """The first running statistic, if there is one."""
    name = next((name for name, _ in module.named_buffers() if name.rpartition(".")[2] in STATISTICS), None)
    if name is not None:
        yield (
            f"has the buffer {name!r}, a running statistic. All clients and runs take turns in one network, so their "
            "statistics would mix, and measuring a model would change them. Use GroupNorm or LayerNorm instead of "
            "BatchNorm"
            f"{_group_norm_text(module, name)}"
        )


def _dropout_problem(module: nn.Module) -> Iterator[str]:
    """The first layer with dropout, if there is one."""
    from torch.nn.modules.dropout import _DropoutNd

    for name, part in module.named_modules():
        if isinstance(part, _DropoutNd) and part.p > 0:
            yield (
                f"has dropout at {name!r}, which draws from torch's global generator, so the same scenario would give "
                "other numbers. Leave it out, or set p to 0 (client.weight_decay regularises as well)"
            )
            return


def _check_trained(module: nn.Module) -> None:
    """Errors: `ComponentError` where clients would have nothing to train."""
    if not trained_parameters(module):
        raise ComponentError(
            "model",
            f"has {len(dict(module.named_parameters()))} parameters, all of them frozen (requires_grad is False), so "
            "that nothing could be trained. Leave requires_grad as it is for those that clients shall train, and let "
            "`freeze` leave at least one of them",
        )


def _check_constant(module: nn.Module, rows: Tensor) -> None:
    """Errors: `ComponentError` where a forward pass in training changes a buffer, since all clients share it."""
    from copy import deepcopy

    import torch

    if not dict(module.named_buffers()):
        return
    module_copy = deepcopy(module).train()
    before = {name: value.clone() for name, value in module_copy.named_buffers()}
    with torch.no_grad():
        module_copy(rows)
    for name, value in module_copy.named_buffers():
        if name not in before or not torch.equal(before[name], value):
            raise ComponentError(
                "model",
                f"changes its buffer {name!r} in a forward pass. All clients and runs share the buffers of one "
                "network, so their values would mix, and measuring a model would change them. Compute the value in "
                "forward, or hold what is learnt as a nn.Parameter",
            )
