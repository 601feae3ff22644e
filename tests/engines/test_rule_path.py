"""Tests of `fedmem/engines/_rule_path.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.engines.lockstep_helpers import ONE_BY_ONE, same, trained
from tests.tiny import tiny


@pytest.mark.parametrize("strategy", ["fedavg", "fedmedian", "fedadam"])
@pytest.mark.parametrize("sampler", [{"kind": "uniform", "size": 3}, {"kind": "poisson", "rate": 0.3}])
def test_the_rule_path_equals_the_message_path(strategy: str, sampler: dict[str, Any]) -> None:
    messages = tiny(strategy={"kind": strategy}, sampler=sampler, speed={**ONE_BY_ONE, "server": "messages"})
    rule = tiny(strategy={"kind": strategy}, sampler=sampler, speed={**ONE_BY_ONE, "server": "rule"})
    one, other = trained(messages), trained(rule)
    assert (one.server, other.server) == ("messages", "rule")
    assert same(one.params, other.params)
    assert one.bank.participation == other.bank.participation
    for a, b in zip(one.bank.evidence, other.bank.evidence, strict=True):
        assert (a.round, a.level, a.set) == (b.round, b.level, b.set)
        assert np.array_equal(a.margin, b.margin)


def test_auto_takes_the_rule_where_there_is_one() -> None:
    """A foreign strategy has none, and one that picks its own cohort does so in its messages."""
    foreign = {"kind": "flwr.serverapp.strategy:FedAvg", "fraction_train": 0.5}
    for changes, server in (
        ({}, "rule"),
        ({"strategy": foreign, "cohort_by": "strategy"}, "messages"),
        ({"strategy": {"kind": "fedavg"}, "cohort_by": "strategy"}, "messages"),
        ({"speed": {"server": "messages"}}, "messages"),
    ):
        assert trained(tiny(rounds=2, **changes)).server == server
