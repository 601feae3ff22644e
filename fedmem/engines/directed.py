"""The demands of a bank on the Flower strategy of each of its runs.

`Directed` stands around a strategy as a Flower strategy itself, so that `Observed` can watch it like any other::

    Observed(Directed(FedAvg(), roster, Demands(seed=0)), watcher).start(...)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedmem.contracts.arrays import Params
from fedmem.contracts.strategy import ServedStrategy
from fedmem.contracts.validation import a_kind
from fedmem.engines._cohort_grid import CohortGrid
from fedmem.engines._failures import check_tolerated
from fedmem.errors import RunError
from fedmem.guards.guarding import Guard
from fedmem.observation.flower_round import FirstError, report_of
from fedmem.observation.observed import params_of
from fedmem.privacy.canary_directions import CanaryDirections
from fedmem.seeding import Streams, generator_states, move_generator, restore_generators, rule_generator, set_generators
from fedmem.training.finite import not_finite

Aggregated = tuple[ArrayRecord | None, MetricRecord | None]


class Schedule(Protocol):
    """Participation: the cohort of a round as sorted clients, and the node of each."""

    def cohort(self, round_number: int) -> Sequence[int]: ...

    def node(self, client: int) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Demands:
    """The demands of a bank on the strategies of all its runs.

    Attributes:
        seed: Seed of the global generators and of what a rule draws from.
        tolerate: Largest share of a cohort that may fail.
        enforce: Whether a strategy that trains others than the cohort is an error.
        same_cohorts: Whether a strategy that samples clients itself draws alike in all runs of one seed.
        finite: Whether a model that is not finite ends the run.
        canaries: Clients of random direction that a private strategy is to count in.
    """

    seed: int
    tolerate: float = 0.0
    enforce: bool = True
    same_cohorts: bool = True
    finite: bool = False
    canaries: CanaryDirections | None = None


class Directed(Strategy):
    """A Flower strategy that does what a bank demands of it.

    Guarantees:

    - the strategy is shown only the nodes of the round's cohort, and has to train all of them;
    - an empty cohort never reaches the strategy, and the model stays. But a strategy that is `noisy`
      (strategies/_rule.py) is asked for the model after it;
    - failed clients beyond the tolerated share of a cohort end the run with round, client and cause, before a watcher
      sees the round;
    - the global random generators of Python, numpy and torch are seeded for each server step, and restored at the end.
      So are generators that the strategy holds as attributes, which are seeded alike. Runs share no draws;
    - the model that the strategy returns has the names, shapes and types of the one that it was given.

    The strategy's own `start` calls the outer half of each step (`_configure`, `_aggregate`), which calls the inner
    half (`configure_train`, `aggregate_train`). `Observed` puts itself around the inner half. So failures are noticed
    before the watchers look, and the returned model is checked before they see it.

    Args:
        strategy: the strategy to direct.
        schedule: decides the cohort of each round.
        demands: The demands of the bank.
        run: the number of this run.
    """

    def __init__(self, strategy: Strategy, schedule: Schedule, demands: Demands, run: int = 0) -> None:
        self.strategy = strategy
        self.round = 0
        self.failed: dict[int, tuple[int, ...]] = {}
        self._schedule = schedule
        self._demands = demands
        self._run = run
        self._streams = {step: Streams(demands.seed, f"server {step}") for step in ("configure", "aggregate")}
        self._errors = FirstError()
        self._like: Params = {}
        self._before = ArrayRecord()
        self._cohort: tuple[int, ...] = ()
        self._clients: dict[int, int] = {}
        self._reports: dict[int, dict[str, float]] = {}
        self._original: tuple[Callable[..., Iterable[Message]], Callable[..., Aggregated]]

    def start(  # type: ignore[override]
        self, grid: Grid, initial_arrays: ArrayRecord, num_rounds: int = 3, **others: Any
    ) -> Result:
        """The strategy's own `start`, directed; same arguments, same result.

        Raises:
            RunError: more clients failed than is tolerated, or the strategy does not do what is demanded of it.
            PartError: the strategy raised, or returned a model that it must not.
        """
        strategy: Any = self.strategy
        self._like = params_of(initial_arrays)
        self._original = strategy.configure_train, strategy.aggregate_train
        if isinstance(strategy, ServedStrategy):
            strategy.services.nodes = list(grid.get_node_ids())
        strategy.configure_train, strategy.aggregate_train = self._configure, self._aggregate
        try:
            with self._guard("start"), _generators_restored():
                result = strategy.start(grid=grid, initial_arrays=initial_arrays, num_rounds=num_rounds, **others)
            self._errors.raise_first()
            if not isinstance(result, Result):
                raise RunError(f"strategy {self._name} returned {type(result).__name__} from start, no flwr Result.")
            return result
        finally:
            del strategy.configure_train, strategy.aggregate_train

    # --- the outer half: before the watchers ------------------------------------------------------------------------

    def _configure(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        with self._errors.note_error():
            return self.configure_train(server_round, arrays, config, grid)

    def _aggregate(self, server_round: int, replies: Iterable[Message]) -> Aggregated:
        with self._errors.note_error():
            answers = list(replies)
            self._check_failures(server_round, answers)
            if isinstance(self.strategy, ServedStrategy):
                good = [message for message in answers if not message.has_error()]
                self._reports = {int(message.metadata.src_node_id): report_of(message.content) for message in good}
            return self.aggregate_train(server_round, answers)

    def _check_failures(self, round_number: int, replies: Sequence[Message]) -> None:
        nodes = {int(message.metadata.src_node_id): message for message in replies}
        answers = {self._clients.get(node, node): message for node, message in nodes.items()}
        failed = {client: message.error.reason for client, message in answers.items() if message.has_error()}
        expected = self._cohort if self._demands.enforce else tuple(sorted(answers))
        causes = {
            client: failed.get(client) or "no reply" for client in expected if client in failed or client not in answers
        }
        self.failed[round_number] = tuple(causes)
        check_tolerated(round_number, causes, len(self._cohort), self._demands.tolerate)

    # --- the inner half: what `Observed` watches ----------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The strategy's messages to the cohort of the round."""
        self.round, self._before = server_round, arrays
        self._cohort = tuple(self._schedule.cohort(server_round))
        self._clients = {self._schedule.node(client): client for client in self._cohort}
        if not self._cohort:
            return []
        configure, _ = self._original
        self._seed_generators("configure")
        messages = list(configure(server_round, arrays, config, CohortGrid(grid, list(self._clients), self._name)))
        if self._demands.enforce:
            self._check_cohort(messages)
        return messages

    def _check_cohort(self, messages: Sequence[Message]) -> None:
        receivers = sorted(message.metadata.dst_node_id for message in messages)
        if receivers != sorted(self._clients):
            raise RunError(
                f"round {self.round}: strategy {self._name} trains {len(receivers)} clients where the sampler chose "
                f"{len(self._clients)}. Give it fraction_train: 1.0, or say `cohort_by: strategy` in the scenario "
                "to let the strategy choose among the sampler's cohort."
            )

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Aggregated:
        """The strategy's next model."""
        self._serve()
        if not self._cohort:
            if isinstance(self.strategy, ServedStrategy):
                return self.strategy.step_without_clients(server_round, self._before), None
            return None, None
        answers = list(replies)
        good = sum(not message.has_error() for message in answers)
        _, aggregate = self._original
        self._seed_generators("aggregate")
        arrays, metrics = aggregate(server_round, answers)
        if arrays is None and good:
            raise RunError(
                f"round {server_round}: strategy {self._name} returned no model from {good} replies; some rules need a "
                "larger cohort than they were given. Raise the sampler's size or lower what the strategy assumes."
            )
        if arrays is not None:
            self._check_model(arrays)
        return arrays, metrics

    def _serve(self) -> None:
        """Provide a strategy of one rule with what this round needs."""
        if not isinstance(self.strategy, ServedStrategy):
            return
        services, seed, run, number = self.strategy.services, self._demands.seed, self._run, self.round
        services.generators = lambda: (rule_generator(seed, run, number),)
        services.reports = self._reports
        if self._demands.canaries is not None:
            services.canary_updates = partial(self._demands.canaries.updates, [run], number)

    def _check_model(self, arrays: ArrayRecord) -> None:
        """Errors: `PartError` unless a model is of the shapes that it was given, floating and finite."""
        guard = self._guard("aggregate_train")
        after = params_of(arrays)
        odd = sorted(set(after) ^ set(self._like))
        if odd:
            guard.reject(f"its model {'lacks the' if odd[0] in self._like else 'has an unknown'} parameter {odd[0]!r}")
        for name, value in self._like.items():
            tensor = after[name]
            # some strategies of Flower widen what they are given
            if tensor.shape != value.shape or tensor.is_floating_point() != value.is_floating_point():
                guard.reject(f"its parameter {name!r} is {a_kind(tensor)}, should be {a_kind(value)}")
        after = {name: after[name].to(value.dtype) for name, value in self._like.items()}
        wrong = not_finite(after) if self._demands.finite else None
        if wrong is not None:
            guard.reject(wrong)

    # --- passed on ----------------------------------------------------------------------------------------------------

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Passed on."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Passed on."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Passed on."""
        self.strategy.summary()

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _guard(self, method: str) -> Guard:
        """Around what the strategy does; its rule, if it applies one, is named for it."""
        others = (("strategy", self.strategy.rule),) if isinstance(self.strategy, ServedStrategy) else ()
        return Guard(
            "strategy", self.strategy, method, others=others, where=lambda: {"round": self.round}, run=self._run
        )

    def _seed_generators(self, step: str) -> None:
        """Strategies draw from the global generators, or from some that they hold: give all a stream of their own."""
        # a strategy that picks its own cohort picks the same in every run, so that no coin decides who takes part
        run = 0 if step == "configure" and self._demands.same_cohorts else self._run + 1
        (rng,) = self._streams[step].generators(run=[run], round_number=self.round, client=[0])
        python, numpy = rng.integers(2**32, size=2).tolist()
        set_generators(python, numpy, int(rng.integers(2**63)))
        for name in sorted(vars(self.strategy)):
            move_generator(vars(self.strategy)[name], rng)

    @property
    def _name(self) -> str:
        return type(self.strategy).__name__


_DEPTH: list[int] = []
_BEFORE: list[Any] = []


@contextmanager
def _generators_restored() -> Iterator[None]:
    """The global generators are afterwards as they were, once the last of the strategies that run in step has ended."""
    if not _DEPTH:
        _BEFORE[:] = generator_states()
    _DEPTH.append(1)
    try:
        yield
    finally:
        _DEPTH.pop()
        if not _DEPTH:
            restore_generators(tuple(_BEFORE))
