"""The server step of sharded training (SISA): the rule of a strategy, applied to the clients of each shard alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from fedmem.contracts.client_shards import ClientShards

if TYPE_CHECKING:
    import numpy as np

    from fedmem.contracts.arrays import Params
    from fedmem.strategies._rule import Round, Rule


class RuleByShard:
    """A rule that makes each constituent from those of its own clients, as in S federations with a server each.

    Clients of other shards, whose copies of a constituent are as they came, have no part in it. In a round in which no
    client of a shard takes part, its constituent and the state of its server stay, to the last bit.

    Args:
        rule: The rule of the strategy. It sends clients nothing but the model.
        shards: The shards.
    """

    def __init__(self, rule: Rule, shards: ClientShards) -> None:
        self._rule = rule
        self._shards = shards

    @property
    def message_name(self) -> Rule:
        """The rule, which messages name."""
        return self._rule

    def state(self, before: Params, num_clients: int) -> Params:
        """The state of each server, with the names of its constituent."""
        return {
            self._shards.entry(shard, name): value
            for shard in range(self._shards.count)
            for name, value in self._rule.state(self._shards.constituent(shard, before), num_clients).items()
        }

    def payload(self, state: Params, clients: Tensor) -> Params:
        """No payload."""
        return {}

    def rule(self, state: Params, rnd: Round) -> tuple[Params, Params]:
        """The next model and the next state."""
        after, later = dict(rnd.before), dict(state)
        shard_of_place = rnd.clients % self._shards.count
        for shard in range(self._shards.count):
            present = rnd.present & (shard_of_place == shard)
            runs = present.any(dim=1).nonzero().flatten()
            if not len(runs):
                continue
            of_shard = _take_runs(replace(rnd, present=present), runs)
            of_shard = replace(
                of_shard,
                before=self._shards.constituent(shard, of_shard.before),
                sent=self._shards.constituent(shard, of_shard.sent),
            )
            own_state = {name: value[runs] for name, value in self._shards.constituent(shard, state).items()}
            model, own_state = self._rule.rule(own_state, of_shard)
            self._write(after, shard, model, runs)
            self._write(later, shard, own_state, runs)
        return after, later

    def _write(self, whole: Params, shard: int, part: Params, runs: Tensor) -> None:
        """Put a part (R', ...) into the rows `runs` of copies of its entries in a whole (R, ...)."""
        for name, value in part.items():
            entry = self._shards.entry(shard, name)
            old = whole[entry]
            new = old.to(value.dtype).clone()
            new[runs] = value
            whole[entry] = new


def rule_by_shard(rule: Rule, shards: ClientShards | None) -> Rule:
    """The rule of a strategy, shard by shard where clients are in shards."""
    return rule if shards is None else RuleByShard(rule, shards)


def _take_runs(rnd: Round, runs: Tensor) -> Round:
    """The arrays of a rule for some of its runs."""
    if len(runs) == len(rnd.present):
        return rnd
    generators = rnd.generators

    def of_runs(make: Callable[[], tuple[np.random.Generator, ...]]) -> tuple[np.random.Generator, ...]:
        all_generators = make()
        return tuple(all_generators[run] for run in runs.tolist())

    return replace(
        rnd,
        before={name: value[runs] for name, value in rnd.before.items()},
        sent={name: value[runs] for name, value in rnd.sent.items()},
        weights=rnd.weights[runs],
        present=rnd.present[runs],
        clients=rnd.clients[runs],
        report={name: value[runs] for name, value in rnd.report.items()},
        generators=None if generators is None else lambda: of_runs(generators),
    )
