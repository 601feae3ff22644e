"""The default engine: all runs of a bank in one process, in step, their clients trained as one batch.

Each run is a coroutine that executes its strategy's own `start`. Where Flower would send messages and wait, the
coroutine hands them to the scheduler here, which trains whatever is waiting at once and then resumes the runs in
order. No threads, no clock: the same scenario gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from flwr.app import Error, Message, MessageType, RecordDict

from fedmem.contracts.evidence import Lost, Participation, Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import EVERYWHERE
from fedmem.contracts.sampler import Picked, Pilot
from fedmem.contracts.strategy import strategy_declaration
from fedmem.contracts.types import FloatArray, IntArray, Params
from fedmem.contracts.validation import a_kind
from fedmem.contracts.validation_of_measures import by_run
from fedmem.engines._flower import in_process, local_reply, reply_to
from fedmem.engines._in_step import Send, Waiting, in_step, one_run
from fedmem.engines._letters import FAILED, check_instructions, evaluated, followed, model_in, offered
from fedmem.engines.directed import rule_generator, too_many_failed
from fedmem.errors import RunError
from fedmem.federation.roster import Roster, client_at, rosters
from fedmem.guards.guarding import Guard, with_trace
from fedmem.observation.observed import Watcher, params_of
from fedmem.privacy.amplification import canaries_of
from fedmem.training.client_work import Done, LocalWork, Work, pick, stack
from fedmem.training.executor import Executor
from fedmem.training.finite import finite_models, not_finite
from strategies._rule import Round, wrong_models

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


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
        pilot: Pilot | None = None,
    ) -> None:
        self._scenario = scenario
        self._federation = federation
        self._executor = executor
        self._work = work
        self._watchers = () if watcher is None else (watcher,)
        self._on_round = on_round
        self._pilot = pilot
        self._follows = followed(scenario.client)
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
        self._rosters = rosters(self._scenario, self._federation, runs, self._pilot)
        with in_process():
            params = self._by_messages(runs) if server == "messages" else self._by_rule(runs)
        ordered = sorted(self._participation, key=lambda part: (part.run, part.round, part.client))
        return Finished(params=tuple(params), participation=tuple(ordered), lost=self._lost)

    def picked(self, run: int, round: int) -> Picked:
        """Who was picked for a round of a run that was trained."""
        return self._rosters[run].picked(round)

    # --- Flower's messages: the reference, and the path of every foreign strategy ---------------------------------

    def _by_messages(self, runs: Sequence[int]) -> list[Params]:
        return in_step(runs, self._one_run, self._answer, self._on_round, self._scenario.rounds)

    def _one_run(self, run: int, send: Send) -> Params:
        """The body of a coroutine: the strategy's own loop over rounds."""
        params, failed = one_run(
            self._scenario,
            self._federation,
            run,
            self._rosters[run],
            self._watchers,
            lambda client: self._kept.pop((run, client)),
            send,
        )
        self._participation += failed
        return params

    def _answer(self, asked: Mapping[int, Waiting]) -> dict[int, list[Message]]:
        """Replies to everything that waits: training of all runs as one batch, evaluation in passing."""
        replies: dict[int, list[Message]] = {run: [None] * len(wait.messages) for run, wait in asked.items()}  # type: ignore[list-item]
        batches: dict[tuple[int, tuple[str, ...]], list[_Order]] = {}
        for run, wait in asked.items():
            round = wait.round
            read: dict[int, _Order] = {}
            models: dict[int, Params] = {}
            for place, message in enumerate(wait.messages):
                # a strategy gives many clients the same content, and most give all of them the same model
                if id(message.content) not in read:
                    read[id(message.content)] = self._read(run, round, message, models)
                known = read[id(message.content)]
                order = _Order(run, place, message, known.before, known.offer)
                if message.metadata.message_type == MessageType.TRAIN:
                    batches.setdefault((round, tuple(sorted(order.offer))), []).append(order)
                else:
                    task = self._work.task(run, round, order.client, order.before)
                    with Guard("model", self._federation.model, "forward", round=round, run=run, client=order.client):
                        replies[run][place] = reply_to(message, evaluated(self._federation, task))
        for (round, _), orders in batches.items():
            for order, reply in zip(orders, self._trained(round, orders), strict=True):
                replies[order.run][order.place] = reply
        return replies

    def _read(self, run: int, round: int, message: Message, models: dict[int, Params]) -> _Order:
        """What a message asks for; `models` are those that are decoded already."""
        kind = message.metadata.message_type
        if kind not in (MessageType.TRAIN, MessageType.EVALUATE):
            raise RunError(
                f"round {round}: the strategy sent a message of type {kind!r}; clients answer `train` and `evaluate`."
            )
        if kind == MessageType.TRAIN:
            check_instructions(self._scenario.client, round, message.content)
        record = model_in(message.content)
        if id(record) not in models:
            models[id(record)] = params_of(record, self._federation.initial)
        return _Order(run, 0, message, models[id(record)], offered(message.content, self._follows))

    def _trained(self, round: int, orders: list[_Order]) -> list[Message]:
        """The replies to train messages of one round."""
        models = {id(order.before): order.before for order in orders}
        places = {key: place for place, key in enumerate(models)}
        done, failed = self._train(
            self._work_of(
                round,
                np.array([order.run for order in orders]),
                np.array([order.client for order in orders]),
                stack(list(models.values())),
                np.array([places[id(order.before)] for order in orders]),
                stack([order.offer for order in orders]),
            )
        )
        if done is not None and self._wanted(round):
            trained = zip(done.work.run.tolist(), done.work.client.tolist(), strict=True)
            self._kept.update({place: pick(done.kept, i) for i, place in enumerate(trained)})
        answers = iter(self._contents(done) if done is not None else ())
        return [
            Message(Error(FAILED, failed[i]), reply_to=order.message)
            if i in failed
            else reply_to(order.message, next(answers))
            for i, order in enumerate(orders)
        ]

    def _contents(self, done: Done) -> Iterator[RecordDict]:
        """What each client replies."""
        sizes, told = done.work.sizes.tolist(), {name: values.tolist() for name, values in _reports(done).items()}
        arrays = {name: value.numpy() for name, value in done.sent.items()}
        for i, client in enumerate(done.work.client.tolist()):
            report = {name: values[i] for name, values in told.items()}
            yield local_reply(
                {name: value[i] for name, value in arrays.items()},
                # some strategies weigh by the loss, which Flower's examples call train_loss
                {"num-examples": sizes[i], "train_loss": report["loss"]},
                {"client": client, **report},
            )

    def _work_of(
        self, round: int, run: IntArray, client: IntArray, models: Params, model: IntArray, offer: Params
    ) -> Work:
        """The work of these clients, with what the strategy offers them and what they remember."""
        memory: tuple[Params, ...] = ()
        if self._memory:
            places = zip(run.tolist(), client.tolist(), strict=True)
            memory = tuple(self._memory.get(place, {}) for place in places)
        return self._work.of(round, run, client, models, model, offer, memory)

    def _wanted(self, round: int) -> bool:
        return any(watcher.wants(round) for watcher in self._watchers)

    def _train(self, work: Work) -> tuple[Done | None, dict[int, str]]:
        """What came of those clients that did not fail, and why the others did, by their place in the work.

        With a roster that all runs share, a client that fails in one run is dropped in all of them: otherwise who took
        part would differ between runs, perhaps because of a coin.
        """
        if self._wanted(work.round):
            self._work.keep(work)
        with Guard("client", self._scenario.client, "its work", round=work.round):
            return self._attempt(work)

    def _attempt(self, work: Work) -> tuple[Done | None, dict[int, str]]:
        """See `_train`."""
        failed = self._known(work)
        going = np.array([i for i in range(len(work)) if i not in failed], dtype=np.int64)
        done = None
        if len(going):
            done, met = self._executor.attempt_all(work.take(going) if failed else work)
            left = [i for i in range(len(going)) if i not in met]
            if done is not None and not self._scenario.tolerate.not_finite:
                lost = np.flatnonzero(~done.finite()).tolist()
                met |= {left[i]: str(not_finite(pick(done.sent, i))) for i in lost}
            failed |= {int(going[i]): cause for i, cause in met.items()}
            if met and self._scenario.roster != "own":
                for i in sorted(met):
                    place = work.round, int(work.client[going[i]])
                    self._lost.setdefault(place, f"{met[i]} (in run {work.run[going[i]]})")
                failed |= self._known(work)
            if done is not None:
                good = [place for place, i in enumerate(left) if int(going[i]) not in failed]
                if len(good) < len(done):
                    done = done.take(np.array(good, dtype=np.int64)) if good else None
        if done is not None:
            done = self._record(done)
        return done, failed

    def _known(self, work: Work) -> dict[int, str]:
        """The places of clients that are known to fail in this round."""
        if not self._lost:
            return {}
        places = enumerate(work.client.tolist())
        return {i: self._lost[work.round, client] for i, client in places if (work.round, client) in self._lost}

    def _record(self, done: Done) -> Done:
        """Take note of work that is done; the same, with what is known of how its clients were picked."""
        work = done.work
        places = list(zip(work.run.tolist(), work.client.tolist(), strict=True))
        chances = [self._rosters[run].picked(work.round).chance(client) for run, client in places]
        if done.memory:
            # copies, since a view would keep what all clients of the round remember
            own = ({name: value.clone() for name, value in pick(done.memory, i).items()} for i in range(len(done)))
            self._memory.update(zip(places, own, strict=True))
        if self._scenario.roster == "own":
            for i, (run, client) in enumerate(places):
                self._rosters[run].trained(client, work.before(i), pick(done.sent, i), float(done.loss[i]))
        self._participation += [
            Participation(
                run=run,
                round=work.round,
                client=client,
                num_examples=size,
                failed=False,
                probability=chance,
            )
            for (run, client), size, chance in zip(places, work.sizes.tolist(), chances, strict=True)
        ]
        known = [chance for chance in chances if chance is not None]
        if len(known) < len(chances):
            return done
        return replace(done, report={**done.report, "probability": torch.tensor(known, dtype=torch.float64)})

    # --- the strategy's rule on all runs at once -------------------------------------------------------------------

    def _by_rule(self, runs: Sequence[int]) -> list[Params]:
        """The same rounds without messages: transitions, cohorts, batches and results are the same."""
        strategy: Any = self._scenario.strategy
        declared = strategy_declaration(strategy)
        before = stack([self._federation.initial_of(run) for run in runs])
        with Guard("strategy", strategy, "state") as guard:
            state = by_run(guard, "it", strategy.state(before, self._federation.num_clients), (len(runs),))
        canaries = canaries_of(self._scenario)
        self._show(0, partial(self._at_servers, runs, 0, before, before, None))
        for round in range(1, self._scenario.rounds + 1):
            cohorts = [self._rosters[run].cohort(round) for run in runs]
            clients = _places(cohorts)
            with Guard("strategy", strategy, "offer", round=round) as guard:
                offer = by_run(guard, "it", strategy.offer(state, clients), tuple(clients.shape))
            run, place = (clients >= 0).nonzero(as_tuple=True)
            done: Done | None = None
            if len(run):
                work = self._work_of(
                    round,
                    np.array(runs)[run.numpy()],
                    clients[run, place].numpy(),
                    before,
                    run.numpy(),
                    {name: value[run, place] for name, value in offer.items()},
                )
                done, failed = self._train(work)
                self._check_failures(work, failed)
            self._show(round, partial(self._at_clients, done))
            after = before
            # an empty cohort never reaches most strategies: such a run keeps its model and its state
            if len(run) or declared.noisy:
                drawn = partial(self._drawn, runs, round)
                guests = None if canaries is None else partial(canaries.updates, runs, round)
                given = _stacked_round(round, before, done, clients, runs, drawn)
                after, later = self._moved(strategy, state, replace(given, guests=guests), runs)
                anybody = (clients >= 0).any(dim=1)
                if not anybody.all() and not declared.noisy:
                    after = {name: _where(anybody, after[name], value) for name, value in before.items()}
                    later = {name: _where(anybody, later[name], value) for name, value in state.items()}
                state = later
            self._show(round, partial(self._at_servers, runs, round, before, after, done))
            before = after
            self._on_round(round)
        return [pick(before, i) for i in range(len(runs))]

    def _moved(self, strategy: Any, state: Params, given: Round, runs: Sequence[int]) -> tuple[Params, Params]:
        """The next models and the next state, by the strategy's rule."""
        with Guard("strategy", strategy, "rule", round=given.number) as guard:
            result = strategy.rule(state, given)
            if not isinstance(result, tuple) or len(result) != 2:
                guard.wrong(f"it returned {a_kind(result)}, should be the next models and the next state")
            moved, later = result[0], by_run(guard, "the state", result[1], (len(runs),))
            for text in wrong_models(moved, given.before):
                guard.wrong(text)
        after = {name: moved[name].to(value.dtype) for name, value in given.before.items()}
        if not self._scenario.tolerate.not_finite:
            for i in (~finite_models(after)).nonzero().flatten().tolist():
                with Guard("strategy", strategy, "rule", round=given.number, run=runs[i]) as guard:
                    guard.wrong(str(not_finite(pick(after, i))))
        return after, later

    def _drawn(self, runs: Sequence[int], round: int) -> tuple[np.random.Generator, ...]:
        """What the rule draws from in each run."""
        return tuple(rule_generator(self._scenario.seed, run, round) for run in runs)

    def _check_failures(self, work: Work, failed: Mapping[int, str]) -> None:
        """What `Observed` does for messages: failures are recorded, and tolerated up to the scenario's share."""
        for run in np.unique(work.run[list(failed)]).tolist() if failed else ():
            lost = [i for i in sorted(failed) if work.run[i] == run]
            clients = work.client[lost].tolist()
            self._participation += [
                Participation(
                    run=run,
                    round=work.round,
                    client=client,
                    num_examples=0,
                    failed=True,
                    probability=self._rosters[run].picked(work.round).chance(client),
                )
                for client in clients
            ]
            asked = int(np.count_nonzero(work.run == run))
            if len(lost) > self._scenario.tolerate.failed * asked:
                cause = failed[lost[0]]
                raise with_trace(RunError(too_many_failed(work.round, len(lost), asked, clients[0], cause)), cause)

    def _show(self, round: int, transitions: Callable[[], list[Transition]]) -> None:
        """Build the transitions only where somebody wants them."""
        if self._wanted(round):
            seen = transitions()
            for watcher in self._watchers:
                if watcher.wants(round):
                    watcher.see(seen)

    @staticmethod
    def _at_clients(done: Done | None) -> list[Transition]:
        """The local transitions of a round."""
        if done is None:
            return []
        work, told, sizes = done.work, _reports(done), done.work.sizes.tolist()
        return [
            Transition(
                run=int(work.run[i]),
                round=work.round,
                level="local",
                client=int(work.client[i]),
                before=work.before(i),
                sent=outcome.sent,
                kept=outcome.kept,
                num_examples=sizes[i],
                report={name: float(values[i]) for name, values in told.items()},
            )
            for i, outcome in enumerate(done.outcomes())
        ]

    @staticmethod
    def _at_servers(
        runs: Sequence[int], round: int, before: Params, after: Params, done: Done | None
    ) -> list[Transition]:
        """The global transitions of a round, one for each run."""
        transitions = []
        for i, run in enumerate(runs):
            own = np.flatnonzero(done.work.run == run) if done is not None else np.empty(0, dtype=np.int64)
            model = pick(after, i)
            transitions.append(
                Transition(
                    run=run,
                    round=round,
                    level="global",
                    client=EVERYWHERE,
                    before=pick(before, i),
                    sent=model,
                    kept=model,
                    num_examples=int(done.work.sizes[own].sum()) if done is not None else 0,
                    clients=tuple(done.work.client[own].tolist()) if done is not None else (),
                )
            )
        return transitions


