"""Tests of `fedmem/observation/probe_context.py`."""

from __future__ import annotations

from typing import Any

from fedmem.contracts.evidence import Transition
from tests.engines.seams_helpers import TOYS, same, trained
from tests.tiny import tiny


def test_first_step_repeats_with_the_same_payload_and_state() -> None:
    """A probe asks for it when a round is complete, also where runs are rounds apart."""
    asked: list[float] = []

    def check(transition: Transition, context: Any) -> None:
        after, rows = context.first_step(transition)
        given = context._work.stored_work(transition.run, transition.round, transition.client)
        assert given.payload["round"] == transition.round
        asked.append(float(given.payload["turns"]))
        assert not same([after], [transition.before])
        assert len(rows)

    class Probe:
        every = None
        levels = ("local",)

        def observe(self, transitions: Any, context: Any) -> list[Any]:
            for transition in transitions:
                check(transition, context)
            return []

        def summarise(self, measurements: Any, seed: int) -> list[Any]:
            return []

    scenario = tiny(
        **TOYS, rounds=5, roster="per_run", sampler={"kind": "poisson", "rate": 0.3}, observe={"every": 1}, runs=4
    )
    scenario.__dict__["probes"] = (Probe(),)
    trained(scenario)
    assert max(asked) > 0
