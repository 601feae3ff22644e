"""Tests of `fedmem/engines/_cohort_work.py`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from fedmem.contracts.evidence import Transition
from fedmem.engines.lockstep import Lockstep
from fedmem.federation.build import build
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import LocalWork, Stacked
from tests.engines.lockstep_helpers import same
from tests.engines.seams_helpers import TOYS, watched
from tests.tiny import tiny


def test_transitions_are_what_the_model_did() -> None:
    """Global `before` of a round is the global `kept` of the round before; locals start from it."""
    seen: list[Transition] = []

    class Everything:
        def observes_round(self, round_number: int) -> bool:
            return True

        def see(self, transitions: Sequence[Transition]) -> None:
            seen.extend(transitions)

    from fedmem.training.one_by_one import OneByOne

    scenario = tiny(runs=2)
    federation = build(scenario)
    executor = OneByOne(federation.model, scenario.client, federation.store)
    work = LocalWork(federation, scenario.client, scenario.seed)
    finished = Lockstep(scenario, federation, executor, work, Everything()).train(range(2))
    for run in range(2):
        globals_ = [t for t in seen if t.run == run and t.level == "global"]
        assert [t.round for t in globals_] == list(range(5))
        for earlier, later in pairwise(globals_):
            assert all(torch.equal(earlier.kept[name], later.before[name]) for name in earlier.kept)
        assert same([globals_[-1].kept], [finished.params[run]])
        for local in (t for t in seen if t.run == run and t.level == "local"):
            before = globals_[local.round].before
            assert all(torch.equal(local.before[name], before[name]) for name in before)
            assert local.client in globals_[local.round].clients
            assert {"steps", "loss"} <= set(local.report)


def test_executors_agree_where_only_some_clients_have_state() -> None:
    scenario = tiny(**TOYS, rounds=4, sampler={"kind": "uniform", "size": 2})
    one, other = (watched(scenario, "rule", executor)[0].params for executor in (OneByOne, Stacked))
    for a, b in zip(one, other, strict=True):
        for name, value in a.items():
            torch.testing.assert_close(b[name], value, rtol=1e-4, atol=1e-5)
