"""One-by-one training spread over worker processes that stay: for models that gain nothing from being stacked.

Workers are forked, so that each has the model, the client algorithm and the data without copying them. Parameters go
through memory that all of them share; only small things are sent.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.client import ClientAlgorithm, Outcome
from fedmem.contracts.data import Examples
from fedmem.errors import RunError
from fedmem.guards.guarding import Guard, PartError, describe, remember, trace_of, with_trace
from fedmem.guards.time_limit import TimeLimitError, escape_by
from fedmem.processes import fork
from fedmem.training.client_work import TrainedWork, Work, pick, stack
from fedmem.training.defence_pipeline import Place
from fedmem.training.executor import Settings
from fedmem.training.one_by_one import OneByOne, gather_outcomes

GRAIN = 64
"""Bytes to which every array in shared memory is aligned."""

ROOM = 1 << 20
"""Bytes that an outcome may have in addition to its models and still go through shared memory."""

TensorPlace = tuple[torch.dtype, tuple[int, ...], int]
"""Type, shape and place of a tensor in shared memory."""

Layout = dict[str, TensorPlace]
"""Name -> type, shape and place of a tensor."""

Key = TypeVar("Key")


class PooledExecutor(OneByOne):
    """`OneByOne`, its clients shared out among processes of one or a few threads each.

    Guarantees:

    - the same bits as one process, for any number of workers, in any order of completion;
    - a client whose worker dies has failed, with the signal or exit code as the cause; another worker takes its place;
    - workers end with `close`, and when this process ends in any way.

    Errors: `RunError` from `train_all` if a client fails.
    """

    def __init__(
        self,
        model: nn.Module,
        client: ClientAlgorithm,
        store: Examples,
        settings: Settings | None = None,
        *,
        workers: int,
        threads: int = 1,
    ) -> None:
        super().__init__(model, client, store, settings)
        self._pool: list[_Worker] = []
        self._count = workers
        self._threads = threads
        self._models = _Shared(0)

    @property
    def workers(self) -> int:
        """See `Executor.workers`."""
        return self._count

    def close(self) -> None:
        """See `Executor.close`."""
        for worker in self._pool:
            worker.stop()
        self._pool = []

    def train_all(self, work: Work) -> TrainedWork:
        """See `Executor.train_all`."""
        done, failures = self.attempt_all(work)
        if failures or done is None:
            raise RunError(f"client {work.client[min(failures)]}: {failures[min(failures)]}")
        return done

    def attempt_all(self, work: Work) -> tuple[TrainedWork | None, dict[int, str]]:
        """See `Executor.attempt_all`."""
        self._prepare(work.models)
        layout = self._models.put(work.models)
        # long ones first, so that no worker is left alone with one at the end
        order = sorted(range(len(work)), key=lambda i: (-work.steps[i], i))
        jobs = [
            _Job(
                place=i,
                layout=layout,
                model=int(work.model[i]),
                whose=work.place(i),
                batches=work.batches[i, : work.steps[i]],
                payload=_to_arrays(pick(work.payload, i)),
                memory=_to_arrays(work.memory_of(i)),
            )
            for i in order
        ]
        results: dict[int, tuple[Outcome, float]] = {}
        failures: dict[int, str] = {}
        for place, answer in self._shared_out(jobs):
            if isinstance(answer, _Failure):
                failures[place] = answer.text_with_traceback()
            else:
                assert isinstance(answer, tuple)
                results[place] = answer
        trained_places = sorted(results)
        if not trained_places:
            return None, failures
        return gather_outcomes(
            work if not failures else work.take(trained_places), [results[i] for i in trained_places]
        ), failures

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """See `Executor.logits`."""
        if len(models) < 2 or not models[0]:
            return super().logits(models, inputs)
        shared_tensors = {**stack(models), "": torch.from_numpy(inputs)}
        self._prepare(shared_tensors)
        layout = self._models.put(shared_tensors)
        jobs = [_Job(place=i, layout=layout, model=i) for i in range(len(models))]
        logits_by_place: dict[int, FloatArray] = {}
        for place, answer in self._shared_out(jobs):
            if isinstance(answer, _Failure):
                raise with_trace(answer.error or RunError(answer.text), answer.text_with_traceback())
            assert isinstance(answer, np.ndarray)
            logits_by_place[place] = answer
        return np.stack([logits_by_place[i] for i in range(len(models))])

    def _prepare(self, tensors: Params) -> None:
        """Workers, and memory that is large enough; a pool that has only smaller memory is replaced."""
        num_bytes = sum(_round_up(value.numel() * value.element_size()) for value in tensors.values())
        if num_bytes > self._models.size:
            self.close()
            self._models = _Shared(2 * num_bytes)
        while len(self._pool) < self._count:
            size = sum(value.numel() * value.element_size() // len(value) for value in tensors.values() if len(value))
            self._pool.append(self._start_worker(4 * size + ROOM))

    def _start_worker(self, size: int) -> _Worker:
        return _Worker.start(self._answer, self._at_work, self._models, _Shared(size), self._threads, self._pool)

    def _shared_out(self, jobs: Sequence[_Job]) -> Iterator[tuple[int, _Answer | _Failure]]:
        """Each job's place and its answer, or the cause of its failure, as they come."""
        waiting = list(reversed(jobs))
        busy: dict[Connection, _Worker] = {}
        for worker in self._pool:
            if waiting:
                worker.give(waiting.pop())
                busy[worker.connection] = worker
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                worker = busy.pop(ready)
                place = worker.at
                answer: _Answer | _Failure
                try:
                    answer = worker.take()
                except EOFError:
                    answer = _Failure(worker.death_text())
                    index = self._pool.index(worker)
                    self._pool.pop(index)
                    worker = self._start_worker(worker.outbox.size)
                    self._pool.insert(index, worker)
                yield place, answer
                if waiting:
                    worker.give(waiting.pop())
                    busy[worker.connection] = worker

    def _answer(self, job: _Job, models: _Shared) -> _Answer:
        """The answer of a worker to a job: an outcome with its loss, or logits."""
        if job.batches is None or job.whose is None:
            params = models.get({name: part for name, part in job.layout.items() if name}, job.model)
            (inputs,) = models.get({"": job.layout[""]}).values()
            with Guard("model", self._model, "forward"):
                logits: FloatArray = OneByOne.logits(self, [params], inputs.numpy())[0]
                return logits
        before = models.get(job.layout, job.model)
        payload, memory = (
            {name: torch.from_numpy(value) for name, value in (part or {}).items()}
            for part in (job.payload, job.memory)
        )
        return self._train_one(job.whose, before, job.batches, payload, memory)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A job of a worker: to train, or without batches to evaluate."""

    place: int
    layout: Layout
    model: int
    whose: Place | None = None
    batches: NDArray[np.int64] | None = None
    payload: Mapping[str, NDArray[Any]] | None = None
    memory: Mapping[str, NDArray[Any]] | None = None


@dataclass(frozen=True)
class _Failure:
    """Why a job failed, and the traceback of its process."""

    text: str
    trace: str = ""
    error: PartError | None = None

    def text_with_traceback(self) -> str:
        """The text, whose traceback is found by it."""
        if self.trace:
            remember(self.text, lambda: self.trace)
        return self.text


_Answer = tuple[Outcome, float] | FloatArray
"""An outcome with its loss, or logits."""


class _Shared:
    """Memory that this process and those that it forks from now on all see."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._bytes = mmap.mmap(-1, max(size, GRAIN))

    def put(self, params: Mapping[Key, torch.Tensor]) -> dict[Key, TensorPlace]:
        """Copy the tensors here, one after the other."""
        layout: dict[Key, TensorPlace] = {}
        start = 0
        for name, value in params.items():
            layout[name] = (value.dtype, tuple(value.shape), start)
            self._tensor_at(*layout[name]).copy_(value)
            start += _round_up(value.numel() * value.element_size())
        return layout

    def get(self, layout: Layout, i: int | None = None) -> Params:
        """The tensors that are here, without copying; with `i`, what is at that place of their leading axis."""
        tensors = {name: self._tensor_at(*place) for name, place in layout.items()}
        return tensors if i is None else pick(tensors, i)

    def _tensor_at(self, dtype: torch.dtype, shape: tuple[int, ...], start: int) -> torch.Tensor:
        count = int(np.prod(shape, dtype=np.int64))
        if not count:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(self._bytes, dtype=dtype, count=count, offset=start).view(shape)


