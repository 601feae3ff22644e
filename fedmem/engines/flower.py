"""The engine `flower`: the same scenario on Flower's own simulation runtime, its clients in worker processes of Ray.

The strategies, `Observed` and the clients' step functions are those of `lockstep`. Only the way between them differs.
The server runs every federation of the bank, in step. Its messages go through Flower's grid to a `ClientApp`
(`engines/_client.py`), whose processes may be on one machine or on a Ray cluster. `fedmem.apps.flower_app` makes an app
of both, for `flwr run .`.

- One start of the runtime serves all runs. Each of Flower's nodes is one client, by its partition number, and takes
  part in every run. Its memory of a run waits in its context under the number of the run.
- As in lockstep, the messages of all runs are answered together. Where runs share a roster, a client that fails in one
  run can therefore be dropped in all of them. Nothing has to be kept until the last run is through.
- A node is sent its next message when it has answered the last one. Flower hands a node's context to a worker and takes
  it back as a whole. Of two messages at once, the second would undo what the first remembered.
- Equal to lockstep with `executor: one_by_one` to the last bit, on one thread and one kind of machine.
- The work of a worker process that died is tried once more, since the death may be an accident of the machine.
- A client fails if it raises, sends a model that is not finite, or takes longer than `speed.seconds_per_client` (at
  most `CLIENT_SECONDS`). It also fails if it dies with its process both times. Failures are tolerated or not as in
  lockstep.
- Under `flwr run` Ray is Flower's, which neither starts a dead worker again nor tries again. More clients fail than had
  to, but none silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedmem.contracts.arrays import Params
from fedmem.contracts.client import Outcome
from fedmem.contracts.evidence import Lost, Participation
from fedmem.contracts.federation import Federation
from fedmem.contracts.sampler import Pilot
from fedmem.contracts.watcher import Watcher
from fedmem.engines._client import client_app
from fedmem.engines._cohort_work import Finished, finish_training
from fedmem.engines._failures import Failures
from fedmem.engines._flower import in_process, local_record
from fedmem.engines._messages import (
    ARRAYS,
    FAILED,
    KEPT,
    MEMORY,
    WORK,
    Assignment,
    check_instructions,
    model_in,
    payload_of,
    record_of,
    understood_instructions,
)
from fedmem.engines._scheduler import Send, Waiting, in_step, one_run
from fedmem.engines._simulation import require_ray, simulation
from fedmem.engines._statistics import require_final_variances, require_variances
from fedmem.engines._transport import Transport, cause_of
from fedmem.errors import RunError
from fedmem.federation.roster import Roster, client_at, rosters
from fedmem.observation.flower_round import TRACE
from fedmem.observation.observed import params_of
from fedmem.processes import cores
from fedmem.strategies._rule import PAYLOAD
from fedmem.training.client_work import LocalWork, Task, TrainedClient, Work
from fedmem.training.finite import not_finite

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

CLIENT_SECONDS = 3600.0
"""How long a client may take for a round, before its process is ended: what Flower's strategies wait for a round."""

_joined: ContextVar[Grid | None] = ContextVar("_joined", default=None)


@contextmanager
def use_grid(grid: Grid) -> Iterator[None]:
    """Within it the engine uses this grid, of a Flower app that is running, instead of starting a runtime."""
    token = _joined.set(grid)
    try:
        yield
    finally:
        _joined.reset(token)


