"""The memory that a scenario needs, by purpose, and how its training is cut to stay within a budget.

Sizes are counted from the scenario and its federation. The number of copies of each is measured, and stands in the
constants below. A slow test compares the sums with peaks of real runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.signal import signal_declaration, stored_names
from fedmem.contracts.validation import count_of
from fedmem.execution import state_bytes
from fedmem.execution.auto import is_stacked, server_of
from fedmem.guards.guarding import Guard
from fedmem.results.evidence_table import IN_MEMORY
from fedmem.training.executor import MODELS_AT_ONCE

if TYPE_CHECKING:
    from torch import nn

    from fedmem.contracts.data import Examples
    from fedmem.contracts.federation import Federation
    from fedmem.contracts.measurement import Level
    from fedmem.scenario.scenario import Scenario

EARLY, LIBRARIES, STACKING = 300 << 20, 500 << 20, 70 << 20
"""Bytes of Python with its imports: when a federation is built, when results are written, and more for stacks.

They include the memory that Python holds on to (`processes.hold_on_to_memory`)."""

WORKER = 100 << 20
"""The memory that a worker process changes in pages shared with its parent, beside what it trains."""

FORWARD_BYTES = 256 << 20
"""The largest memory of one forward pass."""

MIN_ROWS = 64
"""A forward pass is not cut into smaller pieces than this."""

COPIES, WATCHED = {"messages": 2.3, "rule": 3.0}, 0.5
"""How often the model of each client of a round is there, by the path to the server; more where it is looked at."""

TABLE = 100
"""Bytes of a row of evidence while it is written as a table, one set of one round at a time."""

STEP, OUTPUTS = 6, 7
"""Models beside its batch that a client in training holds; float64 arrays of outputs while models are looked at."""

POSITIONS = 40
"""Bytes of each place of a batch while batches are planned: where its row is, and copies of that."""

EACH, TABLES = 3, 3
"""Copies at the same time: of the gradients of single examples while they are clipped, and of a strategy's state.