class _Worker:
    """A process that answers one job after the other."""

    def __init__(self, process: ForkProcess, connection: Connection, outbox: _Shared) -> None:
        self.process = process
        self.connection = connection
        self.outbox = outbox
        self.at = -1

    @staticmethod
    def start(
        answer: Callable[[_Job, _Shared], _Answer],
        parts: Sequence[tuple[str, object]],
        models: _Shared,
        outbox: _Shared,
        threads: int,
        others: Sequence[_Worker],
    ) -> _Worker:
        """Fork one."""
        parent_end, worker_end = multiprocessing.Pipe()
        strangers = [parent_end, *(other.connection for other in others)]
        process = fork(partial(_answer_all, answer, parts, models, outbox, worker_end, threads), strangers)
        worker_end.close()
        return _Worker(process, parent_end, outbox)

    def give(self, job: _Job) -> None:
        """Send a job; if the worker is dead, `take` reports it."""
        self.at = job.place
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(job)

    def take(self) -> _Answer | _Failure:
        """The answer, copied out of shared memory. Errors: `EOFError` if the worker is dead."""
        try:
            kind, value = self.connection.recv()
        except ConnectionResetError:
            raise EOFError from None
        if kind == "late":
            raise value
        if kind != "outcome":
            arrived: _Answer | _Failure = value
            return arrived
        layouts, is_same_model, loss = value
        parts = {
            part: {name: tensor.clone() for name, tensor in self.outbox.get(layout).items()}
            for part, layout in layouts.items()
        }
        return Outcome(kept=parts["sent"] if is_same_model else parts.pop("kept"), **_drop_part(parts, "kept")), loss

    def death_text(self) -> str:
        """How it died."""
        self.process.join(timeout=5)
        code = self.process.exitcode
        self.connection.close()
        if code is not None and code < 0:
            return f"its worker process was killed by {signal.Signals(-code).name}; was there enough memory?"
        return f"its worker process ended with exit code {code}"

    def stop(self) -> None:
        """No more jobs."""
        self.connection.close()
        self.process.join(timeout=2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _answer_all(
    answer: Callable[[_Job, _Shared], _Answer],
    parts: Sequence[tuple[str, object]],
    models: _Shared,
    outbox: _Shared,
    connection: Connection,
    threads: int,
) -> None:
    """The life of a worker. It ends when the other end of its connection is closed, by whatever cause."""
    torch.set_num_threads(threads)

    def escape(error: TimeLimitError) -> None:
        connection.send(("late", error))
        os._exit(1)

    escape_by(escape)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = connection.recv()
            try:
                reply: tuple[str, object] = _pack_answer(answer(job, models), outbox)
            except TimeLimitError as error:
                reply = "late", error
            except BaseException as error:  # the client's own code
                text = describe(error, parts, "its work")
                reply = "failed", _Failure(text, trace_of(text), error if isinstance(error, PartError) else None)
            connection.send(reply)


def _pack_answer(answer: _Answer, outbox: _Shared) -> tuple[str, object]:
    """An answer as it is sent: the arrays of an outcome through shared memory where they fit."""
    if not isinstance(answer, tuple):
        return "logits", answer
    outcome, loss = answer
    is_same_model = outcome.kept is outcome.sent
    parts = {"sent": outcome.sent, "memory": outcome.memory, "report": dict(outcome.report)}
    if not is_same_model:
        parts["kept"] = outcome.kept
    flat = {(part, name): value.cpu() for part, values in parts.items() for name, value in values.items()}
    if sum(_round_up(value.numel() * value.element_size()) for value in flat.values()) > outbox.size:
        return "large", (outcome, loss)
    places = outbox.put(flat)
    layouts = {part: {name: places[part, name] for name in values} for part, values in parts.items()}
    return "outcome", (layouts, is_same_model, loss)


def _to_arrays(params: Params) -> dict[str, NDArray[Any]]:
    """Small tensors as arrays, which are sent by value."""
    return {name: value.numpy().copy() for name, value in params.items()}


def _drop_part(parts: Mapping[str, Params], name: str) -> dict[str, Params]:
    return {part: params for part, params in parts.items() if part != name}


def _round_up(size: int) -> int:
    return -(-size // GRAIN) * GRAIN
