"""Tests of `fedmem/execution/bank.py`."""

from __future__ import annotations

import pytest

from fedmem.errors import ScenarioError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.federation.roster import rosters
from tests.execution.pilot_helpers import GREEDY, picked, rounds_of
from tests.tiny import tiny


@pytest.mark.parametrize("server", ["messages", "rule"])
def test_all_runs_have_the_cohorts_of_the_pilot(server: str) -> None:
    asked = tiny(**GREEDY, rounds=8, speed={"server": server})
    done = simulate(asked, build(asked))
    assert done.pilot is not None
    truth = {
        (round_number, client) for round_number, clients in enumerate(rounds_of(done.pilot), 1) for client in clients
    }
    assert list(picked(done.bank).values()) == [truth] * 4
    blind = {
        (round_number, client)
        for round_number in range(1, 9)
        for client in rosters(asked, build(asked), [0])[0].cohort(round_number)
    }
    assert truth != blind, "losses are read"


def test_a_sampler_that_reads_nothing_needs_no_pilot() -> None:
    one, other = (simulate(asked, build(asked)) for asked in (tiny(), tiny(roster="pilot")))
    assert other.pilot is None
    assert one.bank.participation == other.bank.participation
    wrapped = {"kind": "dropout", "sampler": GREEDY["sampler"], "rate": 0.2}
    assert tiny(sampler=wrapped, roster="pilot").has_pilot
    with pytest.raises(ScenarioError, match="Use roster: pilot"):
        tiny(sampler=wrapped)
