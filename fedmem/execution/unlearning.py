"""Unlearners at work: the models of each run are changed once, before round 1 of a phase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.client_shards import ClientShards
from fedmem.contracts.evidence import BEFORE, Evidence, Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import Level
from fedmem.contracts.strategy import strategy_declaration
from fedmem.contracts.unlearner import LocalTraining, RunToForget, StoredRound, Unlearner
from fedmem.engines.lockstep import Lockstep
from fedmem.errors import RunError
from fedmem.execution.auto import server_of
from fedmem.execution.executors import executor_in_use
from fedmem.federation.phases import forgotten_rows, rewind
from fedmem.guards.guarding import Guard
from fedmem.modalities.loss import example_losses
from fedmem.observation.evidence import evidence_of
from fedmem.processes import share_processes
from fedmem.seeding import stream
from fedmem.training.blocks import parameter_blocks
from fedmem.training.client_work import LocalWork
from fedmem.training.derivatives import double, split_entries
from fedmem.training.executor import Executor
from fedmem.training.tied_units import entries_of_units, example_ids, own_units
from fedmem.weights.model_files import FOLDER, ModelsFile, StoredModels, open_models, stored_models

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

ROWS = 1 << 10
"""Rows of one forward pass: a gradient over more of them is summed up piece by piece."""

TRIAL_ROWS = 16
"""Rows of the passes that find the entries of tied units."""


def unlearn(
    scenario: Scenario, federation: Federation, executor: Executor, runs: Sequence[int]
) -> tuple[Federation, tuple[Evidence, ...]]:
    """The federation whose runs start from unlearned models, and the evidence of the models before.

    Both are as they were where the scenario has no unlearner, and where no phase before has been trained.

    Errors: `PartError` where the unlearner fails, with run and client.
    """
    unlearner = scenario.unlearner
    if unlearner is None or federation.before is None:
        return federation, ()
    with ExitStack() as files:
        context = _Context(scenario, federation, executor, runs, files)
        others = (("model", federation.model), ("client", scenario.client))
        with Guard("unlearner", unlearner, "unlearn", others=others, where=lambda: dict(context.place)) as guard:
            models = _models(guard, unlearner, context)
    initials = list(federation.initials)
    for run, model in zip(context.runs, models, strict=True):
        initials[run.run] = model
    return replace(federation, initials=tuple(initials)), _evidence(scenario, federation, executor, context.runs)


def _models(guard: Guard, unlearner: Unlearner, context: _Context) -> list[Params]:
    """The models that an unlearner returns; the guard rejects what it must not return."""
    models = list(unlearner.unlearn(context))
    context.place.clear()
    guard.require(
        len(models) == len(context.runs),
        f"it returned {len(models)} models, should be {len(context.runs)}, one for each of context.runs",
    )
    for run, model in zip(context.runs, models, strict=True):
        context.place["run"] = run.run
        form, expected = (
            {name: (tuple(value.shape), value.dtype) for name, value in params.items()}
            for params in (model, run.before)
        )
        guard.require(form == expected, "its model has other entries, shapes or types than `before`")
        is_finite = all(bool(torch.isfinite(value).all()) for value in model.values())
        guard.require(is_finite, "its model has values that are not finite; lower lr, or clip more")
    return models


def _evidence(
    scenario: Scenario, federation: Federation, executor: Executor, runs: Sequence[RunToForget]
) -> tuple[Evidence, ...]:
    """The audit examples and the test set at the models before, as sets of their own at round 0."""
    if "global" not in scenario.observe.levels:
        return ()
    models = [run.before for run in runs]
    at = [Transition.at_server(run=run.run, round_number=0, before=run.before, after=run.before) for run in runs]
    audit = evidence_of(models, at, f"audit{BEFORE}", federation.audit.examples, executor)
    test = scenario.observe.test
    if not len(federation.test) or not test.is_read_at("global"):
        return (audit,)
    rows, precision = federation.test_rows, test.precision
    return (
        audit,
        evidence_of(models, at, f"test{BEFORE}", federation.test, executor, rows=rows, precision=precision),
    )


class _Context:
    """See `UnlearningContext`."""

    def __init__(
        self, scenario: Scenario, federation: Federation, executor: Executor, runs: Sequence[int], files: ExitStack
    ) -> None:
        assert federation.before is not None
        assert scenario.previous is not None
        self._scenario = scenario
        self._federation = federation
        self._executor = executor
        self._files = files
        self._before = federation.before
        self._previous = scenario.previous
        self._open_files: dict[tuple[int, Level], ModelsFile] = {}
        self._weighting = strategy_declaration(scenario.strategy).weighting
        self.place: dict[str, object] = {}
        self.rounds_before = self._previous.rounds
        initials = self._before.initials
        absent = set(federation.absent_clients)
        clients = [client for client in range(federation.num_clients) if client not in absent]
        client_in = federation.audit.client_in
        self.runs = tuple(
            RunToForget(
                run=run,
                before=federation.initial_of(run),
                initial=initials[run] if initials else federation.initial,
                clients=tuple(k for k in clients if client_in is None or client_in[run, k]),
                forgotten=forgotten_rows(scenario, federation, run),
            )
            for run in runs
        )

    def retained_rows(self, run: int, client: int) -> IntArray:
        """See `UnlearningContext.retained_rows`."""
        self._at(run, client)
        if client in self._federation.absent_clients:
            return np.empty(0, dtype=np.int64)
        return self._federation.rows(run, client, 1)

    def gradient(self, run: int, client: int, model: Params, rows: IntArray) -> tuple[float, Params]:
        """See `UnlearningContext.gradient`."""
        self._at(run, client)
        store = self._federation.store
        trained, constant = self._split(model)
        leaves = {name: value.requires_grad_() for name, value in trained.items()}
        total, slopes = 0.0, {name: torch.zeros_like(value) for name, value in trained.items()}
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            with torch.enable_grad():
                losses = self._losses({**leaves, **constant}, store.inputs[some], store.targets[some])
                loss = losses.sum() / len(rows)
                parts = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
            total += float(loss.detach())
            slopes = {name: slopes[name] + part for name, part in zip(leaves, parts, strict=True)}
        return total, {name: value.detach() for name, value in slopes.items()}

    def population_loss(self, run: int, client: int, model: Params) -> float:
        """See `UnlearningContext.population_loss`."""
        self._at(run, client)
        population = self._federation.population
        trained, constant = self._split(model)
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(population), ROWS):
                piece = slice(start, start + ROWS)
                losses = self._losses({**trained, **constant}, population.inputs[piece], population.targets[piece])
                total += float(losses.sum())
        return total / len(population) if len(population) else math.nan

    def average(self, run: int, models: Mapping[int, Params]) -> Params:
        """See `UnlearningContext.average`."""
        self._at(run)
        sizes = {client: len(self._federation.rows(run, client, 0)) for client in models}
        weights = self.weights(run, sizes)
        like = next(iter(models.values()))
        if len(models) == 1:
            return like
        return {
            name: sum(
                (weights[client] * model[name].double() for client, model in models.items()),
                torch.zeros(value.shape, dtype=torch.float64),
            ).to(value.dtype)
            for name, value in like.items()
        }

    def weights(self, run: int, sizes: Mapping[int, int]) -> Mapping[int, float]:
        """See `UnlearningContext.weights`."""
        self._at(run)
        total = sum(sizes.values())
        if self._weighting == "size" and total:
            return {client: size / total for client, size in sizes.items()}
        return {client: 1 / len(sizes) for client in sizes}

    def stored_round(self, run: int, round_number: int) -> StoredRound:
        """See `UnlearningContext.stored_round`."""
        self._at(run)
        local = self._file(round_number, "local")
        places = [place for place, number in enumerate(local.models.run) if number == run]
        start = next(one.initial for one in self.runs if one.run == run)
        if round_number > 1 and self._has(round_number - 1, "global"):
            whole = self._file(round_number - 1, "global")
            start = whole.params(whole.models.run.index(run))
        return StoredRound(
            aggregate=start,
            clients={local.models.client[place]: local.params(place) for place in places},
            sizes={local.models.client[place]: local.models.num_examples[place] for place in places},
        )

    def train(self, round_number: int, trainings: Sequence[LocalTraining], share: float = 1.0) -> list[Params]:
        """See `UnlearningContext.train`."""
        self.place.clear()
        if not trainings:
            return []
        starts = {id(training.start): training.start for training in trainings}
        place = {key: number for number, key in enumerate(starts)}
        names = trainings[0].start
        work = self._work.of(
            round_number,
            np.array([training.run for training in trainings], dtype=np.int64),
            np.array([training.client for training in trainings], dtype=np.int64),
            {name: torch.stack([start[name] for start in starts.values()]) for name in names},
            np.array([place[id(training.start)] for training in trainings], dtype=np.int64),
        )
        if share < 1:
            work = replace(work, steps=np.ceil(share * work.steps - 1e-9).astype(np.int64))
        sent = [outcome.sent for outcome in self._executor.train_all(work).outcomes()]
        self._work.forget(round_number)
        return sent

    def train_again(self, clients: Mapping[int, Sequence[int]]) -> Mapping[int, Params]:
        """See `UnlearningContext.train_again`."""
        self.place.clear()
        runs = sorted(clients)
        if not runs:
            return {}
        previous = self._previous
        federation = replace(rewind(self._federation), initials=self._before.initials, before=None)
        # the streams and the client of the phase before, which may differ from those of the phase
        with executor_in_use(previous, federation, None) as executor:
            work = LocalWork(
                federation, previous.client, previous.training_seed, shared_batches=previous.batches == "shared"
            )
            engine = Lockstep(previous, federation, executor, work, None)
            with share_processes(executor.workers):
                finished = engine.train(runs, server_of(previous), only=clients)
        return dict(zip(runs, finished.params, strict=True))

    @property
    def client_shards(self) -> ClientShards:
        """See `UnlearningContext.client_shards`."""
        return self._federation.mode.client_shards or ClientShards()

    @cached_property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        """See `UnlearningContext.blocks`."""
        sample = torch.from_numpy(np.array(self._federation.test.inputs[:1]))
        return parameter_blocks(self._federation.model, sample, self._federation.initial)

    def tied_entries(self, run: int) -> Mapping[str, Tensor]:
        """See `UnlearningContext.tied_entries`."""
        self._at(run)
        federation, tied = self._federation, self._federation.mode.tied
        if tied is None:
            raise RunError("the network has no tied units; write tied_dropout in the scenario")
        forgotten = next(one.forgotten for one in self.runs if one.run == run)
        if tied.unit == "client":
            keys = sorted(forgotten)
        else:
            rows = np.concatenate([np.empty(0, dtype=np.int64), *forgotten.values()])
            keys = example_ids(federation.store)[np.unique(rows)].tolist()
        none = np.empty(0, dtype=np.int64)
        units = {layer.name: np.concatenate([none, *own_units(tied, layer, keys)]) for layer in tied.layers}
        chosen = np.linspace(0, len(federation.store) - 1, TRIAL_ROWS).astype(int)
        return entries_of_units(federation.model, tied, units, torch.from_numpy(federation.store.inputs[chosen]))

    def stream(self, purpose: str, run: int, client: int | None = None) -> np.random.Generator:
        """See `UnlearningContext.stream`."""
        return stream(self._scenario.training_seed, f"unlearner {purpose}", run=run, client=client)

    @cached_property
    def _work(self) -> LocalWork:
        """The work of clients with the batches of the phase before, and without what has been forgotten."""
        scenario = self._scenario
        return LocalWork(
            rewind(self._federation),
            scenario.client,
            self._previous.training_seed,
            shared_batches=scenario.batches == "shared",
        )

    @cached_property
    def _network(self) -> nn.Module:
        return deepcopy(self._federation.model).double()

    def _split(self, model: Params) -> tuple[Params, Params]:
        """The trained entries of a model and the others, as new tensors in float64."""
        copy = {name: value.detach().to("cpu", torch.float64, copy=True) for name, value in model.items()}
        return split_entries(self._network, copy)

    def _losses(
        self, params: Params, inputs: np.ndarray[tuple[int, ...], np.dtype[np.float32]], targets: IntArray
    ) -> Tensor:
        outputs: Tensor = functional_call(self._network, params, (double(inputs),))
        return example_losses(outputs, torch.from_numpy(targets))

    def _at(self, run: int, client: int | None = None) -> None:
        """Remembers the place that an error belongs to."""
        self.place.clear()
        self.place.update({"run": run} if client is None else {"run": run, "client": client})

    @cached_property
    def _entries(self) -> dict[tuple[int, Level], StoredModels]:
        from fedmem.results.read import read

        manifest = read(self._before.folder).manifest
        return {(one.round, one.level): one for one in stored_models(manifest, self._before.folder / "manifest.json")}

    def _has(self, round_number: int, level: Level) -> bool:
        return (round_number, level) in self._entries

    def _file(self, round_number: int, level: Level) -> ModelsFile:
        """The stored models of a round and level.

        Errors: `RunError` where they are missing or damaged.
        """
        key = (round_number, level)
        if key not in self._open_files:
            stored = self._entries.get(key)
            if stored is None:
                raise RunError(
                    f"{self._before.folder} holds no {level} models of round {round_number}; write save: {{models: "
                    "{rounds: [...], levels: [local, global]}} in the first training"
                )
            file = self._before.folder / FOLDER / stored.name
            # files of earlier rounds are not read again
            self._open_files[key] = self._files.enter_context(open_models(file, stored, self._federation.initial))
        return self._open_files[key]
