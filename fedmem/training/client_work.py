"""The work of clients in a round, and its results: one record a client, or arrays of many clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray, Params
from fedmem.contracts.client import ClientAlgorithm, Outcome, client_declaration
from fedmem.contracts.federation import Federation
from fedmem.contracts.validation import batches_of
from fedmem.guards.guarding import Guard
from fedmem.seeding import Streams
from fedmem.training.defence_pipeline import Place
from fedmem.training.finite import finite_models
from fedmem.training.row_selection import RowSelection

if TYPE_CHECKING:
    from torch import Tensor


LEFT_OUT = -2
"""A place of a batch whose row is left out: it has no gradient, but counts in the mean (`Replay.without`)."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The work of one client in one round: a model, rows of the store, and the batches as positions into them."""

    run: int
    round: int
    client: int
    before: Params
    rows: IntArray
    batches: IntArray
    payload: Params = field(default_factory=dict)
    memory: Params = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainedClient:
    """The result of a task. `loss` is the mean of the batch losses during training, NaN without steps."""

    task: Task
    outcome: Outcome
    loss: float


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of T clients in one round, of any runs.

    `run` and `client` are (T,). `models` (M, ...) are the models handed out, and `model` (T,) says which of them each
    client starts from. `rows` are T arrays of rows of the store. `batches` (T, S, B) are the batches as rows of the
    store, -1 where there is none, and `LEFT_OUT` where one is left out. Client i does the first `steps[i]` of them.
    `payload` is (T, ...). `memory` has one entry for each client, or none at all.
    """

    round: int
    run: IntArray
    client: IntArray
    models: Params
    model: IntArray
    rows: tuple[IntArray, ...]
    batches: IntArray
    steps: IntArray
    payload: Params = field(default_factory=dict)
    memory: tuple[Params, ...] = ()

    def __len__(self) -> int:
        return len(self.client)

    @property
    def sizes(self) -> IntArray:
        """(T,) rows of each client."""
        return np.fromiter((len(rows) for rows in self.rows), dtype=np.int64, count=len(self.rows))

    def model_before(self, i: int) -> Params:
        """The model that client i starts from."""
        return {name: value[self.model[i]] for name, value in self.models.items()}

    def memory_of(self, i: int) -> Params:
        """The client state of client i."""
        return self.memory[i] if self.memory else {}

    def place(self, i: int) -> Place:
        """Run, round and number of client i."""
        return Place(run=int(self.run[i]), round=self.round, client=int(self.client[i]))

    def take(self, indices: Sequence[int] | IntArray) -> Work:
        """The work of these clients, in this order."""
        places = np.asarray(indices, dtype=np.int64)
        return Work(
            round=self.round,
            run=self.run[places],
            client=self.client[places],
            models=self.models,
            model=self.model[places],
            rows=tuple(self.rows[i] for i in places.tolist()),
            batches=self.batches[places],
            steps=self.steps[places],
            payload={name: value[torch.from_numpy(places)] for name, value in self.payload.items()},
            memory=tuple(self.memory[i] for i in places.tolist()) if self.memory else (),
        )

    def first_steps(self, count: int) -> Work:
        """The same, but every client stops after so many steps."""
        return replace(self, batches=self.batches[:, :count], steps=np.minimum(self.steps, count))

    @staticmethod
    def of(tasks: Sequence[Task]) -> Work:
        """Single tasks of one round as arrays; at least one."""
        models: dict[int, Params] = {id(task.before): task.before for task in tasks}
        places = {key: place for place, key in enumerate(models)}
        batches, steps = _join_batches([task.rows for task in tasks], [task.batches for task in tasks])
        return Work(
            round=tasks[0].round,
            run=np.array([task.run for task in tasks], dtype=np.int64),
            client=np.array([task.client for task in tasks], dtype=np.int64),
            models=stack(list(models.values())),
            model=np.array([places[id(task.before)] for task in tasks], dtype=np.int64),
            rows=tuple(task.rows for task in tasks),
            batches=batches,
            steps=steps,
            payload=stack([task.payload for task in tasks]),
            memory=tuple(task.memory for task in tasks) if any(task.memory for task in tasks) else (),
        )


@dataclass(frozen=True, kw_only=True)
class TrainedWork:
    """The result of the work of T clients: `Outcome`, each part with a leading axis.

    `stored_work` is `sent`, the same object, unless the client algorithm keeps something else. `loss` (T,) is the mean
    of the batch losses met on the way, NaN without steps.
    """

    work: Work
    sent: Params
    kept: Params
    memory: Params
    report: Params
    loss: FloatArray

    def __len__(self) -> int:
        return len(self.work)

    def outcomes(self) -> Iterator[Outcome]:
        """The outcome of each client in turn."""
        for i in range(len(self)):
            sent = pick(self.sent, i)
            yield Outcome(
                sent=sent,
                kept=sent if self.kept is self.sent else pick(self.kept, i),
                memory=pick(self.memory, i),
                report=pick(self.report, i),
            )

    def take(self, indices: IntArray) -> TrainedWork:
        """The results of these clients."""
        places = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        sent = {name: value[places] for name, value in self.sent.items()}
        return TrainedWork(
            work=self.work.take(indices),
            sent=sent,
            kept=sent if self.kept is self.sent else {name: value[places] for name, value in self.kept.items()},
            memory={name: value[places] for name, value in self.memory.items()},
            report={name: value[places] for name, value in self.report.items()},
            loss=self.loss[indices],
        )

    def is_finite(self) -> BoolArray:
        """(T,) whether every value that a client sends is finite."""
        finite: BoolArray = finite_models(self.sent).numpy()
        return finite


class LocalWork:
    """Turns (run, round, client, model) into work: the client's rows in that round, batches from its own stream."""

    def __init__(
        self, federation: Federation, client: ClientAlgorithm, seed: int, *, shared_batches: bool = False
    ) -> None:
        self._federation = federation
        self._client = client
        self._shared_batches = shared_batches
        self._streams = Streams(seed, "batches")
        selection = client_declaration(client).selection
        self._selection = None if selection is None else RowSelection(federation, selection, seed)
        self._stored_work: dict[tuple[int, int, int], tuple[Work, int]] = {}

    def used_rows(self, run: int, client: int, round_number: int) -> IntArray:
        """The client's rows that are in a batch: not all, where its steps end before its first epoch does.

        Where the client leaves rows out by scores, the round has to be one that is being watched.
        """
        if self._selection is not None:
            work, i = self.stored_place(run, round_number, client)
            return work.rows[i][np.isin(work.rows[i], work.batches[i, : work.steps[i]])]
        task = self.task(run, round_number, client, {})
        return task.rows[np.isin(np.arange(len(task.rows)), task.batches)]

    def task(self, run: int, round_number: int, client: int, before: Params) -> Task:
        """The work of one client; equal arguments give equal batches, whenever it is asked for."""
        rows = self._federation.rows(run, client, round_number)
        (rng,) = self._generators([run], round_number, [client])
        with Guard("client", self._client, "batches", round=round_number, run=run, client=client) as guard:
            batches = self._batches(guard, run, round_number, len(rows), rng)
        if self._selection is not None:
            batches = _places_of(batches, self._selection.kept(run, client, rows, before))
        self._check(round_number, [run], [client], [rows], batches[None])
        return Task(
            run=run,
            round=round_number,
            client=client,
            before=before,
            rows=rows,
            batches=batches,
            payload={"round": torch.tensor(float(round_number))},
        )

    def of(
        self,
        round_number: int,
        run: IntArray,
        client: IntArray,
        models: Params,
        model: IntArray,
        payload: Mapping[str, Tensor] | None = None,
        memory: tuple[Params, ...] = (),
    ) -> Work:
        """The work of T clients at once: the same rows and batches as `task` gives each of them."""
        runs, clients = run.tolist(), client.tolist()
        rows = [self._federation.rows(r, k, round_number) for r, k in zip(runs, clients, strict=True)]
        streams = self._generators(runs, round_number, clients)
        positions: list[IntArray] = []

        def index_of() -> dict[str, int]:
            return {"run": runs[len(positions)], "client": clients[len(positions)]}

        with Guard("client", self._client, "batches", round=round_number, where=index_of) as guard:
            for r, client_rows, rng in zip(runs, rows, streams, strict=True):
                positions.append(self._batches(guard, r, round_number, len(client_rows), rng))
        if self._selection is not None:
            positions = [
                _places_of(part, self._selection.kept(runs[i], clients[i], rows[i], pick(models, int(model[i]))))
                for i, part in enumerate(positions)
            ]
        places, steps = _stack_positions(positions)
        self._check(round_number, runs, clients, rows, places)
        number = torch.full((len(runs),), float(round_number))
        return Work(
            round=round_number,
            run=run,
            client=client,
            models=models,
            model=model,
            rows=tuple(rows),
            batches=_rows_at(rows, places),
            steps=steps,
            payload={**(payload or {}), "round": number},
            memory=memory,
        )

    def _generators(
        self, runs: Sequence[int], round_number: int, clients: Sequence[int]
    ) -> Iterator[np.random.Generator]:
        """The generators of batches; where all runs have the same batches, those of run 0."""
        runs = [0] * len(runs) if self._shared_batches else runs
        return self._streams.generators(run=runs, round_number=round_number, client=clients)

    def _batches(self, guard: Guard, run: int, round_number: int, count: int, rng: np.random.Generator) -> IntArray:
        """Positions among the rows of a client; where it goes from client to client, the batches that each would have.

        These are of the streams of the clients, so that one model meets what would have been met side by side.
        """
        unpooled = self._federation.unpooled
        if unpooled is None or not self._federation.by_client:
            return batches_of(guard, self._client.batches(count, rng))
        clients = list(range(unpooled.num_clients))
        sizes = [len(unpooled.rows(run, k, round_number)) for k in clients]
        streams = self._generators([run] * len(clients), round_number, clients)
        client_batches = [
            batches_of(guard, self._client.batches(size, stream)) for size, stream in zip(sizes, streams, strict=True)
        ]
        starts = np.cumsum([0, *sizes[:-1]])
        return np.concatenate(
            [np.where(batches >= 0, batches + start, -1) for batches, start in zip(client_batches, starts, strict=True)]
        )

    def _check(
        self, round_number: int, runs: Sequence[int], clients: Sequence[int], rows: Sequence[IntArray], places: IntArray
    ) -> None:
        """No client trains on rows of another: its batches (T, S, B) hold positions among its own rows, or -1."""
        sizes = np.fromiter((len(client_rows) for client_rows in rows), dtype=np.int64, count=len(rows))
        outside = (places.max(axis=(1, 2), initial=-1) >= sizes) | (places.min(axis=(1, 2), initial=-1) < -1)
        if not outside.any():
            return
        i = int(np.flatnonzero(outside)[0])
        wrong_position = places[i][(places[i] >= sizes[i]) | (places[i] < -1)][0]
        with Guard("client", self._client, "batches", round=round_number, run=runs[i], client=clients[i]) as guard:
            guard.reject(f"it returned position {wrong_position}, should be 0 to {sizes[i] - 1}, or -1 for no row")

    def keep(self, work: Work) -> None:
        """Remember work as it was given, until `forget`."""
        for i, (run, client) in enumerate(zip(work.run.tolist(), work.client.tolist(), strict=True)):
            self._stored_work[run, work.round, client] = (work, i)

    def stored_work(self, run: int, round_number: int, client: int) -> Work:
        """The work that this client alone was given in a round that is being watched."""
        work, i = self.stored_place(run, round_number, client)
        return work.take([i])

    def stored_place(self, run: int, round_number: int, client: int) -> tuple[Work, int]:
        """The work of the cohort of a round that is being watched, and the place of this client in it."""
        return self._stored_work[run, round_number, client]

    def forget(self, round_number: int) -> None:
        """Let go of the work of a round that has been looked at."""
        self._stored_work = {place: work for place, work in self._stored_work.items() if place[1] != round_number}


