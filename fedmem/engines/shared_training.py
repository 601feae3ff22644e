"""Several banks in one process, in step: the clients that they wait for are trained as one stack.

Each bank is a coroutine that runs its own engine, strategy and sampler, and knows of no other. Where it would train
clients, it hands their work to the scheduler here. The scheduler joins the work of all banks, has it trained, and gives
each bank its own part back. A stack may be cut anywhere without changing a bit, so every bank ends with the bytes that
it would have had alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from greenlet import GreenletExit, getcurrent, greenlet
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.data import Examples
from fedmem.contracts.events import ListenerError
from fedmem.engines._flower import in_process
from fedmem.modalities.text.language_model import CausalModel
from fedmem.training.client_work import Task, TrainedClient, TrainedWork, Work
from fedmem.training.executor import Executor, train_tasks

JOINED_BYTES = 1 << 28
"""Inputs of different federations that are copied side by side, at most, so that their clients can share a stack."""

Attempt = tuple[TrainedWork | None, dict[int, str]]
"""The results of work, and the causes of failures by position."""


class SharedExecutor:
    """The executor of one bank among several: it trains with the others, and looks at models alone.

    `seconds` is the bank's share of the time that was spent on training, by its share of the clients.
    """

    def __init__(self, executor: Executor, store: Examples, hand_over: Callable[[Work], Attempt]) -> None:
        self.executor = executor
        self.name = executor.name
        self.store = store
        self.seconds = 0.0
        self.shared: Executor | None = None
        """The executor that trains the clients of several banks together, once it has trained some of this bank."""
        self._away = 0.0
        self._hand_over = hand_over

    @property
    def workers(self) -> int:
        """See `Executor.workers`: the banks train in one process."""
        return 1

    @property
    def device(self) -> str:
        """That of the executor behind it."""
        return self.executor.device

    @property
    def untraced_functions(self) -> Mapping[str, str]:
        """See `Executor.untraced_functions`: of the executor behind it, and of the one that is shared."""
        return {**self.executor.untraced_functions, **({} if self.shared is None else self.shared.untraced_functions)}

    @property
    def waiting_seconds(self) -> float:
        """See `Executor.waiting_seconds`."""
        return self._away - self.seconds

    def attempt_all(self, work: Work) -> Attempt:
        """See `Executor.attempt_all`."""
        begun = time.perf_counter()
        try:
            return self._hand_over(work)
        finally:
            self._away += time.perf_counter() - begun

    def train_all(self, work: Work) -> TrainedWork:
        """See `Executor.train_all`; nothing waits for others here, since it may be called from anywhere."""
        return self.executor.train_all(work)

    def train(self, tasks: Sequence[Task]) -> list[TrainedClient]:
        """See `Executor.train`."""
        return train_tasks(self, tasks)

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """See `Executor.logits`."""
        return self.executor.logits(models, inputs)

    def reader(self, params: Params) -> CausalModel:
        """See `Executor.reader`."""
        return self.executor.reader(params)

    def models_at_once(self, rows: int) -> int:
        """See `Executor.models_at_once`."""
        return self.executor.models_at_once(rows)

    @property
    def rows_at_once(self) -> int:
        """See `Executor.rows_at_once`."""
        return self.executor.rows_at_once

    def close(self) -> None:
        """See `Executor.close`: what made the executor behind it closes that one."""


@dataclass(frozen=True)
class _Waiting:
    """The request of a bank to the scheduler."""

    work: Work


Result = TypeVar("Result")
"""The result of a bank."""


@dataclass(frozen=True, kw_only=True)
class SharedBank(Generic[Result]):
    """One bank: what it does with an executor, that executor where it is alone, and the store of its federation."""

    start: Callable[[SharedExecutor], Result]
    executor: Executor
    store: Examples


def run_together(
    members: Sequence[SharedBank[Result]], stack: Callable[[Examples], Executor]
) -> list[Result | Exception]:
    """Run banks in step: the result of each, or the exception that ended it, while the others go on.

    Args:
        members: banks with the same model and client algorithm.
        stack: makes the executor that trains on a store which several banks share.

    Guarantees:

    - every bank gets the outcomes that its own executor would have given it, to the last bit on one thread;
    - where training fails as a whole, each bank tries alone, so that only the bank at fault fails.
    """
    pool = _Pool(members, stack)
    scheduler = getcurrent()

    def hand_over(work: Work) -> Attempt:
        answer: Attempt | Exception = scheduler.switch(_Waiting(work))
        if isinstance(answer, Exception):
            raise answer
        return answer

    executors = [SharedExecutor(member.executor, member.store, hand_over) for member in members]
    coroutines = [greenlet(member.start) for member in members]
    waiting: dict[int, Work] = {}
    ended: dict[int, Result | Exception] = {}

    def advance(place: int, value: object) -> None:
        try:
            result = coroutines[place].switch(value)
        except ListenerError:
            raise
        except Exception as error:
            ended[place] = error
            return
        if isinstance(result, _Waiting):
            waiting[place] = result.work
        else:
            ended[place] = result

    with in_process():
        try:
            for place, executor in enumerate(executors):
                advance(place, executor)
            while waiting:
                requests = dict(sorted(waiting.items()))
                waiting.clear()
                for group in _group_stackable(requests):
                    for place, answer in pool.train({place: requests[place] for place in group}, executors):
                        advance(place, answer)
        finally:
            for coroutine in coroutines:
                if not coroutine.dead:
                    coroutine.throw(GreenletExit)
    return [ended[place] for place in range(len(members))]


class _Pool:
    """The stores of all banks, and what trains on them."""

    def __init__(self, members: Sequence[SharedBank[Result]], stack: Callable[[Examples], Executor]) -> None:
        stores = {id(member.store): member for member in members}
        self._starts = [{key: 0} for key in stores]
        self._stacks = [member.executor for member in stores.values()]
        size = sum(member.store.inputs.nbytes for member in stores.values())
        shapes = {(member.store.inputs.shape[1:], member.store.targets.shape[1:]) for member in stores.values()}
        if len(stores) > 1 and size <= JOINED_BYTES and len(shapes) == 1:
            lengths = [len(member.store) for member in stores.values()]
            firsts = (np.cumsum(lengths) - lengths).tolist()
            self._starts = [dict(zip(stores, firsts, strict=True))]
            self._stacks = [stack(Examples.concatenate([member.store for member in stores.values()]))]

    def train(
        self, requests: Mapping[int, Work], executors: Sequence[SharedExecutor]
    ) -> Iterator[tuple[int, Attempt | Exception]]:
        """Train the work of these banks: the result of each, at its place."""
        for starts, stack in zip(self._starts, self._stacks, strict=True):
            here = [place for place in requests if id(executors[place].store) in starts]
            if not here:
                continue
            if len(here) == 1:
                yield here[0], _attempt_alone(executors[here[0]], requests[here[0]])
                continue
            works = [requests[place] for place in here]
            begun = time.perf_counter()
            try:
                done, failed = stack.attempt_all(
                    join_work(works, [starts[id(executors[place].store)] for place in here])
                )
            except Exception:
                yield from ((place, _attempt_alone(executors[place], requests[place])) for place in here)
                continue
            each = (time.perf_counter() - begun) / sum(map(len, works))
            for place, work, answer in zip(here, works, split_results(works, done, failed), strict=True):
                executors[place].seconds += each * len(work)
                executors[place].shared = stack
                yield place, answer


def _attempt_alone(executor: SharedExecutor, work: Work) -> Attempt | Exception:
    begun = time.perf_counter()
    try:
        return executor.executor.attempt_all(work)
    except Exception as error:
        return error
    finally:
        executor.seconds += time.perf_counter() - begun


def _group_stackable(requests: Mapping[int, Work]) -> list[list[int]]:
    """Clients that can be in one stack: with the same arrays in addition to the model, and equally wide batches."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, work in requests.items():
        arrays = [
            (name, value.dtype, value.shape[1:]) for part in (work.models, work.payload) for name, value in part.items()
        ]
        groups.setdefault((work.batches.shape[2], *sorted(arrays, key=lambda array: array[0])), []).append(place)
    return list(groups.values())


