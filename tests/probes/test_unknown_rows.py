"""Tests of `fedmem/probes/_unknown_rows.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedmem.contracts.evidence import Transition
from fedmem.probes._unknown_rows import candidate_rows, draw_senders, draw_unknown_rows, unknown_rows_of
from fedmem.scenario.scenario import Scenario
from tests.observation.replay_helpers import looked_at
from tests.tiny import tiny


def scenario(**changes: Any) -> Scenario:
    settings: dict[str, Any] = {
        "runs": 4, "rounds": 2, "population": 0, "model": {"kind": "logistic"}, "sampler": {"kind": "everyone"},
        "injections": [{"kind": "typical", "per_client": 2, "copies": 2}, {"kind": "mislabelled", "per_client": 1}],
        "observe": {"every": 1, "levels": ["local", "global"]}, "client": {"kind": "sgd", "steps": 1},
    }  # fmt: skip
    return tiny(**{**settings, **changes})


def test_a_place_has_the_rows_that_the_client_trains_on() -> None:
    def look(transition: Transition, context: Any) -> None:
        if not transition.round:
            return
        federation = context.federation
        unknown_rows = unknown_rows_of(federation, transition.run, transition.client, transition.round)
        assert len(unknown_rows) == 3
        trained = context.rows(transition.run, transition.client, transition.round)
        for subject, unknown in unknown_rows.items():
            assert unknown.is_in == federation.audit.is_in[transition.run, subject]
            assert np.isin(unknown.rows, trained).all()
            own_row = federation.trained_rows[federation.audit.subject == subject][0]
            assert (own_row in unknown.rows) == unknown.is_in

    looked_at(scenario(), look)


def test_an_example_outside_its_window_has_no_place() -> None:
    injections = [{"kind": "typical", "per_client": 2, "stop": 1}]

    def look(transition: Transition, context: Any) -> None:
        if transition.round:
            unknown_rows = unknown_rows_of(context.federation, transition.run, transition.client, transition.round)
            assert bool(unknown_rows) == (transition.round == 1), "neither in nor out"

    looked_at(scenario(injections=injections), look)


def test_candidates_and_other_rows_are_hidden_from_the_client() -> None:
    seen = []

    def look(transition: Transition, context: Any) -> None:
        if not transition.round:
            return
        federation, rng = context.federation, np.random.default_rng(0)
        trained = context.rows(transition.run, transition.client, transition.round)
        for unknown in draw_unknown_rows(transition, 9, context):
            candidates, others = candidate_rows(transition, unknown, 4, context, rng)
            own_row = federation.trained_rows[federation.audit.subject == unknown.subject][0]
            assert candidates[0] == own_row
            assert len(set(candidates.tolist())) == len(candidates) == 4
            assert not np.isin(candidates[1:], trained).any()
            assert not np.isin(others, [*candidates, *trained]).any()
            labels = federation.store.targets
            assert set(labels[others]) <= {labels[own_row]}
            if federation.audit.role[unknown.subject] == "typical":
                assert set(labels[candidates]) == {labels[own_row]}
            else:
                assert np.isin(candidates, federation.trained_rows).all(), "peers are of the same kind"
            seen.append(unknown)

    looked_at(scenario(), look)
    assert {unknown.is_in for unknown in seen} == {True, False}


def test_attacked_clients_are_the_same_at_both_levels() -> None:
    chosen: dict[str, dict[tuple[int, int], set[int]]] = {"local": {}, "global": {}}
    context_of: dict[str, Any] = {}

    def look(transition: Transition, context: Any) -> None:
        if transition.round:
            senders = draw_senders(transition, context.local, 2, context)
            place = transition.run, transition.round
            chosen[transition.level].setdefault(place, set()).update(sender.client for sender in senders)
            context_of[transition.level] = context

    for level in ("local", "global"):
        looked_at(scenario(), look, level)
    assert chosen["local"] == chosen["global"]
    assert all(len(clients) == 2 for clients in chosen["local"].values())
    assert len({frozenset(clients) for clients in chosen["local"].values()}) > 1