def _places_of(batches: IntArray, kept: IntArray) -> IntArray:
    """Positions among all rows from those among the rows that are kept; what is no position stays as it is.

    >>> _places_of(np.array([[1, 0], [2, -1]]), np.array([0, 3, 4])).tolist()
    [[3, 0], [4, -1]]
    """
    if not len(kept):
        return batches
    is_place = (batches >= 0) & (batches < len(kept))
    return np.where(is_place, kept[np.where(is_place, batches, 0)], batches)


def stack(models: Sequence[Params]) -> Params:
    """One set of parameters with a leading axis."""
    return {name: torch.stack([params[name] for params in models]) for name in models[0]}


def pick(part: Params, i: int) -> Params:
    """The parameters at one place of the leading axis."""
    return {name: value[i] for name, value in part.items()}


def with_width(work: Work, width: int) -> Work:
    """The same work, its batches so wide."""
    current_width = work.batches.shape[2]
    if current_width == width:
        return work
    batches = work.batches[:, :, :width]
    if current_width < width:
        batches = np.pad(batches, ((0, 0), (0, 0), (0, width - current_width)), constant_values=-1)
    return replace(work, batches=batches)


def full_steps(work: Work) -> IntArray:
    """(T,) how many of the steps that a client does have a row, trained on or left out."""
    done = np.arange(work.batches.shape[1]) < work.steps[:, None]
    full: IntArray = ((work.batches != -1).any(axis=2) & done).sum(axis=1)
    return full


