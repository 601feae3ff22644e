"""All runs of a bank in step: each is a coroutine that executes its Flower strategy's own `start`.

Where Flower would send messages and wait, the coroutine hands them to the scheduler here. The scheduler has all waiting
messages answered at once, and then resumes the runs in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from flwr.app import Message
from greenlet import GreenletExit, getcurrent, greenlet

from fedmem.contracts.arrays import Params
from fedmem.contracts.evidence import Participation
from fedmem.contracts.federation import Federation
from fedmem.contracts.watcher import Watcher
from fedmem.engines._flower import LocalGrid, local_record
from fedmem.engines.directed import Demands, Directed
from fedmem.errors import RunError
from fedmem.federation.roster import Roster, client_at
from fedmem.guards.guarding import Guard
from fedmem.observation.observed import Observed, params_of
from fedmem.privacy.amplification import canaries_of
from fedmem.seeding import seeded_generators, stream
from fedmem.strategies._rule import Rule, RuleStrategy
from fedmem.training.server_by_shard import rule_by_shard

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


@dataclass(frozen=True)
class Waiting:
    """The request of a run to the scheduler: its messages, and the round in which its strategy sent them."""

    round: int
    messages: list[Message]


Send = Callable[[Waiting], list[Message]]
Answer = Callable[[Mapping[int, Waiting]], Mapping[int, list[Message]]]


def in_step(
    runs: Sequence[int],
    start: Callable[[int, Send], Params],
    answer: Answer,
    on_round: Callable[[int], None],
    rounds: int,
) -> list[Params]:
    """Let `start(run, send)` go on in all runs at once; `answer` is given what all that still wait have sent.

    `on_round` gets the last round that every run has finished.
    """
    scheduler = getcurrent()

    def send(waiting: Waiting) -> list[Message]:
        replies: list[Message] = scheduler.switch(waiting)
        return replies

    coroutines = {run: greenlet(lambda run: start(run, send)) for run in runs}
    waiting: dict[int, Waiting] = {}
    finished: dict[int, Params] = {}

    def advance(run: int, value: object) -> None:
        result = coroutines[run].switch(value)
        if isinstance(result, Waiting):
            waiting[run] = result
        else:
            finished[run] = result

    try:
        for run in runs:
            advance(run, run)
        while waiting:
            # a run whose cohort was empty is rounds ahead, and waits, so that who fails in a round is known to all
            lowest = min(wait.round for wait in waiting.values())
            requests = {run: wait for run, wait in waiting.items() if wait.round == lowest}
            waiting = {run: wait for run, wait in waiting.items() if run not in requests}
            replies = answer(requests)
            for run in requests:
                advance(run, replies[run])
            on_round(min((wait.round for wait in waiting.values()), default=rounds + 1) - 1)
    finally:
        for coroutine in coroutines.values():
            if not coroutine.dead:
                coroutine.throw(GreenletExit)
    return [finished[run] for run in runs]


def one_run(
    scenario: Scenario,
    federation: Federation,
    run: int,
    roster: Roster,
    watchers: Sequence[Watcher],
    kept: Callable[[int], Params],
    send: Send,
) -> tuple[Params, list[Participation]]:
    """The strategy's own loop over rounds: its last global model, and who failed in which of them."""
    cohort = roster.cohort(1)
    seed = int(stream(scenario.training_seed, "strategy maker", run=run).integers(2**63))
    with Guard("strategy", scenario.strategy, "make", run=run), seeded_generators(seed):
        shards = federation.mode.client_shards
        # Flower's own strategies average whole models
        strategy = (
            scenario.strategy.make(len(cohort))
            if shards is None
            else RuleStrategy(rule_by_shard(cast("Rule", scenario.strategy), shards))
        )
    demands = Demands(
        seed=scenario.training_seed,
        tolerate=scenario.tolerate.max_failed_share,
        enforce=scenario.cohort_by == "sampler",
        same_cohorts=scenario.roster != "per_run",
        finite=not scenario.tolerate.not_finite,
        canaries=canaries_of(scenario),
    )
    directed = Directed(strategy, roster, demands, run)
    observed = Observed(directed, *watchers, run=run, kept=kept, client_of=client_at)
    grid = LocalGrid(federation.num_clients, lambda messages: send(Waiting(directed.round, messages)))
    initial = federation.initial_of(run)
    result = observed.start(grid, local_record(initial), num_rounds=scenario.rounds)
    if directed.round < scenario.rounds:
        raise RunError(
            f"run {run}: strategy {type(strategy).__name__} stopped after round {directed.round} of "
            f"{scenario.rounds}. Lower rounds to {directed.round}, or use a strategy that goes on to the end."
        )
    failed = [
        roster.failure(round_number, client) for round_number, clients in directed.failed.items() for client in clients
    ]
    return params_of(result.arrays, initial) if result.arrays else initial, failed
