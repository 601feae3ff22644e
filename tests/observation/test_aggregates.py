"""Tests of `fedmem/observation/aggregates.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fedmem.contracts.evidence import Transition
from fedmem.errors import ComponentError
from fedmem.observation import aggregates
from tests.engines.seams_helpers import same
from tests.observation.replay_helpers import looked_at
from tests.tiny import tiny

BRIEF: dict[str, Any] = {"runs": 2, "rounds": 1, "population": 0, "observe": {"every": 1}}

STATELESS = ["fedavg", "fedprox", "krum", "fedmedian", "qfedavg", "fednova", "trimmed_mean"]


def test_an_aggregate_of_other_messages_is_noticed() -> None:
    """A strategy whose rule does not give what it gave is no ground to recompute anything."""

    def look(transition: Transition, context: Any) -> None:
        if transition.round:
            moved = {name: value + 0.01 for name, value in transition.sent.items()}
            with pytest.raises(ComponentError, match="gives another"):
                context.aggregates(replace(transition, sent=moved, kept=moved), [{}])
            same = context.aggregates(transition, [{}, {}])
            assert all(torch.equal(model[name], v) for model in same for name, v in transition.sent.items())

    looked_at(tiny(**BRIEF), look, "global")


@pytest.mark.parametrize("server", ["rule", "messages"])
@pytest.mark.parametrize("kind", STATELESS)
def test_real_messages_give_the_real_aggregate(kind: str, server: str) -> None:
    def look(transition: Transition, context: Any) -> None:
        if transition.round:
            assert same(context.aggregates(transition, [{}]), [transition.sent])

    looked_at(tiny(**BRIEF, strategy={"kind": kind}, speed={"server": server}), look, "global")


@pytest.mark.parametrize("repeat", [0, 1])
def test_a_noisy_server_draws_the_same_noise(repeat: int) -> None:
    """Another message moves the released mean by its change over the expected cohort, and nothing else."""

    def look(transition: Transition, context: Any) -> None:
        if not transition.round:
            return
        sender = context.senders(transition)[0]
        still = context.replay(sender, steps=0)
        (real, without) = context.aggregates(transition, [{}, {sender.client: still}])
        assert same([real], [transition.sent])
        for name, value in real.items():
            moved = (sender.sent[name] - sender.before[name]) / 3
            torch.testing.assert_close(value - without[name], moved, rtol=1e-3, atol=1e-5)

    strategy = {"kind": "dp_fedavg", "expected_cohort_size": 3, "clip": 100.0, "noise_multiplier": 1e-4}
    looked_at(tiny(**BRIEF, strategy=strategy, repeat=repeat), look, "global")


def test_portions_give_the_same_aggregates(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(transition: Transition, context: Any) -> None:
        senders = context.senders(transition) if transition.round else []
        changes = [{sender.client: context.replay(sender, steps=1)} for sender in senders]
        whole = context.aggregates(transition, changes)
        with monkeypatch.context() as patch:
            patch.setattr(aggregates, "AT_ONCE", 1)
            assert same(whole, context.aggregates(transition, changes))
        assert len({float(model["output.bias"][0]) for model in whole}) == len(senders)

    looked_at(tiny(**BRIEF), look, "global")