@dataclass(frozen=True)
class _Order:
    """A message to a client, with the model in it."""

    run: int
    place: int
    message: Message
    before: Params
    offer: Params

    @property
    def client(self) -> int:
        return client_at(self.message.metadata.dst_node_id)


def _where(runs: torch.Tensor, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    return torch.where(runs.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)


def _reports(done: Done) -> dict[str, FloatArray]:
    """The scalars that clients say about their work, by name (T,); one without rows has no loss to tell."""
    told = {name: value.double().numpy() for name, value in done.report.items()}
    return {**told, "steps": done.work.steps.astype(np.float64), "loss": done.loss}


def _places(cohorts: Sequence[Sequence[int]]) -> torch.Tensor:
    """The cohorts as (runs, places), -1 where a cohort is shorter than the longest; at least one place."""
    places = max(1, max(len(cohort) for cohort in cohorts))
    return torch.tensor([[*cohort, *[-1] * (places - len(cohort))] for cohort in cohorts])


def _stacked_round(
    number: int,
    before: Params,
    done: Done | None,
    clients: torch.Tensor,
    runs: Sequence[int],
    generators: Callable[[], tuple[np.random.Generator, ...]],
) -> Round:
    """The arrays of a rule: runs with smaller cohorts are padded with places where nobody is present."""
    if done is None:
        sent = {name: value[:, None] for name, value in before.items()}
        nobody = torch.full((len(runs), 1), -1)
        weights = torch.zeros((len(runs), 1), dtype=torch.float64)
        return Round(
            number=number,
            before=before,
            sent=sent,
            weights=weights,
            present=nobody >= 0,
            clients=nobody,
            generators=generators,
        )
    placed = _Placed(done.work, clients, runs)
    silent = torch.tensor(torch.nan, dtype=torch.float64)
    return Round(
        number=number,
        before=before,
        sent={name: placed(done.sent[name], value[:, None]) for name, value in before.items()},
        weights=placed(torch.from_numpy(done.work.sizes).double(), silent.new_zeros(())),
        present=placed.clients >= 0,
        clients=placed.clients,
        report={name: placed(torch.from_numpy(values), silent) for name, values in _reports(done).items()},
        generators=generators,
    )


class _Placed:
    """(T, ...) -> (R, K, ...): work is in the order of runs, so that where all places are taken it is a view."""

    def __init__(self, work: Work, clients: torch.Tensor, runs: Sequence[int]) -> None:
        self.clients = clients
        self._full = len(work) == clients.numel()
        if not self._full:
            run = np.searchsorted(np.array(runs), work.run)
            counts = np.bincount(run, minlength=len(runs))
            starts = np.cumsum(counts) - counts
            self._at = torch.from_numpy(run), torch.from_numpy(np.arange(len(work)) - starts[run])
            self.clients = torch.full((len(runs), int(counts.max())), -1)
            self.clients[self._at] = torch.from_numpy(work.client)

    def __call__(self, values: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
        shape = (*self.clients.shape, *values.shape[1:])
        if self._full:
            return values.reshape(shape)
        whole = empty.expand(shape).clone()
        whole[self._at] = values
        return whole
