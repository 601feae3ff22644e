"""The clients of a scenario as a Flower `ClientApp`, for any process that Flower runs them in.

A process builds the federation of a scenario once and keeps it. The partition of a node says which client it is, and
the message what is to be done. Flower's context stores client state between participations.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedmem.contracts.arrays import Params
from fedmem.contracts.federation import Federation, digest
from fedmem.engines._messages import (
    ARRAYS,
    FAILED,
    KEPT,
    MEMORY,
    Assignment,
    evaluate,
    metrics_of,
    model_in,
    payload_of,
    record_of,
    understood_instructions,
)
from fedmem.engines.client_settings import client_settings
from fedmem.federation import build as federations
from fedmem.guards.guarding import NOT_OURS, describe
from fedmem.observation.flower_round import TRACE
from fedmem.observation.observed import params_of
from fedmem.scenario.loading import parse_scenario
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import LocalWork, Task

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

PARTITION = "partition-id"
"""The name that Flower's runtime gives to the number of a node's data, in the configuration of the node."""

client_app = ClientApp()
"""Answers `query` (which client is this, and what federation has it built), `train` and `evaluate`."""


@dataclass(frozen=True, kw_only=True)
class _ClientProcess:
    """The state with which a process can do the work of any client of a scenario."""

    scenario: Scenario
    federation: Federation
    digest: str
    work: LocalWork
    executor: OneByOne


@lru_cache(maxsize=1)
def _client_process(text: str) -> _ClientProcess:
    """Built once in a process; a scenario of its own each time would cost more than the training."""
    scenario = parse_scenario(text)
    federation = federations.build(scenario)
    return _ClientProcess(
        scenario=scenario,
        federation=federation,
        digest=digest(federation),
        work=LocalWork(
            federation, scenario.client, scenario.training_seed, shared_batches=scenario.batches == "shared"
        ),
        executor=OneByOne(federation.model, scenario.client, federation.store, client_settings(scenario, federation)),
    )


@client_app.query()
def _query(message: Message, context: Context) -> Message:
    """Who is this?"""

    def answer(work: Assignment) -> RecordDict:
        identity = {"client": int(context.node_config[PARTITION])} if PARTITION in context.node_config else {}
        return RecordDict({TRACE: ConfigRecord({**identity, "digest": _client_process(work.scenario).digest})})

    return _answer(message, answer)


@client_app.train()
def _train(message: Message, context: Context) -> Message:
    """One client's turn."""

    def answer(work: Assignment) -> RecordDict:
        place = _client_process(work.scenario)
        task = _task(place, work, message, context)
        task = replace(
            task,
            payload={**task.payload, **payload_of(message.content, understood_instructions(place.scenario.client))},
            memory=_recall_state(context, work),
        )
        trained = place.executor.train([task])[0]
        outcome = trained.outcome
        _remember(context, work, outcome.memory)
        content = RecordDict(
            {
                ARRAYS: record_of(outcome.sent),
                "metrics": MetricRecord({"num-examples": len(task.rows), "train_loss": trained.loss}),
                TRACE: ConfigRecord({"client": task.client, **metrics_of(trained)}),
            }
        )
        if work.watched:
            content[MEMORY] = record_of(task.memory)
            if outcome.kept is not outcome.sent:
                content[KEPT] = record_of(outcome.kept)
        return content

    return _answer(message, answer)


@client_app.evaluate()
def _evaluate(message: Message, context: Context) -> Message:
    """Loss and accuracy of the model on the client's own rows, for strategies that ask."""

    def answer(work: Assignment) -> RecordDict:
        place = _client_process(work.scenario)
        return evaluate(place.federation, _task(place, work, message, context))

    return _answer(message, answer)


def _task(place: _ClientProcess, work: Assignment, message: Message, context: Context) -> Task:
    before = params_of(model_in(message.content), place.federation.initial)
    return place.work.task(work.run, work.round, int(context.node_config[PARTITION]), before)


def _answer(message: Message, answer: Callable[[Assignment], RecordDict]) -> Message:
    """The answer, or why there is none. An exit is caught as well: it would take the worker of everybody else along."""
    work = Assignment.of(message.content)
    try:
        with _end_process_after(work.seconds), _threads(work):
            return Message(answer(work), reply_to=message)
    except NOT_OURS:
        raise
    except BaseException as error:
        return Message(Error(FAILED, describe(error, _active_components(work), "its work")), reply_to=message)


def _active_components(work: Assignment) -> Sequence[tuple[str, object]]:
    """The parts that may have been at work; the scenario itself may be what fails."""
    try:
        place = _client_process(work.scenario)
    except Exception:
        return (("client", ""),)
    return (("model", place.federation.model), ("client", place.scenario.client))


@contextmanager
def _end_process_after(seconds: float) -> Iterator[None]:
    """Ends this process if the work takes longer, whatever it hangs in, since Flower would wait for ever."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def _threads(work: Assignment) -> Iterator[None]:
    """As many threads as the scenario says, since sums depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(_client_process(work.scenario).scenario.speed.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- memory: by run and round, since the server may not accept the last one -------------------------------------------


def _recall_state(context: Context, work: Assignment) -> Params:
    """The client state after the last participation that the server accepted."""
    if not work.remembers:
        return {}
    name = _name(work.run, work.remembers)
    if name not in context.state:
        raise RuntimeError(f"this node has lost what it remembered of round {work.remembers}")
    record = context.state[name]
    assert isinstance(record, ArrayRecord)
    return params_of(record)


def _remember(context: Context, work: Assignment, memory: Params) -> None:
    """Keep this turn's memory together with the accepted one, and drop the others of the run."""
    names_to_keep = {_name(work.run, work.remembers), _name(work.run, work.round)}
    for name in [name for name in context.state if name.startswith(_name(work.run)) and name not in names_to_keep]:
        del context.state[name]
    context.state[_name(work.run, work.round)] = record_of(memory)


def _name(run: int, round_number: int | str = "") -> str:
    return f"memory of run {run}, round {round_number}"
