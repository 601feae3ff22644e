"""The default engine: all runs of a bank in one process, in step, their clients trained as one batch.

Each run is a coroutine that executes its strategy's own `start`. Where Flower would send messages and wait, the
coroutine hands them to the scheduler here, which trains whatever is waiting at once and then resumes the runs in
order. No threads, no clock: the same scenario gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict
from greenlet import GreenletExit, getcurrent, greenlet
from torch.func import functional_call
from torch.nn import functional as F

from fedmem.components import History
from fedmem.engines._flower import FIRST_NODE, LocalGrid, in_process, local_record
from fedmem.errors import RunError
from fedmem.joining import Lost
from fedmem.observe import TRACE, Observed, Watcher, params_of, too_many_failed
from fedmem.seeding import stream
from fedmem.training import Executor, LocalWork, OneByOne, Task, Trained, stack
from fedmem.types import EVERYWHERE, Federation, Params, Participation, Transition
from strategies._rule import OFFER, Round, reports

if TYPE_CHECKING:
    from fedmem.scenario import Scenario

CLIENT_FAILED = 1
"""Flower's error code of a reply from a client that raised."""

ROUND_KEY = "server-round"
"""What every Flower strategy writes into the configuration of a message; it asks for nothing."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What is left when all runs have ended: their last global models, who took part when, and who was dropped."""

    params: tuple[Params, ...]
    participation: tuple[Participation, ...]
    lost: Lost


