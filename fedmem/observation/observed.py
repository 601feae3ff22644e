"""Watching a Flower strategy without being noticed: the transitions of every round, and nothing else.

The demands of a bank on a strategy stand in `engines/directed.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedmem.contracts.arrays import Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.watcher import Watcher, watcher_declaration
from fedmem.errors import RunError
from fedmem.observation.client_identity import Identities
from fedmem.observation.flower_round import PARTITION, TRACE, FirstError, _Reply

T = TypeVar("T")


def params_of(record: ArrayRecord, like: Params | None = None) -> Params:
    """The arrays of a record as tensors of their own, cast to the dtypes of `like`: some strategies widen them."""
    params = {name: torch.from_numpy(np.array(array.numpy())) for name, array in record.items()}
    if like is None:
        return params
    odd = sorted(set(params) ^ set(like)) or [name for name in like if params[name].shape != like[name].shape]
    if odd:
        raise RunError(
            f"a model came back whose parameter {odd[0]!r} is missing, unknown or of another shape than was sent. "
            "A strategy and its clients must return the arrays that they were given."
        )
    return {name: params[name].to(value.dtype) for name, value in like.items()}


class Observed:
    """Any Flower `Strategy`, watched.

    Shadows `configure_train` and `aggregate_train` on this one instance and calls the strategy's own `start`, so that
    strategies that override `start` are watched as well. Guarantees:

    - with or without watchers the strategy sees the same messages in the same order and returns the same model;
    - replies reach the strategy sorted by client, so that sums do not depend on the order of arrival;
    - local models are copied before the strategy runs, since some strategies empty their replies;
    - with `on_error="warn"`, an error of a watcher ends the watching and not the training.

    Args:
        strategy: The strategy to run.
        watchers: The watchers that are shown the transitions. They may declare what
            `contracts.watcher.WatcherDeclaration` lists.
        run: The number of this run, written into every transition.
        kept: Client -> the model that it holds after its work, where that differs from what it sent.
        client_of: Node id -> number of the client of a scenario; for the engines of fedmem.
        clients: Node id -> client, a number or a name, where clients of an app cannot identify themselves.
        client_key: The entry of a client's metrics, or of a `ConfigRecord` in its reply, that says which client it is.

    A client is identified by its entry in `clients`. Otherwise it is identified by what it returns as `client_key`, by
    default its `partition-id`. Otherwise it is identified by the id of its node, which Flower draws again in each run.

    Errors: `ValueError` for a mapping that gives two nodes one client, or that lacks a client which a watcher names.
    `RunError` during training for two nodes that are one client, and for clients of which only some identify
    themselves. `RunError` also where none of the clients that a watcher names is a client of the app.

    In a Flower app of one's own::

        # in the ClientApp: metrics = {"num-examples": n, "partition-id": context.node_config["partition-id"]}
        watch = Watch(model=Net(), examples={"canaries": canaries}, member_of={"canaries": 0})
        strategy = Observed(FedAvg(), watch)
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=3)

    >>> from flwr.serverapp.strategy import FedAvg
    >>> Observed(FedAvg()).strategy.__class__.__name__
    'FedAvg'
    """

    def __init__(
        self,
        strategy: Strategy,
        *watchers: Watcher,
        run: int = 0,
        kept: Callable[[int], Params] | None = None,
        client_of: Callable[[int], int] | None = None,
        clients: Mapping[int, int | str] | None = None,
        client_key: str = PARTITION,
    ) -> None:
        self.strategy = strategy
        self.watchers = watchers
        self._declared = [watcher_declaration(watcher) for watcher in watchers]
        self.round = 0
        self._run = run
        self._kept_by = kept
        self._client_of = client_of
        self._identities = Identities(clients, client_key)
        self._connected: Callable[[], Iterable[int]] = tuple
        self._check_named_clients()
        self._errors = FirstError()
        self._before = ArrayRecord()
        self._like: Params = {}
        self._ended: list[Watcher] = []

    def _check_named_clients(self) -> None:
        names = self._identities.names
        for declared in self._declared:
            unknown = [name for name in declared.named_clients if names is not None and name not in names]
            if unknown:
                raise ValueError(
                    f"member_of names the client {unknown[0]!r}, and clients has only {', '.join(names or ())}; "
                    "use the same names in both"
                )

    def start(self, grid: Grid, initial_arrays: ArrayRecord, num_rounds: int = 3, **others: Any) -> Result:
        """The strategy's own `start`, watched; same arguments, same result."""
        strategy: Any = self.strategy
        configure, aggregate = strategy.configure_train, strategy.aggregate_train
        self._like = params_of(initial_arrays)
        self._connected = grid.get_node_ids
        for watcher, declared in zip(self.watchers, self._declared, strict=True):
            if declared.begin is not None:
                self._guard_watchers([watcher], partial(declared.begin, self._like))
        self._show(
            0, lambda: [Transition.at_server(run=self._run, round_number=0, before=self._like, after=self._like)]
        )

        def configure_train(
            server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
        ) -> Iterable[Message]:
            with self._errors.note_error():
                self.round, self._before = server_round, arrays
                return list(configure(server_round, arrays, config, grid))

        def aggregate_train(
            server_round: int, replies: Iterable[Message]
        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
            with self._errors.note_error():
                return self._aggregate(aggregate, server_round, replies)

        strategy.configure_train, strategy.aggregate_train = configure_train, aggregate_train
        try:
            result = strategy.start(grid=grid, initial_arrays=initial_arrays, num_rounds=num_rounds, **others)
            self._errors.raise_first()
            return result  # type: ignore[no-any-return]
        finally:
            del strategy.configure_train, strategy.aggregate_train

    def _aggregate(
        self,
        original: Callable[..., tuple[ArrayRecord | None, MetricRecord | None]],
        round_number: int,
        replies: Iterable[Message],
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        answers = sorted(map(self._reply_of, replies), key=lambda reply: reply.rank)
        successes = [reply for reply in answers if not reply.message.has_error()]
        self._show(round_number, lambda: self._local_transitions(round_number, successes))
        self._check_owners(round_number)
        for reply in successes:
            reply.message.content.pop(TRACE, None)
        arrays, metrics = original(round_number, [reply.message for reply in answers])
        self._show(round_number, lambda: [self._global(round_number, successes, arrays)])
        return arrays, metrics

    def _check_owners(self, round_number: int) -> None:
        """Tell each watcher at once if none of the clients that it names can be found in this app."""
        for watcher, declared in zip(self.watchers, self._declared, strict=True):
            if watcher not in self._ended:
                connected = frozenset(self._connected()) if declared.named_clients else frozenset()
                self._guard_watchers(
                    [watcher], partial(self._identities.check_named, round_number, declared.named_clients, connected)
                )

    def _reply_of(self, message: Message) -> _Reply:
        """A reply with its client; a client with a name has the id of its node as its number."""
        if self._client_of is not None:
            return _Reply.of(message, self._client_of(int(message.metadata.src_node_id)))
        identity = self._identities.of(message)
        return _Reply.of(message, identity.node if isinstance(identity.value, str) else identity.value, identity)

    def _local_transitions(self, round_number: int, replies: Sequence[_Reply]) -> list[Transition]:
        identities = [reply.identity for reply in replies if reply.identity is not None]
        if identities:
            self._identities.check(round_number, identities, frozenset(self._connected()))
        before = params_of(self._before, self._like)
        transitions = []
        for reply in replies:
            sent = params_of(next(iter(reply.message.content.array_records.values())), self._like)
            transition = Transition.at_client(
                run=self._run,
                round_number=round_number,
                client=reply.client,
                before=before,
                sent=sent,
                kept=sent if self._kept_by is None else self._kept_by(reply.client),
                num_examples=reply.num_examples,
                report=reply.report,
            )
            transitions.append(replace(transition, identity=reply.identity))
        return transitions

    def _global(self, round_number: int, replies: Sequence[_Reply], after: ArrayRecord | None) -> Transition:
        before = params_of(self._before, self._like)
        return Transition.at_server(
            run=self._run,
            round_number=round_number,
            before=before,
            after=before if after is None else params_of(after, self._like),
            sizes={reply.client: reply.num_examples for reply in replies},
        )

    def _show(self, round_number: int, transitions: Callable[[], list[Transition]]) -> None:
        """Build the transitions only where a watcher wants them."""
        wanting = [
            watcher for watcher in self.watchers if watcher not in self._ended and watcher.observes_round(round_number)
        ]
        if wanting:
            built_transitions = self._guard_watchers(wanting, transitions)
            if built_transitions is not None:
                for watcher in wanting:
                    self._guard_watchers([watcher], partial(watcher.see, built_transitions))

    def _guard_watchers(self, watchers: Sequence[Watcher], look: Callable[[], T]) -> T | None:
        """Return the result of `look`. Where it fails and all these watchers only warn, warn and return None."""
        try:
            return look()
        except Exception as error:
            if not all(watcher_declaration(each).on_error == "warn" for each in watchers):
                raise
            self._ended += watchers
            names = ", ".join(type(watcher).__name__ for watcher in watchers)
            warnings.warn(
                f"round {self.round}: {names} stops watching, and training goes on: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