The latter is replaced by its next value."""


@dataclass(frozen=True, kw_only=True)
class MemoryNeeds:
    """The sizes that memory depends on, in bytes unless stated otherwise.

    `data` are the rows of a federation and the frozen part of its network. `source` are the rows of the data set that
    it was built from. `drafts` is what the largest family of references takes while it is made. `model` are the
    parameters of one model, and `row` is one input, with what is stored of it. `saved` is what a forward pass of one
    row leaves for the backward pass, `wide` what it takes at once without one. `classes` are outputs. `cohort` is the
    largest cohort of a run, and `examples` the largest set that models are asked about. `batch` is in rows. `evidence`
    is what one run leaves, of which `in_files` is read from files after its shard is trained. `estimates` is what
    estimating and writing take in addition to all evidence. `server` is messages or rule, and `sums` how many sums are
    formed of a cohort. `example_gradients` are the gradients of single examples of one client in training. `tables` is
    what a strategy keeps of one run, and `remembered` what its clients remember. `max_rows` are the rows of the client
    with most. `frozen` is what no client trains, once. `stored` are the outputs of frozen layers that are stored by
    row.
    """

    runs: int
    data: int
    source: int
    drafts: int
    model: int
    row: int
    saved: int
    wide: int
    classes: int
    cohort: int
    examples: int
    batch: int
    evidence: int
    estimates: int
    stackable: bool
    watched: bool
    server: str
    sums: int = 0
    example_gradients: int = 0
    tables: int = 0
    remembered: int = 0
    max_rows: int = 0
    in_files: int = 0
    frozen: int = 0
    stored: int = 0


def needs_of(scenario: Scenario, federation: Federation, cohort: int) -> MemoryNeeds:
    """The needs of a scenario whose largest cohort has so many clients; its federation may have fewer references."""
    sets = (federation.audit.examples, federation.test, federation.population)
    families = [part.inputs[0].nbytes * scenario.references for part in federation.references]
    data_bytes = sum(map(array_bytes, (federation.store, *sets))) + sum(families)
    times = scenario.runs / max(1, min(scenario.runs, federation.audit.runs))  # a plan may look at some runs alone
    lists = round((federation.replacement.nbytes + federation.audit.is_in.nbytes) * times) + 8 * len(federation.store)
    model = sum(value.numel() * value.element_size() for value in federation.initial.values())
    saved, wide = forward_bytes(federation.model, federation.store.inputs[:1])
    prefix = federation.prefix
    sizes = [len(part) for part in sets] + [scenario.references] * bool(families)
    return MemoryNeeds(
        runs=scenario.runs,
        data=data_bytes + lists + model * scenario.runs * _has_own_starts(scenario) + _frozen(federation),
        # rows and their places, as loaded; the federation copies them client by client
        source=array_bytes(federation.store) + 24 * len(federation.store),
        # made in double precision, clipped and copied
        drafts=3 * max(families, default=0),
        model=model,
        row=int(federation.store.inputs[:1].nbytes) + (0 if prefix is None else prefix.prefix.row_bytes),
        saved=saved,
        wide=wide,
        classes=federation.num_classes,
        cohort=cohort,
        examples=max(sizes),
        batch=_batch_size(scenario),
        evidence=_evidence(scenario, federation, cohort),
        estimates=_estimates(scenario, federation, cohort),
        stackable=is_stacked(scenario, federation.mode),
        watched="local" in scenario.observe.levels,
        server=server_of(scenario),
        sums=len(scenario.observe.sums),
        example_gradients=state_bytes.of_examples(scenario, federation, is_stacked(scenario, federation.mode)),
        tables=state_bytes.by_server(scenario, federation),
        # those that have participated
        remembered=state_bytes.by_client(scenario, federation) * min(scenario.clients, cohort * scenario.rounds),
        max_rows=_max_rows(federation),
        in_files=_in_files(scenario, federation, cohort),
        frozen=_frozen(federation) // 3,
        stored=0 if prefix is None else prefix.nbytes,
    )


def _batch_size(scenario: Scenario) -> int:
    with Guard("client", scenario.client, "batch_size") as guard:
        return count_of(guard, scenario.client.batch_size)


def _max_rows(federation: Federation) -> int:
    """Rows of the client with most of them, those that stand for audit examples included."""
    owners = federation.audit.owners
    copies = np.bincount(owners[owners >= 0], minlength=federation.num_clients)
    return int((federation.base_sizes + copies).max(initial=0))


def _evidence(scenario: Scenario, federation: Federation, cohort: int) -> int:
    """Bytes that one run leaves: of each model two floats and a bit for each example, and quantiles for each label."""
    from fedmem.observation.evidence import QUANTILES

    audit = federation.audit
    labels = sum(len(np.unique(audit.examples.labels[audit.kind == part.family])) for part in federation.references)
    signals = _signal_names(scenario, federation) * 8 * len(audit)
    of_model = 17 * len(audit) + (4 * QUANTILES + 8) * labels + signals + 4 * _set_values(scenario, federation)
    models = sum(_models(scenario, cohort).values())
    return models * of_model + _of_sets(scenario, federation, cohort)[0] + _states(scenario, federation)


def _models(scenario: Scenario, cohort: int) -> dict[Level, int]:
    """The models of one run that are looked at, by level."""
    levels, after = scenario.observe.levels, len(scenario.observed_rounds) - 1
    return {"local": after * cohort * ("local" in levels), "global": (after + 1) * ("global" in levels)}


def _of_sets(scenario: Scenario, federation: Federation, cohort: int) -> tuple[int, int]:
    """Bytes of the evidence of one run on test set and population, and its rows."""
    test, population = scenario.observe.test, scenario.observe.population
    bytes_of_test = 9 if test.precision == "float32" else 17
    total, rows = 0, 0
    for level, models in _models(scenario, cohort).items():
        of_test = len(federation.test) * test.is_read_at(level) * models
        of_population = len(federation.population) * population.is_read_at(level) * models
        total, rows = total + bytes_of_test * of_test + 17 * of_population, rows + of_test + of_population
    return total, rows


def _in_files(scenario: Scenario, federation: Federation, cohort: int) -> int:
    """Bytes of the evidence of one run that are read from files when they are used."""
    total, rows = _of_sets(scenario, federation, cohort)
    return total if rows * scenario.runs > IN_MEMORY else 0


def _signal_names(scenario: Scenario, federation: Federation) -> int:
    """How many values signals give each audit example."""
    signals = (signal for signal in scenario.signals if signal_declaration(signal).set == "audit")
    return sum(len(stored_names(signal, federation)) for signal in signals)


def _set_values(scenario: Scenario, federation: Federation) -> int:
    """How many values signals give each model on other sets than the audit set."""
    from fedmem.observation.signals import count_examples

    signals = [(signal, signal_declaration(signal)) for signal in scenario.signals]
    return sum(
        len(stored_names(signal, federation)) * count_examples(federation, declared)
        for signal, declared in signals
        if declared.set != "audit"
    )


def _states(scenario: Scenario, federation: Federation) -> int:
    """Bytes that signals hold of one run: at the aggregate, and at owners or at all clients, with earlier models."""
    examples = federation.audit.examples
    of_input = 8 * math.prod(examples.inputs.shape[1:]) * len(examples)
    declared = [signal_declaration(signal) for signal in scenario.signals]
    earlier = {number for each in declared for number in each.earlier_rounds}
    model = sum(value.numel() * value.element_size() for value in federation.initial.values())
    models = model * len(earlier) * (1 + scenario.clients)
    return models + sum(each.held * of_input * (2 if each.owners_only else 1 + scenario.clients) for each in declared)


def _has_own_starts(scenario: Scenario) -> bool:
    """Whether each run starts from a model of its own."""
    return scenario.initial_weights == "per_run" or scenario.after is not None


def _frozen(federation: Federation) -> int:
    """Bytes of what no client trains: once as it is, and once in float64 for probes and signals that read it so."""
    return 3 * sum(value.numel() * value.element_size() for value in federation.frozen.values())


def _estimates(scenario: Scenario, federation: Federation, cohort: int) -> int:
    """Bytes in addition to all evidence while it is estimated from and written: round by round, as a table."""
    audit, runs = len(federation.audit), scenario.runs
    of_clients = cohort * runs * ("local" in scenario.observe.levels)
    places = of_clients or runs
    test, population = scenario.observe.test, scenario.observe.population
    num_models: dict[Level, int] = {"local": of_clients, "global": runs}
    largest = 0
    for level, count in num_models.items():
        of_test = len(federation.test) * test.is_read_at(level)
        of_population = len(federation.population) * population.is_read_at(level)
        largest = max(largest, count * max(audit, of_test, of_population))
    # four values of every example and those of signals at every model of a round, by place and for the summary
    names = _signal_names(scenario, federation)
    gathered = 32 * (4 + names) * audit * (places + runs) * bool(scenario.estimators or names)
    # coins as they could have fallen, a byte each, and what one estimator sums up of them
    deals = 2 * scenario.bootstrap * runs * audit * bool(scenario.estimators or names)
    return max(gathered + deals, TABLE * largest)


def forward_bytes(model: nn.Module, inputs: NDArray[np.float32]) -> tuple[int, int]:
    """Bytes that a forward pass of these inputs keeps for a backward pass, and bytes at once without one.

    The first are all that autograd saves but the parameters; the second the largest input and output of a layer.

    >>> from torch import nn
    >>> forward_bytes(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), np.zeros((1, 4), np.float32))
    (48, 64)
    """
    import torch

    parameter_storage = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, int] = {}
    layers: list[int] = []

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameter_storage:
            saved[storage.data_ptr()] = storage.nbytes()
        # an output that its own graph saves would keep itself and the network for ever
        return tensor.detach()

    def layer(_: nn.Module, layer_inputs: tuple[object, ...], output: object) -> None:
        tensors = [value for value in (*layer_inputs, output) if isinstance(value, torch.Tensor)]
        layers.append(sum(tensor.numel() * tensor.element_size() for tensor in tensors))

    hooks = [part.register_forward_hook(layer) for part in model.modules() if not list(part.children())]
    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            # what is saved is freed with the outputs, and its place must not be taken meanwhile
            outputs = model(torch.from_numpy(np.array(inputs)))
            del outputs
    finally:
        for hook in hooks:
            hook.remove()
    return sum(saved.values()), max(layers, default=0)


def phases(needs: MemoryNeeds, room: MemoryLimits) -> dict[str, dict[str, int]]:
    """Bytes by purpose while the federation is laid out, while it is trained, and while results are made of it.

    Memory that is given back between two phases is used again by the next, so that the largest of the sums is the peak.
    """
    shards = -(-needs.runs // room.shard)
    copies = COPIES[needs.server] + WATCHED * needs.watched
    outputs = 8 * OUTPUTS * needs.classes * min(needs.examples, room.forward_rows)
    training = {
        "models of one round": int(needs.model * room.shard * (needs.cohort * copies + needs.sums + 3)),
        "clients in training": room.chunk(needs)
        * (STEP * needs.model + 2 * needs.batch * (needs.row + needs.saved) + EACH * needs.example_gradients),
        "kept from round to round": room.shard * (TABLES * needs.tables + needs.remembered),
        "models looked at": room.rows(needs) * needs.wide + outputs * room.models_at_once(needs),
        "evidence": needs.evidence * (room.shard if shards > 1 else needs.runs),
    }
    if room.workers > 1:
        training = {purpose: room.workers * size for purpose, size in training.items()}
        training["workers"] = room.workers * WORKER
    libraries = LIBRARIES + STACKING * needs.stackable
    constant = {"Python and its libraries": libraries, "data": needs.data}
    if needs.stored:
        constant["outputs of frozen layers"] = needs.stored
    return {
        "laying out": {
            "Python and its libraries": EARLY,
            "data": needs.data,
            "data as loaded": max(needs.source, needs.drafts),
        },
        "training": constant | training,
        "estimating": constant
        | {
            "evidence": (needs.evidence - needs.in_files * (shards > 1)) * needs.runs,
            "estimates": needs.estimates,
        },
    }


@dataclass(frozen=True, kw_only=True)
class MemoryLimits:
    """How training is cut. Results do not depend on it beyond the rounding of stacked arithmetic.

    `stack_bytes` is the size of the parameters of the clients that are trained as one stack. `forward_rows` is rows
    times models of one forward pass. `shard` is the number of runs that are trained together. `workers` is the number
    of processes that each train a shard at a time.
    """

    stack_bytes: int
    forward_rows: int
    shard: int
    workers: int

    def chunk(self, needs: MemoryNeeds) -> int:
        """Clients that are stacked at once, at least one."""
        together = needs.cohort * self.shard
        return (
            min(max(1, self.stack_bytes // max(1, needs.model + needs.example_gradients)), together)
            if needs.stackable
            else 1
        )

    def rows(self, needs: MemoryNeeds) -> int:
        """Rows times models of the largest forward pass."""
        together = self.models_at_once(needs) if needs.stackable else 1
        return min(self.forward_rows, needs.examples * together)

    def models_at_once(self, needs: MemoryNeeds) -> int:
        """Models whose outputs on the largest set are held at once, at least one."""
        num_models = self.shard * max(1, needs.cohort * needs.watched)
        return max(1, min(MODELS_AT_ONCE, num_models, self.forward_rows // max(1, needs.examples)))


def array_bytes(rows: Examples) -> int:
    """Inputs, labels and ids."""
    return rows.inputs.nbytes + rows.targets.nbytes + rows.ids.nbytes
