"""The rule path: a strategy's rule is applied to all runs at once, without messages.

Transitions, cohorts, batches and results are those of the message path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch

from fedmem.contracts.arrays import Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.strategy import strategy_declaration
from fedmem.contracts.validation import a_kind
from fedmem.contracts.validation_of_measures import by_run
from fedmem.engines._cohort_work import CohortWork, TrainingParts, reports
from fedmem.engines._failures import check_tolerated
from fedmem.federation.roster import Roster
from fedmem.guards.guarding import Guard
from fedmem.privacy.amplification import canaries_of
from fedmem.seeding import generator_states, moved_generator, restore_generators, rule_generator
from fedmem.strategies._rule import Round, Rule, wrong_models
from fedmem.training.client_work import TrainedWork, Work, pick, stack
from fedmem.training.finite import finite_models, not_finite
from fedmem.training.server_by_shard import rule_by_shard


class RulePath:
    """Trains runs by the rule of their strategy, on arrays (R, K, ...)."""

    def __init__(self, parts: TrainingParts, rosters: Mapping[int, Roster], cohorts: CohortWork) -> None:
        self._parts = parts
        self._rosters = rosters
        self._cohorts = cohorts

    def train(self, runs: Sequence[int]) -> list[Params]:
        """The last global model of each run."""
        mode = self._parts.federation.mode
        strategy = rule_by_shard(cast("Rule", self._parts.scenario.strategy), mode.client_shards)
        declared = strategy_declaration(self._parts.scenario.strategy)
        before = stack([self._parts.federation.initial_of(run) for run in runs])
        with Guard("strategy", strategy, "state") as guard:
            state = by_run(guard, "it", strategy.state(before, self._parts.federation.num_clients), (len(runs),))
        canaries = canaries_of(self._parts.scenario)
        self._cohorts.show(0, partial(_at_servers, runs, 0, before, before, None))
        for round_number in range(1, self._parts.scenario.rounds + 1):
            cohorts = [self._rosters[run].cohort(round_number) for run in runs]
            clients = _places(cohorts)
            with Guard("strategy", strategy, "payload", round=round_number) as guard:
                payload = by_run(guard, "it", strategy.payload(state, clients), tuple(clients.shape))
            run, place = (clients >= 0).nonzero(as_tuple=True)
            done: TrainedWork | None = None
            if len(run):
                work = self._cohorts.work_of(
                    round_number,
                    np.array(runs)[run.numpy()],
                    clients[run, place].numpy(),
                    before,
                    run.numpy(),
                    {name: value[run, place] for name, value in payload.items()},
                )
                done, failed = self._cohorts.train(work)
                self._check_failures(work, failed)
            self._cohorts.show(round_number, partial(_at_clients, done))
            after = before
            # an empty cohort never reaches most strategies: such a run keeps its model and its state
            if len(run) or declared.noisy:
                generators = partial(self._generators, runs, round_number)
                canary_updates = None if canaries is None else partial(canaries.updates, runs, round_number)
                server_round = _stacked_round(round_number, before, done, clients, runs, generators)
                after, later = self._next_models(
                    strategy, state, replace(server_round, canary_updates=canary_updates), runs
                )
                anybody = (clients >= 0).any(dim=1)
                if not anybody.all() and not declared.noisy:
                    after = {name: _where(anybody, after[name], value) for name, value in before.items()}
                    later = {name: _where(anybody, later[name], value) for name, value in state.items()}
                state = later
            self._cohorts.show(round_number, partial(_at_servers, runs, round_number, before, after, done))
            before = after
            self._parts.on_round(round_number)
        return [pick(before, i) for i in range(len(runs))]

    def _next_models(
        self, strategy: Rule, state: Params, server_round: Round, runs: Sequence[int]
    ) -> tuple[Params, Params]:
        """The next models and the next state, by the strategy's rule."""
        with Guard("strategy", strategy, "rule", round=server_round.number) as guard:
            generators = generator_states()
            result: object = strategy.rule(state, server_round)
            moved = moved_generator(generators)
            restore_generators(generators)
            guard.require(
                not moved,
                f"it drew from the global generator of {moved}, so the same scenario would give other numbers. "
                "Draw from rnd.drawing, one generator for each run, such as rnd.drawing[i].normal(size=shape)",
            )
            if not isinstance(result, tuple) or len(result) != 2:
                guard.reject(f"it returned {a_kind(result)}, should be the next models and the next state")
            models, later = result[0], by_run(guard, "the state", result[1], (len(runs),))
            for text in wrong_models(models, server_round.before):
                guard.reject(text)
        after = {name: models[name].to(value.dtype) for name, value in server_round.before.items()}
        if not self._parts.scenario.tolerate.not_finite:
            for i in (~finite_models(after)).nonzero().flatten().tolist():
                with Guard("strategy", strategy, "rule", round=server_round.number, run=runs[i]) as guard:
                    guard.reject(str(not_finite(pick(after, i))))
        return after, later

    def _generators(self, runs: Sequence[int], round_number: int) -> tuple[np.random.Generator, ...]:
        """The generators from which the rule draws, one for each run."""
        return tuple(rule_generator(self._parts.scenario.training_seed, run, round_number) for run in runs)

    def _check_failures(self, work: Work, failed: Mapping[int, str]) -> None:
        """Failures are recorded, and tolerated up to the scenario's share."""
        for run in np.unique(work.run[list(failed)]).tolist() if failed else ():
            causes = {int(work.client[i]): failed[i] for i in sorted(failed) if work.run[i] == run}
            self._cohorts.participation += [self._rosters[run].failure(work.round, client) for client in causes]
            cohort_size = int(np.count_nonzero(work.run == run))
            check_tolerated(work.round, causes, cohort_size, self._parts.scenario.tolerate.max_failed_share)


def _at_clients(done: TrainedWork | None) -> list[Transition]:
    """The local transitions of a round."""
    if done is None:
        return []
    work, sizes = done.work, done.work.sizes.tolist()
    scalars = {name: values.tolist() for name, values in reports(done).items()}
    return [
        Transition.at_client(
            run=int(work.run[i]),
            round_number=work.round,
            client=int(work.client[i]),
            before=work.model_before(i),
            sent=outcome.sent,
            kept=outcome.kept,
            num_examples=sizes[i],
            report={name: float(values[i]) for name, values in scalars.items()},
        )
        for i, outcome in enumerate(done.outcomes())
    ]


def _at_servers(
    runs: Sequence[int], round_number: int, before: Params, after: Params, done: TrainedWork | None
) -> list[Transition]:
    """The global transitions of a round, one for each run."""
    sizes: dict[int, dict[int, int]] = {run: {} for run in runs}
    if done is not None:
        work = done.work
        for run, client, size in zip(work.run.tolist(), work.client.tolist(), work.sizes.tolist(), strict=True):
            sizes[run][client] = size
    return [
        Transition.at_server(
            run=run, round_number=round_number, before=pick(before, i), after=pick(after, i), sizes=sizes[run]
        )
        for i, run in enumerate(runs)
    ]


def _where(runs: torch.Tensor, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    return torch.where(runs.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)


def _places(cohorts: Sequence[Sequence[int]]) -> torch.Tensor:
    """The cohorts as (runs, places), -1 where a cohort is shorter than the longest; at least one place."""
    places = max(1, max(len(cohort) for cohort in cohorts))
    return torch.tensor([[*cohort, *[-1] * (places - len(cohort))] for cohort in cohorts])


def _stacked_round(
    number: int,
    before: Params,
    done: TrainedWork | None,
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
        report={name: placed(torch.from_numpy(values), silent) for name, values in reports(done).items()},
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
