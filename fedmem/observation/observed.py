"""Watching a Flower strategy without being noticed: cohort, order of replies, and the transitions of every round."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, Protocol, TypeVar, cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.result import Result

from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import EVERYWHERE
from fedmem.contracts.types import Params
from fedmem.contracts.validation import a_kind
from fedmem.errors import FedmemError, RunError
from fedmem.guards.guarding import Guard, with_trace
from fedmem.observation.flower_round import TRACE, _CohortGrid, _Reply
from fedmem.privacy.canary_clients import CanaryClients
from fedmem.seeding import Streams, stream

T = TypeVar("T")


def too_many_failed(round: int, failed: int, asked: int, first: int, cause: str) -> str:
    """The message of a run that ends because more clients failed than it tolerates."""
    return (
        f"round {round}: {failed} of {asked} clients failed, first client {first}: {cause}. "
        "Set tolerate.failed to the share of a cohort that may fail."
    )


def not_finite(params: Params) -> str | None:
    """Why a model that a client sent is no use to a strategy, None where it is: one NaN would make the aggregate NaN.

    >>> not_finite({"w": torch.tensor([1.0, 2.0])}) is None
    True
    >>> not_finite({"w": torch.tensor([1.0, float("inf")])})
    "its model is not finite: 1 of 2 values of 'w' are NaN or infinite"
    """
    for name, value in params.items():
        wrong = int((~torch.isfinite(value)).sum())
        if wrong:
            return f"its model is not finite: {wrong} of {value.numel()} values of {name!r} are NaN or infinite"
    return None


def drawn_by_rule(seed: int, run: int, round: int) -> np.random.Generator:
    """What the rule of a strategy draws from in one round of one run, such as the noise of a private sum."""
    return stream(seed, "strategy rule", run=run, round=round)


_DEPTH: list[int] = []
_BEFORE: list[Any] = []


@contextmanager
def _generators_put_back() -> Iterator[None]:
    """The global generators are afterwards as they were, once the last of the strategies that run in step has ended."""
    if not _DEPTH:
        _BEFORE[:] = [random.getstate(), np.random.get_state()]  # noqa: NPY002
    _DEPTH.append(1)
    try:
        yield
    finally:
        _DEPTH.pop()
        if not _DEPTH:
            random.setstate(_BEFORE[0])
            np.random.set_state(_BEFORE[1])  # noqa: NPY002


OnError = Literal["raise", "warn"]
"""What becomes of an error of a watcher: it ends the training, or it is a warning and ends the watching alone."""


def checked_on_error(value: str) -> OnError:
    """The same value. Errors: `ValueError` if it is neither `raise` nor `warn`.

    >>> checked_on_error("warn")
    'warn'
    """
    if value in ("raise", "warn"):
        return cast(OnError, value)
    raise ValueError(f"on_error must be 'raise' or 'warn', got {value!r}")


class Watcher(Protocol):
    """Sees the transitions of the rounds it wants: local ones before aggregation, the global one after it.

    A watcher may have a method `begin(initial)`, which is given the initial parameters before round 1, and an attribute
    `on_error`: where that is `warn`, an error of the watcher is a warning, and nothing more is shown to it.
    """

    def wants(self, round: int) -> bool: ...

    def see(self, transitions: Sequence[Transition]) -> None: ...


class Roster(Protocol):
    """Who takes part: the cohort of a round as sorted clients, and the node of each."""

    def cohort(self, round: int) -> Sequence[int]: ...

    def node(self, client: int) -> int: ...


def params_of(record: ArrayRecord, like: Params | None = None) -> Params:
    """The arrays of a record as tensors of their own, cast to the dtypes of `like`: some strategies widen them."""
    params = {name: torch.from_numpy(np.array(array.numpy())) for name, array in record.items()}
    if like is None:
        return params
    odd = sorted(set(params) ^ set(like)) or [name for name in like if params[name].shape != like[name].shape]
    if odd:
        raise RunError(
            f"a model came back whose parameter {odd[0]!r} is missing, unknown or of another shape than it was sent; "
            "a strategy and its clients have to return the arrays that they were given."
        )
    return {name: params[name].to(value.dtype) for name, value in like.items()}


class Observed:
    """Any Flower `Strategy`, watched.

    Shadows `configure_train` and `aggregate_train` on this one instance and calls the strategy's own `start`, so that
    strategies that override `start` are watched as well. Guarantees:

    - with or without watchers the strategy sees the same messages in the same order and returns the same model;
    - replies reach the strategy sorted by client, so that sums do not depend on who answered first;
    - local models are copied before the strategy runs, since some strategies empty their replies;
    - with a `roster` the strategy is shown only the nodes of the round's cohort and has to train all of them;
    - an empty cohort never reaches the strategy: the model is kept and the round is recorded; but one that is `noisy`
      (strategies/_rule.py) is asked for the model after it;
    - failed clients beyond `tolerate` (a share of the cohort) end the run with round, client and cause;
    - with a `seed`, the global random generators are seeded for each server step, and put back in the end.

    Args:
        strategy: the strategy to run.
        watchers: who is shown the transitions.
        roster: decides the cohort; without one, the strategy samples as it always does.
        tolerate: largest share of a cohort that may fail; None leaves failures to the strategy, as Flower does.
        enforce: whether a strategy that trains others than the roster's cohort is an error.
        seed: of the global generators during a server step; None leaves them alone.
        run: the number of this run, written into every transition.
        same_cohorts: whether a strategy that samples by itself draws alike in all runs of one seed.
        kept: client -> the model that it holds after its work, where that is known not to be what it sent.
        canaries: clients of random direction that a private strategy is to count in.
        finite: whether a model that is not finite ends the run, with a roster.

    In a Flower app of one's own::

        watch = Watch(model=Net(), examples={"canaries": canaries})
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
        roster: Roster | None = None,
        tolerate: float | None = None,
        enforce: bool = True,
        seed: int | None = None,
        run: int = 0,
        same_cohorts: bool = True,
        kept: Callable[[int], Params] | None = None,
        canaries: CanaryClients | None = None,
        finite: bool = False,
    ) -> None:
        self.strategy = strategy
        self.watchers = watchers
        self.roster = roster
        self.round = 0
        self.failed: dict[int, tuple[int, ...]] = {}
        self._tolerate = tolerate
        self._enforce = enforce
        self._seed = seed
        self._streams = {purpose: Streams(seed or 0, f"server {purpose}") for purpose in ("configure", "aggregate")}
        self._run = run
        self._same_cohorts = same_cohorts
        self._kept_by = kept
        self._canaries = canaries
        self._finite = finite
        self._error: FedmemError | None = None
        self._before = ArrayRecord()
        self._like: Params = {}
        self._cohort: tuple[int, ...] | None = None
        self._clients: dict[int, int] = {}
        self._ended: list[Watcher] = []

    def start(self, grid: Grid, initial_arrays: ArrayRecord, num_rounds: int = 3, **others: Any) -> Result:
        """The strategy's own `start`, watched; same arguments, same result."""
        strategy: Any = self.strategy
        configure, aggregate = strategy.configure_train, strategy.aggregate_train
        self._like = params_of(initial_arrays)
        for watcher in self.watchers:
            if hasattr(watcher, "begin"):
                self._guarded([watcher], partial(watcher.begin, self._like))
        self._show(0, lambda: [self._global(0, self._like, self._like, 0)])

        def configure_train(
            server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
        ) -> Iterable[Message]:
            with self._remembering():
                return self._configure(configure, server_round, arrays, config, grid)

        def aggregate_train(
            server_round: int, replies: Iterable[Message]
        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
            with self._remembering():
                return self._aggregate(aggregate, server_round, replies)

        strategy.configure_train, strategy.aggregate_train = configure_train, aggregate_train
        # In an app of one's own the strategy's errors are the app's; in a scenario they are one clear message.
        guard = nullcontext() if self.roster is None else self._guard("start")
        try:
            with guard, _generators_put_back() if self._seed is not None else nullcontext():
                result = strategy.start(grid=grid, initial_arrays=initial_arrays, num_rounds=num_rounds, **others)
            if self._error is not None:
                raise self._error  # a strategy may have caught it
            if self.roster is not None and not isinstance(result, Result):
                raise RunError(f"strategy {self._name} returned {type(result).__name__} from start, no flwr Result.")
            return result  # type: ignore[no-any-return]
        finally:
            del strategy.configure_train, strategy.aggregate_train

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        """What is found out about a strategy while it runs ends the run, also where its own code catches it."""
        try:
            yield
        except FedmemError as error:
            self._error = self._error or error
            raise

    def _guard(self, method: str) -> Guard:
        """Around what the strategy does; its rule, if it applies one, is named for it."""
        rule = getattr(self.strategy, "_rule", None)
        others = () if rule is None else (("strategy", rule),)
        return Guard(
            "strategy", self.strategy, method, others=others, where=lambda: {"round": self.round}, run=self._run
        )

    def _configure(
        self,
        original: Callable[..., Iterable[Message]],
        round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> list[Message]:
        self.round = round
        self._before = arrays
        self._cohort = None
        if self.roster is not None:
            self._cohort = tuple(self.roster.cohort(round))
            self._clients = {self.roster.node(client): client for client in self._cohort}
            if not self._cohort:
                return []
            grid = _CohortGrid(grid, list(self._clients), self._name)
        self._seed_generators(round, "configure")
        messages = list(original(round, arrays, config, grid))
        if self.roster is not None and self._enforce:
            self._check_cohort(round, messages)
        return messages

    def _check_cohort(self, round: int, messages: Sequence[Message]) -> None:
        asked = sorted(message.metadata.dst_node_id for message in messages)
        if asked != sorted(self._clients):
            raise RunError(
                f"round {round}: strategy {self._name} trains {len(asked)} clients where the sampler chose "
                f"{len(self._clients)}. Give it fraction_train: 1.0, or say `cohort: strategy` in the scenario to let "
                "the strategy choose among the sampler's cohort."
            )

    def _aggregate(
        self,
        original: Callable[..., tuple[ArrayRecord | None, MetricRecord | None]],
        round: int,
        replies: Iterable[Message],
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        strategy: Any = self.strategy
        if self._seed is not None and hasattr(strategy, "lend"):
            strategy.lend(partial(drawn_by_rule, self._seed, self._run, round))
        if self._canaries is not None:
            strategy.invite(partial(self._canaries.updates, [self._run], round))
        if self._cohort == ():
            list(replies)
            alone = strategy.alone(round, self._before) if getattr(strategy, "noisy", False) else None
            self._show(round, lambda: [self._global(round, params_of(self._before, self._like), alone, 0)])
            return alone, None
        members = sorted((_Reply.of(message, self._clients) for message in replies), key=lambda reply: reply.client)
        good = [reply for reply in members if not reply.message.has_error()]
        self._check_failures(round, members, good)
        self._show(round, lambda: self._local(round, good))
        for reply in good:
            reply.message.content.pop(TRACE, None)
        if hasattr(strategy, "hear"):
            strategy.hear({int(reply.message.metadata.src_node_id): reply.report for reply in good})
        self._seed_generators(round, "aggregate")
        arrays, metrics = original(round, [reply.message for reply in members])
        if arrays is None and good and self.roster is not None:
            raise RunError(
                f"round {round}: strategy {self._name} returned no model from {len(good)} replies; some rules need a "
                "larger cohort than they were given. Raise the sampler's size or lower what the strategy assumes."
            )
        num_examples = sum(reply.num_examples for reply in good)
        clients = tuple(reply.client for reply in good)
        before = self._before
        after = arrays if self.roster is None else self._checked(arrays)
        self._show(
            round,
            lambda: [self._global(round, params_of(before, self._like), after, num_examples, clients)],
        )
        return arrays, metrics

    def _checked(self, arrays: ArrayRecord | None) -> Params | None:
        """The model that a strategy returns in a scenario: of the shapes that it was given, floating and finite."""
        if arrays is None:
            return None
        guard = self._guard("aggregate_train")
        after = params_of(arrays)
        odd = sorted(set(after) ^ set(self._like))
        if odd:
            guard.wrong(f"its model {'lacks the' if odd[0] in self._like else 'has an unknown'} parameter {odd[0]!r}")
        for name, value in self._like.items():
            given = after[name]
            # some strategies of Flower widen what they are given
            if given.shape != value.shape or given.is_floating_point() != value.is_floating_point():
                guard.wrong(f"its parameter {name!r} is {a_kind(given)}, should be {a_kind(value)}")
        after = {name: after[name].to(value.dtype) for name, value in self._like.items()}
        wrong = not_finite(after) if self._finite else None
        if wrong is not None:
            guard.wrong(wrong)
        return after

    def _check_failures(self, round: int, members: Sequence[_Reply], good: Sequence[_Reply]) -> None:
        answered = {reply.client for reply in good}
        expected = self._cohort if self._cohort is not None else tuple(reply.client for reply in members)
        lost = tuple(client for client in expected if client not in answered)
        if self._cohort is not None and not self._enforce:
            lost = tuple(reply.client for reply in members if reply.client not in answered)
        self.failed[round] = lost
        if self._tolerate is not None and len(lost) > self._tolerate * len(expected):
            causes = {reply.client: reply.message.error.reason for reply in members if reply.message.has_error()}
            first = lost[0]
            cause = causes.get(first) or "no reply"
            raise with_trace(RunError(too_many_failed(round, len(lost), len(expected), first, cause)), cause)

    def _local(self, round: int, replies: Sequence[_Reply]) -> list[Transition]:
        before = params_of(self._before, self._like)
        transitions = []
        for reply in replies:
            sent = params_of(next(iter(reply.message.content.array_records.values())), self._like)
            transitions.append(
                Transition(
                    run=self._run,
                    round=round,
                    level="local",
                    client=reply.client,
                    before=before,
                    sent=sent,
                    kept=sent if self._kept_by is None else self._kept_by(reply.client),
                    num_examples=reply.num_examples,
                    report=reply.report,
                )
            )
        return transitions

    def _global(
        self,
        round: int,
        before: Params,
        after: ArrayRecord | Params | None,
        num_examples: int,
        clients: tuple[int, ...] = (),
    ) -> Transition:
        if after is None:
            after = before
        elif isinstance(after, ArrayRecord):
            after = params_of(after, self._like)
        return Transition(
            run=self._run,
            round=round,
            level="global",
            client=EVERYWHERE,
            before=before,
            sent=after,
            kept=after,
            num_examples=num_examples,
            clients=clients,
        )

    def _show(self, round: int, transitions: Callable[[], list[Transition]]) -> None:
        """Build the transitions only where somebody wants them."""
        wanting = [watcher for watcher in self.watchers if watcher not in self._ended and watcher.wants(round)]
        if wanting:
            seen = self._guarded(wanting, transitions)
            if seen is not None:
                for watcher in wanting:
                    self._guarded([watcher], partial(watcher.see, seen))

    def _guarded(self, watchers: Sequence[Watcher], look: Callable[[], T]) -> T | None:
        """What `look` returns; where it fails and all these watchers only warn, a warning and None."""
        try:
            return look()
        except Exception as error:
            if any(getattr(watcher, "on_error", "raise") != "warn" for watcher in watchers):
                raise
            self._ended += watchers
            names = ", ".join(type(watcher).__name__ for watcher in watchers)
            warnings.warn(
                f"round {self.round}: {names} stops watching, and training goes on: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
            return None

    def _seed_generators(self, round: int, purpose: str) -> None:
        """Stock strategies draw from the global generators of Python and numpy: give them a stream of their own."""
        if self._seed is not None:
            # a strategy that picks its own cohort picks the same in every run, so that no coin decides who takes part
            run = 0 if purpose == "configure" and self._same_cohorts else self._run + 1
            (rng,) = self._streams[purpose].each(run=[run], round=round, client=[0])
            words = rng.integers(2**32, size=2).tolist()
            random.seed(words[0])
            np.random.seed(words[1])  # noqa: NPY002

    @property
    def _name(self) -> str:
        return self.strategy.__class__.__name__
