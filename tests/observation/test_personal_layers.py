"""Tests of `fedmem/observation/personal_layers.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import Params
from fedmem.engines.lockstep import Lockstep
from fedmem.errors import ScenarioError
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.views import views
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.modalities.scores import losses, margins_of
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import LocalWork
from tests.clients.clients_helpers import personal, turns
from tests.engines.seams_helpers import watched
from tests.tiny import tiny


@pytest.mark.parametrize("server", ["messages", "rule"])
def test_aggregate_is_read_with_the_layers_of_each_owner(server: str) -> None:
    """Evidence and views at level global against models put together by hand, from rounds that are not observed too."""
    scenario = personal(
        "fedper", rounds=5, observe={"rounds": [4]}, sampler={"kind": "uniform", "size": 2}, speed={"server": server}
    )
    federation = build(scenario)
    own, audit = scenario.client.personal_parameters(federation.initial), federation.audit
    simulated = simulate(scenario, federation)
    _, everything, _ = watched(scenario, server)
    after = aggregates(scenario, server)
    executor = OneByOne(federation.model, scenario.client, federation.store)
    assert (audit.owner >= 0).all()
    shown = {
        (v.round, v.level): v
        for v in views(simulated.bank, permute_coins(audit, 20, np.random.default_rng(0)))
        if not v.place
    }
    differ = 0
    for round_number in (4, 5):
        expected = np.empty((scenario.runs, len(audit)))
        for run in range(scenario.runs):
            for owner in np.unique(audit.owner).tolist():
                turns_of = [t for t in turns(everything.local).get((run, owner), []) if t.round <= round_number]
                layers = {name: turns_of[-1].kept[name] for name in own} if turns_of else {}
                differ += bool(turns_of) and turns_of[-1].round not in (4, 5)
                logits = executor.logits([{**after[run, round_number], **layers}], audit.examples.inputs)
                mine = audit.owner == owner
                expected[run, mine] = losses(margins_of(logits, audit.examples.targets))[0, mine]
        np.testing.assert_allclose(shown[round_number, "global"].loss[:, 0], expected, rtol=1e-5, atol=1e-6)
        alone = [executor.logits([after[r, round_number]], audit.examples.inputs) for r in range(scenario.runs)]
        bare = [losses(margins_of(one, audit.examples.targets))[0] for one in alone]
        assert not np.allclose(expected, bare, rtol=0.05)
    assert differ, "no client was last picked in a round that is not observed"


def aggregates(scenario: Any, server: str) -> dict[tuple[int, int], Params]:
    """The aggregate of every run and round."""
    found: dict[tuple[int, int], Params] = {}

    class Globals:
        def observes_round(self, round_number: int) -> bool:
            return True

        def see(self, transitions: Any) -> None:
            found.update({(t.run, t.round): t.kept for t in transitions if t.level == "global"})

    federation = build(scenario)
    work = LocalWork(federation, scenario.client, scenario.seed)
    executor = OneByOne(federation.model, scenario.client, federation.store)
    Lockstep(scenario, federation, executor, work, Globals()).train(range(scenario.runs), server)
    return found


def test_measures_that_no_owner_can_read_are_refused() -> None:
    with pytest.raises(ScenarioError, match="a sum of models without the layers that fedper keeps"):
        tiny(client={"kind": "fedper"}, observe={"levels": ["local", "sum"], "sums": [2]})
    influence = {"estimators": [{"kind": "client_influence"}], "leave_out": {"clients": "all"}}
    with pytest.raises(ScenarioError, match="client_influence compares one aggregate for all"):
        tiny(client={"kind": "fedper"}, **influence)
    tiny(client={"kind": "sgd"}, **influence)