class Lockstep:
    """Trains the runs of a bank. `watcher` sees every transition that it wants, run by run."""

    def __init__(
        self,
        scenario: Scenario,
        federation: Federation,
        executor: Executor,
        work: LocalWork,
        watcher: Watcher | None,
        on_round: Callable[[int], None] = lambda round: None,
    ) -> None:
        self._scenario = scenario
        self._federation = federation
        self._executor = executor
        self._work = work
        self._watchers = () if watcher is None else (watcher,)
        self._follows: Mapping[str, str] = getattr(scenario.client, "follows", {})
        self._on_round = on_round
        self._participation: list[Participation] = []
        self._lost: dict[tuple[int, int], str] = {}
        self._rosters: dict[int, Roster] = {}
        self._memory: dict[tuple[int, int], Params] = {}
        self._kept: dict[tuple[int, int], Params] = {}

    def train(self, runs: Sequence[int], server: str = "messages", lost: Lost = MappingProxyType({})) -> Finished:
        """Train these runs from the first round to the last, by Flower's messages or by the strategy's rule.

        What is `lost` failed in a run that is not among these, and is dropped here without a try.
        """
        self._lost = dict(lost)
        self._rosters = {run: Roster(self._scenario, self._federation, run) for run in runs}
        with in_process():
            params = self._by_messages(runs) if server == "messages" else self._by_rule(runs)
        ordered = sorted(self._participation, key=lambda part: (part.run, part.round, part.client))
        return Finished(params=tuple(params), participation=tuple(ordered), lost=self._lost)

    # --- Flower's messages: the reference, and the path of every foreign strategy ---------------------------------

    def _by_messages(self, runs: Sequence[int]) -> list[Params]:
        coroutines = {run: greenlet(self._one_run) for run in runs}
        waiting: dict[int, _Waiting] = {}
        finished: dict[int, Params] = {}

        def advance(run: int, value: object) -> None:
            result = coroutines[run].switch(value)
            if isinstance(result, _Waiting):
                waiting[run] = result
            else:
                finished[run] = result

        try:
            for run in runs:
                advance(run, run)
            while waiting:
                asked, waiting = waiting, {}
                replies = self._answer(asked)
                for run in asked:
                    advance(run, replies[run])
                self._on_round(min((w.observed.round for w in waiting.values()), default=self._scenario.rounds + 1) - 1)
        finally:
            for coroutine in coroutines.values():
                if not coroutine.dead:
                    coroutine.throw(GreenletExit)
        return [finished[run] for run in runs]

    def _one_run(self, run: int) -> Params:
        """The body of a coroutine: the strategy's own loop over rounds."""
        scheduler = getcurrent().parent
        assert scheduler is not None
        scenario = self._scenario
        roster = self._rosters[run]
        strategy = scenario.strategy.make(len(roster.cohort(1)))
        observed = Observed(
            strategy,
            *self._watchers,
            roster=roster,
            tolerate=scenario.tolerate.failed,
            enforce=scenario.cohort == "sampler",
            seed=scenario.seed,
            run=run,
            same_cohorts=scenario.roster == "shared",
            kept=lambda client: self._kept.pop((run, client)),
        )
        grid = LocalGrid(self._federation.num_clients, lambda messages: scheduler.switch(_Waiting(observed, messages)))
        if hasattr(strategy, "introduce"):
            strategy.introduce(list(grid.get_node_ids()))
        initial = self._federation.initial_of(run)
        result = observed.start(grid, local_record(initial), num_rounds=scenario.rounds)
        if observed.round < scenario.rounds:
            raise RunError(
                f"run {run}: strategy {type(observed.strategy).__name__} stopped after round {observed.round} of "
                f"{scenario.rounds}. Lower rounds to {observed.round}, or use a strategy that goes on to the end."
            )
        for round, clients in observed.failed.items():
            self._participation += [
                Participation(run=run, round=round, client=client, num_examples=0, failed=True) for client in clients
            ]
        return params_of(result.arrays, initial) if result.arrays else initial

    def _answer(self, asked: dict[int, _Waiting]) -> dict[int, list[Message]]:
        """Replies to everything that waits: training as one batch, evaluation in passing."""
        tasks: list[Task] = []
        sources: list[Message] = []
        for run, wait in asked.items():
            decoded: dict[int, Params] = {}
            for message in wait.messages:
                record = next(record for name, record in message.content.array_records.items() if name != OFFER)
                if id(record) not in decoded:
                    decoded[id(record)] = params_of(record, self._federation.initial)
                client = message.metadata.dst_node_id - FIRST_NODE
                tasks.append(
                    self._task(run, wait.observed.round, client, decoded[id(record)], _offered(message, self._follows))
                )
                sources.append(message)
        training = [i for i, m in enumerate(sources) if m.metadata.message_type == MessageType.TRAIN]
        for i in training:
            self._check_instructions(tasks[i], sources[i])
        trained = dict(zip(training, self._train([tasks[i] for i in training]), strict=True))
        replies: dict[int, list[Message]] = {run: [] for run in asked}
        for i, (task, message) in enumerate(zip(tasks, sources, strict=True)):
            if i in trained:
                reply = self._reply(trained[i], task, message)
            elif message.metadata.message_type == MessageType.EVALUATE:
                reply = Message(self._evaluate(task), reply_to=message)
            else:
                raise RunError(
                    f"round {task.round}: the strategy sent a message of type "
                    f"{message.metadata.message_type!r}; clients answer `train` and `evaluate`."
                )
            replies[task.run].append(reply)
        return replies

    def _task(self, run: int, round: int, client: int, before: Params, offer: Params) -> Task:
        """The work of one client, with what the strategy offers it and what it remembers."""
        return replace(
            self._work.task(run, round, client, before),
            offer={**offer, "round": torch.tensor(float(round))},
            memory=self._memory.get((run, client), {}),
        )

    def _keep(self, tasks: list[Task]) -> None:
        """Let watchers ask again for what clients were given, once the round is complete."""
        for task in tasks:
            if any(watcher.wants(task.round) for watcher in self._watchers):
                self._work.keep(task)

    def _check_instructions(self, task: Task, message: Message) -> None:
        """A strategy may instruct its clients; an instruction that nobody follows would make it another strategy."""
        asked = {key for config in message.content.config_records.values() for key in config} - {ROUND_KEY}
        unheard = sorted(asked - set(self._follows))
        if unheard:
            name = type(self._scenario.client).__name__
            raise RunError(
                f"round {task.round}: the strategy instructs its clients by {unheard[0]!r}, which the client algorithm "
                f"{name} does not follow, so that it would not be the strategy it is named after. Use a client "
                "algorithm that lists it in `follows`, or another strategy."
            )

    def _train(self, tasks: list[Task]) -> list[Trained | str]:
        """The outcome of each task, or the cause of its failure.

        With a roster that all runs share, a client that fails in one run is dropped in all of them: otherwise who took
        part would differ between runs, perhaps because of a coin.
        """
        going = [task for task in tasks if (task.round, task.client) not in self._lost]
        self._keep(going)
        outcomes = dict(zip(map(id, going), self._each(going), strict=True))
        if self._scenario.roster == "shared":
            for task in going:
                if isinstance(outcome := outcomes[id(task)], str):
                    self._lost.setdefault((task.round, task.client), f"{outcome} (in run {task.run})")
        return [self._lost.get((task.round, task.client)) or outcomes[id(task)] for task in tasks]

    def _each(self, tasks: list[Task]) -> list[Trained | str]:
        """Train as one batch; if that fails, find out which client it is that fails alone."""
        if not isinstance(self._executor, OneByOne):
            try:
                return list(self._executor.train(tasks))
            except Exception:
                reference = OneByOne(self._federation.model, self._scenario.client, self._federation.store)
                outcomes = [_attempt(reference, task) for task in tasks]
                if not any(isinstance(outcome, str) for outcome in outcomes):
                    raise  # the stack is at fault, no client
                return outcomes
        return [_attempt(self._executor, task) for task in tasks]

    def _reply(self, outcome: Trained | str, task: Task, message: Message) -> Message:
        if isinstance(outcome, str):
            return Message(Error(CLIENT_FAILED, outcome), reply_to=message)
        self._record(outcome)
        content = RecordDict(
            {
                "arrays": local_record(outcome.outcome.sent),
                # some strategies weigh by the loss, which Flower's examples call train_loss
                "metrics": MetricRecord({"num-examples": len(task.rows), "train_loss": outcome.loss}),
                TRACE: ConfigRecord({"client": task.client, **_report(outcome)}),
            }
        )
        return Message(content, reply_to=message)

    def _evaluate(self, task: Task) -> RecordDict:
        """Loss and accuracy of the model on the client's own rows, for strategies that ask."""
        store = self._federation.store
        with torch.no_grad():
            inputs, targets = torch.from_numpy(store.inputs[task.rows]), torch.from_numpy(store.targets[task.rows])
            logits = functional_call(self._federation.model, task.before, (inputs,))
            loss = float(F.cross_entropy(logits, targets))
            accuracy = float((logits.argmax(dim=1) == targets).double().mean())
        metrics = MetricRecord({"num-examples": len(task.rows), "loss": loss, "accuracy": accuracy})
        return RecordDict({"metrics": metrics})

    def _record(self, outcome: Trained) -> None:
        task = outcome.task
        self._memory[task.run, task.client] = outcome.outcome.memory
        if any(watcher.wants(task.round) for watcher in self._watchers):
            self._kept[task.run, task.client] = outcome.outcome.kept
        self._rosters[task.run].trained(outcome)
        self._participation.append(
            Participation(run=task.run, round=task.round, client=task.client, num_examples=len(task.rows), failed=False)
        )

    # --- the strategy's rule on all runs at once -------------------------------------------------------------------

    def _by_rule(self, runs: Sequence[int]) -> list[Params]:
        """The same rounds without messages: transitions, cohorts, batches and results are the same."""
        strategy: Any = self._scenario.strategy
        before = stack([self._federation.initial_of(run) for run in runs])
        state = strategy.state(before, self._federation.num_clients)
        starts = {run: self._federation.initial_of(run) for run in runs}
        self._show(0, [self._transition(run, 0, EVERYWHERE, like, like, 0) for run, like in starts.items()])
        for round in range(1, self._scenario.rounds + 1):
            cohorts = [list(self._rosters[run].cohort(round)) for run in runs]
            models = [{name: value[i] for name, value in before.items()} for i in range(len(runs))]
            offer = strategy.offer(state, _places(cohorts))
            tasks = [
                self._task(run, round, client, models[i], {name: value[i, k] for name, value in offer.items()})
                for i, run in enumerate(runs)
                for k, client in enumerate(cohorts[i])
            ]
            results = iter(zip(tasks, self._train(tasks), strict=True))
            trained: list[list[Trained]] = []
            for run, asked in zip(runs, cohorts, strict=True):
                answers = [next(results) for _ in asked]
                self._check_failures(run, answers)
                trained.append([answer for _, answer in answers if not isinstance(answer, str)])
            cohorts = [[outcome.task.client for outcome in group] for group in trained]
            for outcome in (outcome for group in trained for outcome in group):
                self._record(outcome)
            self._show(
                round,
                [
                    self._transition(
                        run,
                        round,
                        o.task.client,
                        model,
                        o.outcome.sent,
                        len(o.task.rows),
                        _report(o),
                        kept=o.outcome.kept,
                    )
                    for run, model, group in zip(runs, models, trained, strict=True)
                    for o in group
                ],
            )
            # an empty cohort never reaches the strategy: such a run keeps its model and its state
            if tasks:
                after, moved = strategy.rule(state, _stacked_round(round, before, trained, cohorts))
                anybody = torch.tensor([len(cohort) > 0 for cohort in cohorts])
                before = {name: _where(anybody, after[name].to(value.dtype), value) for name, value in before.items()}
                state = {name: _where(anybody, moved[name], value) for name, value in state.items()}
            self._show(
                round,
                [
                    self._transition(
                        run,
                        round,
                        EVERYWHERE,
                        models[i],
                        {name: value[i] for name, value in before.items()},
                        sum(len(o.task.rows) for o in trained[i]),
                        clients=tuple(cohorts[i]),
                    )
                    for i, run in enumerate(runs)
                ],
            )
            self._on_round(round)
        return [{name: value[i] for name, value in before.items()} for i in range(len(runs))]

    def _check_failures(self, run: int, answers: Sequence[tuple[Task, Trained | str]]) -> None:
        """What `Observed` does for messages: failures are recorded, and tolerated up to the scenario's share."""
        lost = [(task, answer) for task, answer in answers if isinstance(answer, str)]
        for task, _ in lost:
            self._participation.append(
                Participation(run=run, round=task.round, client=task.client, num_examples=0, failed=True)
            )
        if len(lost) > self._scenario.tolerate.failed * len(answers):
            task, cause = lost[0]
            raise RunError(too_many_failed(task.round, len(lost), len(answers), task.client, cause))

    def _show(self, round: int, transitions: list[Transition]) -> None:
        for watcher in self._watchers:
            if watcher.wants(round):
                watcher.see(transitions)

    @staticmethod
    def _transition(
        run: int,
        round: int,
        client: int,
        before: Params,
        after: Params,
        num_examples: int,
        report: dict[str, float] | None = None,
        clients: tuple[int, ...] = (),
        kept: Params | None = None,
    ) -> Transition:
        return Transition(
            run=run,
            round=round,
            level="global" if client == EVERYWHERE else "local",
            client=client,
            before=before,
            sent=after,
            kept=after if kept is None else kept,
            num_examples=num_examples,
            clients=clients,
            report=report or {},
        )