def join_work(works: Sequence[Work], starts: Sequence[int]) -> Work:
    """The work of several banks as one, in their order.

    Args:
        works: Works of any rounds, with the same names in `models` and in `payload`, and batches of one width.
        starts: Where the store of each begins in the one that all are trained on.
    """
    counts = [len(next(iter(work.models.values()))) for work in works]
    firsts = (np.cumsum(counts) - counts).tolist()
    steps = max(work.batches.shape[1] for work in works)
    return Work(
        round=works[0].round,
        run=np.concatenate([work.run for work in works]),
        client=np.concatenate([work.client for work in works]),
        models=_end_to_end([work.models for work in works]),
        model=np.concatenate([work.model + first for work, first in zip(works, firsts, strict=True)]),
        rows=tuple(rows + start for work, start in zip(works, starts, strict=True) for rows in work.rows),
        batches=np.concatenate(
            [_shift_batches(work.batches, start, steps) for work, start in zip(works, starts, strict=True)]
        ),
        steps=np.concatenate([work.steps for work in works]),
        payload=_end_to_end([work.payload for work in works]),
        memory=tuple(work.memory_of(i) for work in works for i in range(len(work)))
        if any(work.memory for work in works)
        else (),
    )


def split_results(works: Sequence[Work], done: TrainedWork | None, failed: Mapping[int, str]) -> Iterator[Attempt]:
    """The results of joined work, split into those of each work.

    >>> list(split_results([], None, {}))
    []
    """
    start = first = 0
    for work in works:
        causes = {place - start: why for place, why in failed.items() if start <= place < start + len(work)}
        good = [i for i in range(len(work)) if i not in causes]
        start += len(work)
        if done is None or not good:
            yield None, causes
            continue
        # a copy: a view would keep what all banks have sent, and lie elsewhere in memory than its bank's own would
        part = done.take(np.arange(first, first + len(good)))
        yield replace(part, work=work.take(good) if causes else work), causes
        first += len(good)


def _end_to_end(parts: Sequence[Params]) -> Params:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _shift_batches(batches: IntArray, start: int, steps: int) -> IntArray:
    """Batches as rows of the common store, with so many steps."""
    whole = np.full((len(batches), steps, batches.shape[2]), -1, dtype=np.int64)
    whole[:, : batches.shape[1]] = np.where(batches >= 0, batches + start, batches)
    return whole
