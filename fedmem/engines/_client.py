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

from fedmem.contracts.federation import Federation, digest
from fedmem.contracts.types import Params
from fedmem.engines._letters import (
    ARRAYS,
    FAILED,
    KEPT,
    MEMORY,
    Assignment,
    evaluated,
    followed,
    model_in,
    offered,
    record_of,
    told,
)
from fedmem.federation import build as federations
from fedmem.guards.guarding import NOT_OURS, describe
from fedmem.observation.flower_round import TRACE
from fedmem.observation.observed import params_of
from fedmem.privacy.mechanisms import adds_noise
from fedmem.scenario.loading import parse_scenario
from fedmem.training.defended_updates import Outgoing
from fedmem.training.executor import Settings
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import LocalWork, Task

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

PARTITION = "partition-id"
"""What Flower's runtime calls the number of a node's data, in the configuration of the node."""

client_app = ClientApp()
"""Answers `query` (which client is this, and what federation has it built), `train` and `evaluate`."""


@dataclass(frozen=True, kw_only=True)
class _Workplace:
    """What a process needs for the work of any client of a scenario."""

    scenario: Scenario
    federation: Federation
    digest: str
    work: LocalWork
    executor: OneByOne


@lru_cache(maxsize=1)
def _workplace(text: str) -> _Workplace:
    """Built once in a process; a scenario of its own each time would cost more than the training."""
    scenario = parse_scenario(text)
    federation = federations.build(scenario)
    return _Workplace(
        scenario=scenario,
        federation=federation,
        digest=digest(federation),
        work=LocalWork(federation, scenario.client, scenario.seed),
        executor=OneByOne(
            federation.model,
            scenario.client,
            federation.store,
            Settings(
                outgoing=Outgoing(scenario.defences, scenario.seed, guaranteed=adds_noise(scenario.strategy)),
                seed=scenario.seed,
            ),
        ),
    )


@client_app.query()
def _query(message: Message, context: Context) -> Message:
    """Who is this?"""

    def answer(work: Assignment) -> RecordDict:
        identity = {"client": int(context.node_config[PARTITION])} if PARTITION in context.node_config else {}
        return RecordDict({TRACE: ConfigRecord({**identity, "digest": _workplace(work.scenario).digest})})

    return _answered(message, answer)


@client_app.train()
def _train(message: Message, context: Context) -> Message:
    """One client's turn."""

    def answer(work: Assignment) -> RecordDict:
        place = _workplace(work.scenario)
        task = _task(place, work, message, context)
        task = replace(
            task,
            offer={**task.offer, **offered(message.content, followed(place.scenario.client))},
            memory=_recalled(context, work),
        )
        trained = place.executor.train([task])[0]
        outcome = trained.outcome
        _remember(context, work, outcome.memory)
        content = RecordDict(
            {
                ARRAYS: record_of(outcome.sent),
                "metrics": MetricRecord({"num-examples": len(task.rows), "train_loss": trained.loss}),
                TRACE: ConfigRecord({"client": task.client, **told(trained)}),
            }
        )
        if work.watched:
            content[MEMORY] = record_of(task.memory)
            if outcome.kept is not outcome.sent:
                content[KEPT] = record_of(outcome.kept)
        return content

    return _answered(message, answer)


@client_app.evaluate()
def _evaluate(message: Message, context: Context) -> Message:
    """Loss and accuracy of the model on the client's own rows, for strategies that ask."""

    def answer(work: Assignment) -> RecordDict:
        place = _workplace(work.scenario)
        return evaluated(place.federation, _task(place, work, message, context))

    return _answered(message, answer)


def _task(place: _Workplace, work: Assignment, message: Message, context: Context) -> Task:
    before = params_of(model_in(message.content), place.federation.initial)
    return place.work.task(work.run, work.round, int(context.node_config[PARTITION]), before)


def _answered(message: Message, answer: Callable[[Assignment], RecordDict]) -> Message:
    """The answer, or why there is none. An exit is caught as well: it would take the worker of everybody else along."""
    work = Assignment.of(message.content)
    try:
        with _bounded(work.seconds), _threads(work):
            return Message(answer(work), reply_to=message)
    except NOT_OURS:
        raise
    except BaseException as error:
        return Message(Error(FAILED, describe(error, _parts(work), "its work")), reply_to=message)


def _parts(work: Assignment) -> Sequence[tuple[str, object]]:
    """The parts that may have been at work; the scenario itself may be what fails."""
    try:
        place = _workplace(work.scenario)
    except Exception:
        return (("client", ""),)
    return (("model", place.federation.model), ("client", place.scenario.client))


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
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
    torch.set_num_threads(_workplace(work.scenario).scenario.speed.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- memory: by run and round, since the server may not accept the last one -------------------------------------------


def _recalled(context: Context, work: Assignment) -> Params:
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
    """Keep this turn's memory beside the accepted one, and let go of the others of the run."""
    names_to_keep = {_name(work.run, work.remembers), _name(work.run, work.round)}
    for name in [name for name in context.state if name.startswith(_name(work.run)) and name not in names_to_keep]:
        del context.state[name]
    context.state[_name(work.run, work.round)] = record_of(memory)


def _name(run: int, round: int | str = "") -> str:
    return f"memory of run {run}, round {round}"
