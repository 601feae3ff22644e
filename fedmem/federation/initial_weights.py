"""The network of a scenario and the weights that its runs start from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import Params
from fedmem.contracts.client import PrivateAlgorithm
from fedmem.contracts.client_shards import ClientShards
from fedmem.contracts.data import Dataset
from fedmem.contracts.model import (
    TableModel,
    TextModel,
    add_network_note,
    is_trained_stacked,
    network_notes,
    trained_parameters,
)
from fedmem.contracts.training_mode import TrainingMode, entry_name, layers_with_statistics, training_copy
from fedmem.contracts.validation import a_kind, wrong_logits
from fedmem.errors import ComponentError
from fedmem.federation.freezing import freeze
from fedmem.federation.normalisation import apply_norm, model_of, training_mode
from fedmem.federation.pretrained import load_initial
from fedmem.federation.tied_dropout import apply_tied_dropout, tied_units_of
from fedmem.guards.guarding import NOT_OURS, Guard, PartError, cause_of, line_of
from fedmem.modalities.labelled_texts import LabelledTexts
from fedmem.modalities.tables import Tables
from fedmem.modalities.texts import Texts
from fedmem.seeding import seeded_generators, stream
from fedmem.training.model_checks import interaction, parameters_kept

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedmem.scenario.scenario import Scenario


ROWS = 4
"""Rows of the data about which a network is asked before anything is trained."""


def initialise(scenario: Scenario, data: Dataset, run: int | None = None) -> tuple[nn.Module, Params]:
    """The network and its initial parameters, drawn from their own stream, or from that of a run.

    Where the scenario starts from weights in files, these replace what is drawn. With shards of clients, it is a
    network of constituents, each drawn from a stream of its own.
    """
    module = _network(scenario, data, run)
    if scenario.client_shards > 1:
        from fedmem.training.constituents import MeanOfConstituents

        others = [_network(scenario, data, run, shard) for shard in range(1, scenario.client_shards)]
        notes = network_notes(module)
        module = MeanOfConstituents([module, *others])
        for note in (*notes, _note_on_shards(scenario.client_shards)):
            add_network_note(module, note)
    return module, model_of(module, scenario.norm)


def _note_on_shards(count: int) -> str:
    return (
        f"{count} networks are evaluated by the mean of their probabilities; client c trains that of its shard alone, "
        f"which is c mod {count}"
    )


def _network(scenario: Scenario, data: Dataset, run: int | None, shard: int = 0) -> nn.Module:
    """The network of a shard; that of shard 0 is the one of a scenario without shards."""
    import torch

    purpose = f"initial weights of shard {shard}" if shard else "initial weights"
    seed = int(stream(scenario.seed, purpose, run=run).integers(2**63))
    model = scenario.model
    with seeded_generators(seed), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        method = (
            "build_text"
            if isinstance(model, TextModel)
            else "build_table"
            if isinstance(model, TableModel)
            else "build"
        )
        with _before_any_run(), Guard("model", model, method, run=run) as guard:
            if isinstance(model, TextModel):
                assert isinstance(data.modality, Texts | LabelledTexts)
                num_classes = None if data.modality.tokens else data.num_classes
                length = data.train.inputs.shape[1]
                module = model.build_text(data.modality.vocabulary, length, num_classes)
            elif isinstance(model, TableModel):
                blocks = data.modality.blocks if isinstance(data.modality, Tables) else ()
                module = model.build_table(blocks, data.num_classes)
            else:
                module = model.build(data.train.inputs.shape[1:], data.num_classes)
            _check_module(guard, module, data)
        module = apply_norm(module, scenario.norm)
        load_initial(scenario, module)
        freeze(module, scenario.freeze)
        _check_trained(module)
        apply_tied_dropout(scenario, module, _rows(data))
        if run is None and shard == 0:
            with parameters_kept(module):
                _try(scenario, module, data)
    return module


def mode_of(scenario: Scenario, module: nn.Module, data: Dataset) -> TrainingMode:
    """How the network of `initialise` differs while a client trains it."""
    rows = _rows(data)
    shards = ClientShards(count=scenario.client_shards) if scenario.client_shards > 1 else None
    mode = training_mode(module, scenario.norm, rows)
    return replace(mode, tied=tied_units_of(scenario, module, rows), client_shards=shards)


def _rows(data: Dataset) -> Tensor:
    """A few rows of the data, far from each other."""
    import torch

    return torch.from_numpy(data.train.inputs[np.linspace(0, len(data.train) - 1, ROWS).astype(int)].copy())


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
        modes = {part: part.training for part in module.modules()}
        with torch.no_grad():
            module.eval()(torch.from_numpy(data.train.inputs[:2].copy()))
        for part, mode in modes.items():
            part.training = mode
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

    rows = _rows(data)
    expected_shape = (*data.train.targets[:1].repeat(2, axis=0).shape, data.num_classes)
    # a container of torch's is named by the model that made it
    part = scenario.model if type(module).__module__.startswith("torch.") else module
    with _before_any_run(), Guard("model", part, "forward") as guard, torch.no_grad():
        mode = mode_of(scenario, module, data)
        if mode.differs:
            module.eval()
        outputs = module(rows[:2])
        problem = wrong_logits(outputs, expected_shape, tuple(rows[:2].shape))
        guard.require(problem is None, problem or "")
    _check_mode(scenario, mode)
    _check_constant(module, rows, mode)
    problem = interaction(module, rows, wild=data.modality.any_values)
    if problem:
        raise ComponentError(
            "model",
            f"{problem}. Clipping of single examples, margins and gradient leakage need a model whose output for an "
            "example follows from that example and the parameters alone. Use GroupNorm or LayerNorm instead of "
            "BatchNorm without running statistics, dropout only in training (p=..., training=self.training), and no "
            "sum, mean or attention over the batch",
        )
    # auto may be cuda
    may_stack = is_trained_stacked(scenario.model, "cuda" if scenario.speed.device == "auto" else scenario.speed.device)
    if may_stack and scenario.speed.executor != "one_by_one" and not mode.differs:
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


def _check_mode(scenario: Scenario, mode: TrainingMode) -> None:
    """Errors: `ComponentError` where clients cannot be trained in a network that draws, as the scenario wants it."""
    if mode.changes:
        _check_changes(scenario)
    if not mode.draws:
        return
    remedy = "set p of its dropout to 0"
    if isinstance(scenario.client, PrivateAlgorithm):
        raise ComponentError(
            "model",
            "draws in a forward pass in training, as dropout does, and the client clips the gradient of each example. "
            f"That gradient is defined without draws alone; {remedy}, or use client: {{kind: sgd}}",
        )
    if scenario.speed.executor == "stacked":
        raise ComponentError(
            "speed.executor",
            "the network draws in a forward pass in training, as dropout does. A stack of clients would draw other "
            f"numbers; use executor: one_by_one or auto, or {remedy}",
        )
    if scenario.speed.device in ("cuda", "mps"):
        raise ComponentError(
            "speed.device",
            "the network draws in a forward pass in training, as dropout does. A GPU would draw other numbers; use "
            f"device: cpu or auto, or {remedy}",
        )


def _check_changes(scenario: Scenario) -> None:
    """The same for a network that gives other outputs in training mode."""
    found = "the network gives other outputs in training mode than in evaluation mode, although it draws nothing"
    if isinstance(scenario.client, PrivateAlgorithm):
        raise ComponentError(
            "model",
            f"{found}. The client clips the gradient of each example, which is taken in evaluation mode; leave out the "
            "condition on self.training, or use client: {kind: sgd}",
        )
    if scenario.speed.executor == "stacked":
        raise ComponentError(
            "speed.executor",
            f"{found}. Such clients are trained one by one; use executor: one_by_one or auto, or leave out the "
            "condition on self.training",
        )


def _check_trained(module: nn.Module) -> None:
    """Errors: `ComponentError` where clients would have nothing to train."""
    if not trained_parameters(module):
        raise ComponentError(
            "model",
            f"has {len(dict(module.named_parameters()))} parameters, all of them frozen (requires_grad is False), so "
            "that nothing could be trained. Leave requires_grad as it is for those that clients shall train, and let "
            "`freeze` leave at least one of them",
        )


def _check_constant(module: nn.Module, rows: Tensor, mode: TrainingMode) -> None:
    """Errors: `ComponentError` where a forward pass in training changes a buffer, since all clients share it.

    Statistics that each client has of its own may change.
    """
    import torch

    if not dict(module.named_buffers()):
        return
    module_copy = training_copy(module, mode.statistics)
    counts = {entry_name(name, "num_batches_tracked") for name in layers_with_statistics(module)}
    own = {*mode.statistics, *(counts if mode.statistics else ())}
    before = {name: value.clone() for name, value in module_copy.named_buffers()}
    with torch.no_grad():
        module_copy(rows)
    for name, value in module_copy.named_buffers():
        if name not in own and (name not in before or not torch.equal(before[name], value)):
            raise ComponentError(
                "model",
                f"changes its buffer {name!r} in a forward pass. All clients and runs share the buffers of one "
                "network, so their values would mix, and measuring a model would change them. Compute the value in "
                "forward, or hold what is learnt as a nn.Parameter",
            )