def _join_batches(rows: Sequence[IntArray], positions: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
    """Batches of positions as one array (T, S, B) of rows of the store, and the number of steps of each client."""
    places, steps = _stack_positions(positions)
    return _rows_at(rows, places), steps


def _stack_positions(positions: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
    """Batches of positions as one array (T, S, B), -1 where there is none, and the number of steps of each client."""
    steps = np.fromiter((len(part) for part in positions), dtype=np.int64, count=len(positions))
    if all(part.shape == positions[0].shape for part in positions):
        return np.stack(positions) if positions else np.empty((0, 0, 0), dtype=np.int64), steps
    width = max(part.shape[1] for part in positions)
    batches = np.full((len(positions), int(steps.max()), width), -1, dtype=np.int64)
    for i, part in enumerate(positions):
        batches[i, : part.shape[0], : part.shape[1]] = part
    return batches, steps


def _rows_at(rows: Sequence[IntArray], batches: IntArray) -> IntArray:
    """The rows of the store at positions (T, S, B) among the rows of each client."""
    starts = np.cumsum([0, *(len(client_rows) for client_rows in rows)])[:-1]
    all_rows = np.concatenate([np.zeros(1, dtype=np.int64), *rows])
    store_rows = all_rows[np.where(batches >= 0, batches + starts[:, None, None] + 1, 0)]
    return np.where(batches >= 0, store_rows, -1)