class FlowerRuntime:
    """Trains the runs of a bank on Flower's runtime. `watcher` sees every transition that it wants, run by run.

    Errors: `ComponentError` where Ray is not installed. `RunError` where Ray does not start or its cluster does not
    answer, and where the runtime ends unasked or stops answering. `RunError` also for everything that ends a run in
    lockstep.
    """

    def __init__(
        self,
        scenario: Scenario,
        federation: Federation,
        work: LocalWork,
        watcher: Watcher | None,
        on_round: Callable[[int], None] = lambda round_number: None,
        pilot: Pilot | None = None,
    ) -> None:
        if _joined.get() is None:
            require_ray()
        self._scenario = scenario
        self._federation = federation
        self._work = work
        self._watchers = () if watcher is None else (watcher,)
        self._on_round = on_round
        self._pilot = pilot
        self._text = scenario.to_yaml()
        self._participation: list[Participation] = []
        self._failures = Failures(shared=False)
        self._rosters: dict[int, Roster] = {}
        self._remembers: dict[tuple[int, int], int] = {}
        self._kept_models: dict[tuple[int, int], Params] = {}

    def train(self, runs: Sequence[int], server: str = "messages", lost: Lost = MappingProxyType({})) -> Finished:
        """Train these runs from the first round to the last; there is no other way than by messages.

        A client in `lost` failed in a run that is not among these, and is dropped here without a try.
        """
        assert server == "messages", "the scenario admits nothing else with this engine"
        self._failures = Failures(self._scenario.roster != "per_run", lost)
        self._rosters = rosters(self._scenario, self._federation, runs, self._pilot)
        grid = _joined.get()
        if grid is not None:
            params = self._serve(runs, grid, lambda: None)
        else:
            with in_process(), self._runtime(len(runs)) as (grid, check):
                params = self._serve(runs, grid, check)
        require_final_variances(params, self._federation.mode, self._scenario.rounds)
        return finish_training(params, self._participation, self._failures.lost)

    def _serve(self, runs: Sequence[int], grid: Grid, check: Callable[[], None]) -> list[Params]:
        """Serve a grid: do the handshake with its clients, then start the strategies of all runs."""
        transport = Transport(grid, check)
        transport.handshake(self._federation, self._assignment())
        answer = partial(self._answer, transport)
        return in_step(runs, self._one_run, answer, self._on_round, self._scenario.rounds)

    @contextmanager
    def _runtime(self, runs: int) -> Iterator[tuple[Grid, Callable[[], None]]]:
        """The runtime, with no more workers than can have something to do."""
        speed, clients = self._scenario.speed, self._federation.num_clients
        workers = max(1, min(cores() // speed.threads, runs * clients)) if speed.workers == "auto" else speed.workers
        with simulation(
            client_app, nodes=clients, workers=workers, threads=speed.threads, address=speed.address
        ) as runtime:
            yield runtime

    def _assignment(self, run: int = 0, round_number: int = 0, client: int = 0) -> Assignment:
        return Assignment(
            scenario=self._text,
            run=run,
            round=round_number,
            remembers=self._remembers.get((run, client), 0),
            watched=any(watcher.observes_round(round_number) for watcher in self._watchers),
            seconds=min(CLIENT_SECONDS, self._scenario.speed.seconds_per_client),
        )

    def _one_run(self, run: int, send: Send) -> Params:
        """The body of a coroutine: the strategy's own loop over rounds."""
        params, failed = one_run(
            self._scenario,
            self._federation,
            run,
            self._rosters[run],
            self._watchers,
            lambda client: self._kept_models.pop((run, client)),
            send,
        )
        self._participation += failed
        return params

    def _answer(self, transport: Transport, waiting: Mapping[int, Waiting]) -> dict[int, list[Message]]:
        """Replies to everything that waits, from the clients' processes."""
        requests = [request for run, wait in waiting.items() for request in self._requests(run, wait)]
        sent = [request for request in requests if self._cause_of(request) is None]
        answers = transport.exchange([(request.client, request.content, request.kind) for request in sent])
        outcomes = self._without_dropped(
            requests,
            {id(request): self._outcome(request, answer) for request, answer in zip(sent, answers, strict=True)},
        )
        replies: dict[int, list[Message]] = {run: [] for run in waiting}
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, str):
                reply = Message(Error(FAILED, outcome), reply_to=request.message)
            else:
                content = self._accept_outcome(request, outcome) if isinstance(outcome, TrainedClient) else outcome
                reply = Message(content, reply_to=request.message)
            replies[request.work.run].append(reply)
        return replies

    def _requests(self, run: int, wait: Waiting) -> Iterator[_Request]:
        """The strategy's messages in the form in which they leave this process."""
        round_number = wait.round
        models: dict[int, tuple[Params, ArrayRecord]] = {}
        for message in wait.messages:
            kind = message.metadata.message_type
            if kind not in (MessageType.TRAIN, MessageType.EVALUATE):
                raise RunError(
                    f"round {round_number}: the strategy sent a message of type {kind!r}; clients answer `train` and "
                    "`evaluate`."
                )
            if kind == MessageType.TRAIN:
                check_instructions(self._scenario.client, round_number, message.content)
            # the strategy gives the same record to all its clients
            model = model_in(message.content)
            if id(model) not in models:
                before = params_of(model, self._federation.initial)
                require_variances(before, self._federation.mode, round_number - 1)
                models[id(model)] = (before, record_of(before))
            before, record = models[id(model)]
            client = client_at(message.metadata.dst_node_id)
            work = self._assignment(run, round_number, client)
            content = RecordDict({ARRAYS: record, **message.content.config_records, WORK: work.record()})
            if PAYLOAD in message.content:
                content[PAYLOAD] = message.content[PAYLOAD]
            yield _Request(message=message, client=client, kind=kind, before=before, work=work, content=content)

    def _outcome(self, request: _Request, answer: Message) -> TrainedClient | str | RecordDict:
        """The outcome of a request: a client's work, the cause of its failure, or the metrics of an evaluation."""
        if request.kind == MessageType.EVALUATE:
            if answer.has_error():
                raise RunError(
                    f"round {request.work.round}: client {request.client} failed to evaluate: {cause_of(answer.error)}"
                )
            return answer.content
        if answer.has_error():
            return cause_of(answer.error)
        sent = params_of(answer.content.array_records[ARRAYS], request.before)
        if not self._scenario.tolerate.not_finite:
            cause = not_finite(sent)
            if cause is not None:
                return cause
        report = {name: float(value) for name, value in answer.content[TRACE].items() if name != "client"}  # type: ignore[arg-type]
        records = answer.content.array_records
        kept_params = params_of(records[KEPT]) if KEPT in records else sent
        return TrainedClient(
            task=self._task(request, records.get(MEMORY)),
            outcome=Outcome(sent=sent, kept=kept_params, report=_tensors(report)),
            loss=report["loss"],
        )

    def _task(self, request: _Request, memory: ArrayRecord | None) -> Task:
        """The client's task, as its process was given it."""
        work = request.work
        task = self._work.task(work.run, work.round, request.client, request.before)
        return replace(
            task,
            payload={
                **task.payload,
                **payload_of(request.message.content, understood_instructions(self._scenario.client)),
            },
            memory={} if memory is None else params_of(memory),
        )

    def _cause_of(self, request: _Request) -> str | None:
        """Why the client of a letter is dropped, None where it is not."""
        if request.kind != MessageType.TRAIN:
            return None
        return self._failures.causes_in(request.work.round, [request.client]).get(0)

    def _without_dropped(
        self, requests: Sequence[_Request], outcomes: Mapping[int, TrainedClient | str | RecordDict]
    ) -> list[TrainedClient | str | RecordDict]:
        """The outcomes of all requests, after the failures among them are noted."""
        for request in requests:
            outcome = outcomes.get(id(request))
            if isinstance(outcome, str):
                work = request.work
                self._failures.add(round_number=work.round, run=work.run, client=request.client, cause=outcome)
        causes = [self._cause_of(request) for request in requests]
        return [
            outcomes[id(request)] if cause is None else cause for request, cause in zip(requests, causes, strict=True)
        ]

    def _accept_outcome(self, request: _Request, outcome: TrainedClient) -> RecordDict:
        """Take note of a client's work, and make of it what the strategy is given."""
        task, work = outcome.task, request.work
        self._remembers[work.run, request.client] = work.round
        if work.watched:
            self._kept_models[work.run, request.client] = outcome.outcome.kept
            self._work.keep(Work.of([task]))
        self._rosters[work.run].learn(request.client, task.before, outcome.outcome.sent, outcome.loss)
        rows = len(task.rows)
        part = self._rosters[work.run].participation(work.round, request.client, rows)
        self._participation.append(part)
        report = {name: float(value) for name, value in outcome.outcome.report.items()}
        report |= {} if part.probability is None else {"probability": part.probability}
        return RecordDict(
            {
                "arrays": local_record(outcome.outcome.sent),
                # some strategies weigh by the loss, which Flower's examples call train_loss
                "metrics": MetricRecord({"num-examples": rows, "train_loss": outcome.loss}),
                TRACE: ConfigRecord({"client": request.client, **report}),
            }
        )


@dataclass(frozen=True, kw_only=True)
class _Request:
    """A message of a strategy, and what of it goes to the client's process."""

    message: Message
    client: int
    kind: str
    before: Params
    work: Assignment
    content: RecordDict


def _tensors(report: Mapping[str, float]) -> Params:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in report.items()}