@dataclass(frozen=True)
class _Waiting:
    """What a coroutine hands to the scheduler."""

    observed: Observed
    messages: list[Message]


class Roster:
    """The cohorts of one run. With `roster: shared` they are drawn without looking at the run, hence at its coins."""

    def __init__(self, scenario: Scenario, federation: Federation, run: int) -> None:
        self._scenario = scenario
        self._run = run if scenario.roster == "own" else None
        audit, clients = federation.audit, federation.num_clients
        slots, atypical = (
            np.bincount(audit.holder[counted], weights=audit.copies[counted], minlength=clients).astype(np.int64)
            for counted in (audit.holder >= 0, (audit.holder >= 0) & (audit.role == "atypical"))
        )
        self._history = History.start(
            np.array([len(rows) for rows in federation.base]) + slots,
            atypical,
            stream(scenario.seed, "roster order", run=self._run).permutation(clients),
        )
        self._cohorts: list[tuple[int, ...]] = []
        self._there = None if audit.client_in is None else audit.client_in[run]

    def cohort(self, round: int) -> tuple[int, ...]:
        """Sorted clients of this round. Rounds are drawn in order and once each, because samplers may look back."""
        while len(self._cohorts) < round:
            number = len(self._cohorts) + 1
            rng = stream(self._scenario.seed, "roster", run=self._run, round=number)
            picked = self._scenario.sampler.cohort(number, self._history, rng)
            last_round = self._history.last_round.copy()
            last_round[picked] = number
            self._history = replace(self._history, last_round=last_round)
            if self._there is not None:
                # The place of a client that the run leaves out stays empty; nobody moves up.
                picked = picked[self._there[picked]]
            self._cohorts.append(tuple(int(client) for client in picked))
        return self._cohorts[round - 1]

    def trained(self, outcome: Trained) -> None:
        """What a client's work shows: it depends on coins, so only a roster of the run's own may learn it."""
        if self._run is None:
            return
        task = outcome.task
        moved = [outcome.outcome.sent[name].double() - value.double() for name, value in task.before.items()]
        loss, norm = self._history.last_loss.copy(), self._history.last_norm.copy()
        loss[task.client] = outcome.loss
        norm[task.client] = float(torch.stack([part.square().sum() for part in moved]).sum().sqrt())
        self._history = replace(self._history, last_loss=loss, last_norm=norm)

    def node(self, client: int) -> int:
        """Where the grid knows the client."""
        return FIRST_NODE + client


