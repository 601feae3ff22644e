"""The message path: each run is a coroutine that executes its strategy's own `start`, with Flower's messages.

It is the reference, and the path of every strategy that has no rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Error, Message, MessageType, RecordDict

from fedmem.contracts.arrays import Params
from fedmem.engines._cohort_work import CohortWork, TrainingParts, reports
from fedmem.engines._flower import local_reply, reply_to
from fedmem.engines._messages import FAILED, check_instructions, evaluate, model_in, payload_of, understood_instructions
from fedmem.engines._scheduler import Send, Waiting, in_step, one_run
from fedmem.errors import RunError
from fedmem.federation.roster import Roster, client_at
from fedmem.guards.guarding import Guard
from fedmem.observation.observed import params_of
from fedmem.training.client_work import TrainedWork, pick, stack


class MessagePath:
    """Trains runs by the messages of their strategies; the clients of all runs are trained as one batch."""

    def __init__(self, parts: TrainingParts, rosters: Mapping[int, Roster], cohorts: CohortWork) -> None:
        self._parts = parts
        self._rosters = rosters
        self._cohorts = cohorts
        self._follows = understood_instructions(parts.scenario.client)
        self._kept_models: dict[tuple[int, int], Params] = {}

    def train(self, runs: Sequence[int]) -> list[Params]:
        """The last global model of each run."""
        return in_step(runs, self._one_run, self._answer, self._parts.on_round, self._parts.scenario.rounds)

    def _one_run(self, run: int, send: Send) -> Params:
        """The body of a coroutine: the strategy's own loop over rounds."""
        params, failed = one_run(
            self._parts.scenario,
            self._parts.federation,
            run,
            self._rosters[run],
            self._parts.watchers,
            lambda client: self._kept_models.pop((run, client)),
            send,
        )
        self._cohorts.participation += failed
        return params

    def _answer(self, requests: Mapping[int, Waiting]) -> dict[int, list[Message]]:
        """Replies to everything that waits: training of all runs as one batch, evaluation in passing."""
        replies: dict[int, list[Message]] = {run: [None] * len(wait.messages) for run, wait in requests.items()}  # type: ignore[list-item]
        batches: dict[tuple[int, tuple[str, ...]], list[_Order]] = {}
        for run, wait in requests.items():
            round_number = wait.round
            read: dict[int, _Order] = {}
            models: dict[int, Params] = {}
            for place, message in enumerate(wait.messages):
                # a strategy gives many clients the same content, and most give all of them the same model
                if id(message.content) not in read:
                    read[id(message.content)] = self._read(run, round_number, message, models)
                content = read[id(message.content)]
                order = _Order(run, place, message, content.before, content.payload)
                if message.metadata.message_type == MessageType.TRAIN:
                    batches.setdefault((round_number, tuple(sorted(order.payload))), []).append(order)
                else:
                    federation = self._parts.federation
                    task = self._parts.work.task(run, round_number, order.client, order.before)
                    with Guard("model", federation.model, "forward", round=round_number, run=run, client=order.client):
                        replies[run][place] = reply_to(message, evaluate(federation, task))
        for (round_number, _), orders in batches.items():
            for order, reply in zip(orders, self._train_replies(round_number, orders), strict=True):
                replies[order.run][order.place] = reply
        return replies

    def _read(self, run: int, round_number: int, message: Message, models: dict[int, Params]) -> _Order:
        """Read the request of a message; `models` are those that are already decoded."""
        kind = message.metadata.message_type
        if kind not in (MessageType.TRAIN, MessageType.EVALUATE):
            raise RunError(
                f"round {round_number}: the strategy sent a message of type {kind!r}; clients answer `train` and "
                f"`evaluate`."
            )
        if kind == MessageType.TRAIN:
            check_instructions(self._parts.scenario.client, round_number, message.content)
        record = model_in(message.content)
        if id(record) not in models:
            models[id(record)] = params_of(record, self._parts.federation.initial)
        return _Order(run, 0, message, models[id(record)], payload_of(message.content, self._follows))

    def _train_replies(self, round_number: int, orders: list[_Order]) -> list[Message]:
        """The replies to train messages of one round."""
        models = {id(order.before): order.before for order in orders}
        places = {key: place for place, key in enumerate(models)}
        done, failed = self._cohorts.train(
            self._cohorts.work_of(
                round_number,
                np.array([order.run for order in orders]),
                np.array([order.client for order in orders]),
                stack(list(models.values())),
                np.array([places[id(order.before)] for order in orders]),
                stack([order.payload for order in orders]),
            )
        )
        if done is not None and self._cohorts.is_watched(round_number):
            trained = zip(done.work.run.tolist(), done.work.client.tolist(), strict=True)
            self._kept_models.update({place: pick(done.kept, i) for i, place in enumerate(trained)})
        answers = iter(self._contents(done) if done is not None else ())
        return [
            Message(Error(FAILED, failed[i]), reply_to=order.message)
            if i in failed
            else reply_to(order.message, next(answers))
            for i, order in enumerate(orders)
        ]

    def _contents(self, done: TrainedWork) -> Iterator[RecordDict]:
        """The content of each client's reply."""
        sizes, metrics = done.work.sizes.tolist(), {name: values.tolist() for name, values in reports(done).items()}
        arrays = {name: value.numpy() for name, value in done.sent.items()}
        for i, client in enumerate(done.work.client.tolist()):
            report = {name: values[i] for name, values in metrics.items()}
            yield local_reply(
                {name: value[i] for name, value in arrays.items()},
                # some strategies weigh by the loss, which Flower's examples call train_loss
                {"num-examples": sizes[i], "train_loss": report["loss"]},
                {"client": client, **report},
            )


@dataclass(frozen=True)
class _Order:
    """A message to a client, with the model in it."""

    run: int
    place: int
    message: Message
    before: Params
    payload: Params

    @property
    def client(self) -> int:
        return client_at(self.message.metadata.dst_node_id)
