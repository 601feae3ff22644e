"""The aggregate that a round would have had, had clients sent other models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import torch

from fedmem.contracts.arrays import Params
from fedmem.contracts.client import Outcome
from fedmem.contracts.evidence import Transition
from fedmem.contracts.families import kind_of
from fedmem.contracts.federation import Federation
from fedmem.contracts.strategy import strategy_declaration, why_not_recomputed
from fedmem.errors import ComponentError
from fedmem.guards.guarding import Guard
from fedmem.privacy.amplification import canaries_of
from fedmem.seeding import rule_generator
from fedmem.strategies._rule import Round, Rule, is_weight, lower_median, reports
from fedmem.training.server_by_shard import rule_by_shard

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

AT_ONCE = 1 << 25
"""Bytes of models of clients that the rule is given at once, at most; at least those of one round."""

TOLERANCE = 1e-5
"""Largest difference to the real aggregate by rounding, relative to its largest entry."""

Change = Mapping[int, Outcome]
"""Clients of a round with what they send instead."""


class Aggregates:
    """Applies the rule of the strategy again, with the same weights, draws and reports; see `Context.aggregates`."""

    def __init__(self, scenario: Scenario, federation: Federation) -> None:
        self._strategy = scenario.strategy
        self._shards = federation.mode.client_shards
        self._seed = scenario.training_seed
        self._canaries = canaries_of(scenario)
        self._personal = frozenset(federation.personal_names(scenario.client))

    def of(self, transition: Transition, senders: Sequence[Transition], changes: Sequence[Change]) -> list[Params]:
        """One aggregate for each change.

        Errors: `ComponentError` where the aggregate of the strategy cannot be recomputed.
        """
        reason = why_not_recomputed(self._strategy)
        if reason is not None:
            raise ComponentError("strategy", f"{kind_of(self._strategy)} {reason}; observe level local alone")
        if not senders:
            return [dict(transition.sent) for _ in changes]
        size = len(senders) * sum(value.numel() * value.element_size() for value in transition.sent.values())
        portion = max(1, AT_ONCE // max(1, size))
        (again,) = self._aggregate(transition, senders, [{}])
        self._require_equal(transition, again)
        models: list[Params] = []
        for first in range(0, len(changes), portion):
            models += self._aggregate(transition, senders, changes[first : first + portion])
        return models

    def _aggregate(
        self, transition: Transition, senders: Sequence[Transition], changes: Sequence[Change]
    ) -> list[Params]:
        """The rule on one run for each change, stacked: no run of a stack changes a bit of another."""
        count, shape = len(changes), (len(changes), len(senders))
        before, sent = senders[0].before, [[_message_of(sender, change) for sender in senders] for change in changes]
        stacked = {name: torch.stack([torch.stack([part[name] for part in row]) for row in sent]) for name in before}
        weights = {name: torch.stack([value] * count) for name, value in before.items() if is_weight(name, value)}
        runs = [transition.run] * count
        server_round = Round(
            number=transition.round,
            before=weights,
            sent={name: stacked[name] for name in weights},
            weights=torch.tensor([[float(sender.num_examples) for sender in senders]] * count, dtype=torch.float64),
            present=torch.ones(shape, dtype=torch.bool),
            clients=torch.tensor([[sender.client for sender in senders]] * count),
            report=reports([[_report(sender, change) for sender in senders] for change in changes]),
            generators=lambda: tuple(rule_generator(self._seed, run, transition.round) for run in runs),
            canary_updates=None if self._canaries is None else partial(self._canaries.updates, runs, transition.round),
        )
        with Guard("strategy", self._strategy, "rule", round=transition.round, run=transition.run):
            after, _ = rule_by_shard(cast("Rule", self._strategy), self._shards).rule({}, server_round)
        noisy = strategy_declaration(self._strategy).noisy
        others = [name for name in before if name not in weights]
        after |= {
            name: torch.stack([before[name]] * count)
            if noisy
            else torch.cat([lower_median(row[None]) for row in stacked[name]])
            for name in others
        }
        return [
            {name: own[name] if name in own else after[name][i].to(value.dtype) for name, value in before.items()}
            for i, own in enumerate(self._own(transition, change) for change in changes)
        ]

    def _own(self, transition: Transition, change: Change) -> Params:
        """The entries with which the owner of a completed aggregate completes it."""
        if transition.client < 0:
            return {}
        model = change[transition.client].kept if transition.client in change else transition.sent
        return {name: model[name] for name in self._personal}

    def _require_equal(self, transition: Transition, again: Params) -> None:
        """The rule gives the real aggregate, but for rounding where replies came in another order."""
        for name, value in transition.sent.items():
            if transition.client < 0 and name in self._personal:
                continue
            real, given = value.double(), again[name].double()
            largest = float(real.abs().nan_to_num(0.0, 0.0, 0.0).max()) if real.numel() else 0.0
            if not torch.allclose(given, real, rtol=0.0, atol=TOLERANCE * largest, equal_nan=True):
                raise ComponentError(
                    "strategy",
                    f"run {transition.run}, round {transition.round}: the rule of {kind_of(self._strategy)} gives "
                    f"another {name!r} for the same replies. So the aggregate cannot be recomputed; observe level "
                    "local alone",
                )


def _message_of(sender: Transition, change: Change) -> Params:
    """The model that a client sends; that of a change replaces its own."""
    return change[sender.client].sent if sender.client in change else sender.sent


def _report(sender: Transition, change: Change) -> dict[str, float]:
    """The numbers that a client reports; those of a change replace its own."""
    changed = change[sender.client].report if sender.client in change else {}
    return {**sender.report, **{name: float(value) for name, value in changed.items()}}