def _attempt(executor: Executor, task: Task) -> Trained | str:
    """One client alone: its outcome, or why it failed."""
    try:
        return executor.train([task])[0]
    except Exception as error:  # the client's own code: whether the run may go on is decided elsewhere
        return f"{type(error).__name__}: {error}"


def _where(runs: torch.Tensor, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    return torch.where(runs.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)


def _report(outcome: Trained) -> dict[str, float]:
    """The scalars that a client says about its work; a client without rows has no loss to tell."""
    told = {name: float(value) for name, value in outcome.outcome.report.items()}
    return told | {"steps": float(len(outcome.task.batches)), "loss": outcome.loss}


def _offered(message: Message, follows: Mapping[str, str]) -> Params:
    """What a message gives its client beside the model; stock strategies of Flower write theirs into a config."""
    record = message.content.array_records.get(OFFER)
    offer = {} if record is None else params_of(record)
    for config in message.content.config_records.values():
        offer |= {
            follows[key]: torch.tensor(value, dtype=torch.float64) for key, value in config.items() if key in follows
        }
    return offer


def _places(cohorts: list[list[int]]) -> torch.Tensor:
    """The cohorts as (runs, places), -1 where a cohort is shorter than the longest; at least one place."""
    places = max(1, max(len(cohort) for cohort in cohorts))
    return torch.tensor([cohort + [-1] * (places - len(cohort)) for cohort in cohorts])


def _stacked_round(number: int, before: Params, trained: list[list[Trained]], cohorts: list[list[int]]) -> Round:
    """The arrays of a rule: runs with smaller cohorts are padded with places where nobody is present."""
    clients = _places(cohorts)
    places = clients.shape[1]
    return Round(
        number=number,
        before=before,
        sent={
            name: torch.stack(
                [
                    torch.stack([group[k].outcome.sent[name] if k < len(group) else value[i] for k in range(places)])
                    for i, group in enumerate(trained)
                ]
            )
            for name, value in before.items()
        },
        weights=torch.tensor(
            [[float(len(g[k].task.rows)) if k < len(g) else 0.0 for k in range(places)] for g in trained],
            dtype=torch.float64,
        ),
        present=clients >= 0,
        clients=clients,
        report=reports([[_report(outcome) for outcome in group] for group in trained]),
    )
