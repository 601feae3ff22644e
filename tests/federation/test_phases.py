"""Tests of `fedmem/federation/phases.py`: who trains on what in each phase, on whole federations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.federation import Federation, digest
from fedmem.errors import ComponentError
from fedmem.federation import build
from fedmem.federation.phases import forgotten_rows, rewind, start_from
from fedmem.federation.roster import rosters
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Scenario

TEXT = """
runs: 6
rounds: 4
clients: 3
population: 20
references: 10
dataset: {kind: synthetic}
model: {kind: mlp, hidden: [4]}
"""
THREE = """
injections:
  - {kind: mislabelled, per_client: 2, copies: 2}
  - {kind: random_pattern, per_client: 2, start: 3, stop: 6}
  - {kind: typical, per_client: 2}
"""
HELD = "injections: [{kind: existing, per_client: 3}, {kind: mislabelled, per_client: 2}]"
UNMASKED = "injections: [{kind: typical, per_client: 1, copies: 2, unmasked: 1}]"


def parsed(then: str = "", more: str = THREE, *overrides: str) -> Scenario:
    return parse_scenario(TEXT + more + (f"\nthen: {then}" if then else ""), "phases", overrides)


def built(*args: Any) -> Federation:
    return build.build(parsed(*args))


@pytest.mark.parametrize(("more", "kind"), [(THREE, "mislabelled"), (HELD, "existing"), (HELD, "mislabelled")])
def test_the_first_phase_is_what_it_is_alone(more: str, kind: str) -> None:
    alone, phase = built("", more), built(f"[{{rounds: 3, forget: {{kinds: [{kind}]}}}}]", more)
    known = alone.replacement >= 0
    assert np.array_equal(phase.replacement[known], alone.replacement[known])
    assert (phase.replacement >= 0).sum() > known.sum()
    assert np.array_equal(phase.audit.is_in, alone.audit.is_in)
    for name in ("inputs", "targets", "ids"):
        assert np.array_equal(getattr(phase.store, name), getattr(alone.store, name))


@pytest.mark.parametrize(("more", "kind"), [(THREE, "mislabelled"), (HELD, "existing")])
def test_nobody_trains_on_what_is_forgotten(more: str, kind: str) -> None:
    alone, phase = built("", more), built(f"[{{rounds: 3, forget: {{kinds: [{kind}]}}}}]", more)
    copies = phase.trained_rows[phase.audit.kind[phase.audit.subject] == kind]
    for run in range(6):
        for client in range(3):
            before, now = alone.rows(run, client, 3), phase.rows(run, client, 1)
            assert len(before) == len(now)
            assert not np.isin(now, copies).any()
            changed = before != now
            assert np.isin(before[changed], alone.trained_rows).all()
            assert len(np.unique(now)) == len(now), "a replacement row is used once"
    was_in = phase.audit.is_in[:, phase.audit.kind == kind]
    assert was_in.sum() == was_in.size // 2, "coins stay those of the first training"


def test_an_out_run_is_the_same_in_both_phases() -> None:
    alone, phase = built(), built("[{rounds: 3, forget: {kinds: [mislabelled, typical]}}]")
    out = ~phase.audit.is_in[:, phase.audit.subject] & (phase.audit.kind != "random_pattern")[phase.audit.subject]
    assert np.array_equal(phase.replacement[out], alone.replacement[out])


def test_without_replacement_rows_places_stay_empty() -> None:
    phase = built("[{rounds: 3, forget: {kinds: [mislabelled]}}]", THREE, "exclusion=remove")
    rows = np.concatenate([phase.rows(run, client, 1) for run in range(6) for client in range(3)])
    assert not np.isin(rows, phase.trained_rows[phase.audit.kind[phase.audit.subject] == "mislabelled"]).any()
    assert (phase.replacement == -1).all()


def test_windows_go_on_over_phases() -> None:
    first, second = built(), built("[{rounds: 5}]")
    patterns = np.flatnonzero(first.audit.kind == "random_pattern")

    def rounds(federation: Federation, last: int) -> list[int]:
        return [number for number in range(1, last + 1) if federation.audit.is_active(number)[patterns].all()]

    assert (rounds(first, 4), rounds(second, 5)) == ([3, 4], [1, 2])
    run, example = np.argwhere(second.audit.is_in[:, patterns])[0]
    owner, row = second.audit.owner[patterns[example]], second.audit_start + patterns[example]
    assert row in second.rows(int(run), int(owner), 2)
    assert row not in second.rows(int(run), int(owner), 3)


def test_later_phases_keep_the_rows_of_earlier_ones() -> None:
    then = ["{rounds: 3, forget: {kinds: [mislabelled]}}", "{rounds: 2, forget: {kinds: [typical]}}"]
    second, third = built(f"[{then[0]}]"), built(f"[{', '.join(then)}]")
    known = second.replacement >= 0
    assert np.array_equal(third.replacement[known], second.replacement[known])
    gone = np.isin(third.audit.kind, ["mislabelled", "typical"])
    assert not third.audit.is_active(1)[gone].any(), "what was forgotten stays forgotten"


def test_an_absent_client_leaves_its_place_empty() -> None:
    scenario = parsed("[{rounds: 3, forget: {clients: [1]}}]")
    phase = build.build(scenario)
    assert phase.absent_clients == (1,)
    assert {r.cohort(n) for r in rosters(scenario, phase, range(6)).values() for n in (1, 2, 3)} == {(0, 2)}
    assert phase.audit.client_in is None, "its coins stay as they were"
    assert digest(phase) != digest(built("[{rounds: 3}]"))


def test_removed_examples_change_nothing_else() -> None:
    whole, less = built(), built("", THREE, "removed={examples: [0, 5, 13]}")
    assert less.audit.kind[[0, 5, 13]].tolist() == [f"{kind}_removed" for kind in whole.audit.kind[[0, 5, 13]]]
    known = whole.replacement >= 0
    assert np.array_equal(less.replacement[known], whole.replacement[known])
    gone = np.isin(less.audit.subject, [0, 5, 13])
    for run in range(6):
        for client in range(3):
            before, now = whole.rows(run, client, 3), less.rows(run, client, 3)
            assert len(before) == len(now)
            assert not np.isin(now, less.trained_rows[gone]).any()
            assert np.isin(before[before != now], whole.trained_rows[gone]).all()


def test_places_of_removed_examples_may_stay_empty() -> None:
    whole, less = built(), built("", THREE, "removed={examples: [0], exclusion: remove}")
    client = int(whole.audit.owner[0])
    sizes = [(len(whole.rows(run, client, 1)), len(less.rows(run, client, 1))) for run in range(6)]
    assert all(before - now == 2 for before, now in sizes), "both copies, in every run"


@pytest.mark.parametrize(
    ("removed", "more", "part"),
    [
        ("{examples: [99]}", THREE, "audit example 99 does not exist; use 0 to 17"),
        (
            "{examples: [1]}",
            UNMASKED,
            "cannot be removed",
        ),
    ],
)
def test_what_cannot_be_removed_is_refused(removed: str, more: str, part: str) -> None:
    with pytest.raises(ComponentError, match=part):
        built("", more, f"removed={removed}")


def test_removal_and_phases_go_together() -> None:
    then = "[{rounds: 3, forget: {kinds: [typical]}}]"
    first, second = built("", THREE, "removed={examples: [0]}"), built(then, THREE, "removed={examples: [0]}")
    known = first.replacement >= 0
    assert np.array_equal(first.replacement[known], second.replacement[known])


def test_a_repetition_has_the_same_federation() -> None:
    assert digest(built()) == digest(built("", THREE, "repeat=2"))


TWO = """
injections:
  - {kind: mislabelled, per_client: 2, copies: 2}
  - {kind: typical, per_client: 2}
"""


def forgotten(then: str, more: str = TWO) -> tuple[Federation, list[dict[int, list[int]]]]:
    scenario = parsed(then, more)
    federation = build.build(scenario)
    found = [forgotten_rows(scenario, federation, run) for run in range(6)]
    return federation, [{client: rows.tolist() for client, rows in of_run.items()} for of_run in found]


def test_rows_to_forget_were_trained_on_and_are_no_more() -> None:
    federation, found = forgotten("[{rounds: 3, forget: {kinds: [mislabelled]}}]")
    for run in range(6):
        for client in range(3):
            before, after = (set(federation.rows(run, client, number).tolist()) for number in (0, 1))
            assert set(found[run].get(client, ())) == before - after
    assert any(found)


def test_a_forgotten_client_forgets_all_that_it_held() -> None:
    federation, found = forgotten("[{rounds: 3, forget: {kinds: [mislabelled], clients: [1]}}]")
    for run in range(6):
        assert found[run][1] == sorted(set(federation.rows(run, 1, 0).tolist()))


def test_what_an_earlier_phase_forgot_is_not_forgotten_again() -> None:
    first = "{rounds: 3, forget: {kinds: [mislabelled], clients: [1]}}"
    _, found = forgotten(f"[{first}, {{rounds: 1, forget: {{kinds: [mislabelled, typical], clients: [1]}}}}]")
    federation, _ = forgotten("[{rounds: 3}, {rounds: 1, forget: {kinds: [typical]}}]")
    rows = set(federation.trained_rows[federation.audit.kind[federation.audit.subject] == "typical"].tolist())
    assert any(found)
    for of_run in found:
        assert set().union(*map(set, of_run.values())) <= rows


def test_a_client_that_left_before_has_nothing_to_forget() -> None:
    """Its examples belong to a kind that only a later phase forgets."""
    _, found = forgotten("[{rounds: 3, forget: {clients: [1]}}, {rounds: 1, forget: {kinds: [typical]}}]")
    assert set().union(*found) == {0, 2}


def test_only_clients_that_take_part_learn_again() -> None:
    learnt = "{rounds: 2, relearn: {kinds: [typical]}, estimators: [], probes: []}"
    forget = "{rounds: 1, forget: {kinds: [typical], clients: [1]}}"
    audit = built(f"[{forget}, {learnt}]").audit
    assert audit.relearnt is not None
    assert np.array_equal(audit.relearnt, (audit.kind == "typical") & (audit.owner != 1))
    owned = "injections: [{kind: typical, per_client: 1, clients: [1]}, {kind: mislabelled, per_client: 1}]"
    with pytest.raises(ComponentError, match=r"after.relearn.kinds\[0\]: all clients with examples of typical"):
        built(f"[{forget}, {learnt}]", owned)


def test_without_a_phase_nothing_is_forgotten() -> None:
    assert not any(forgotten("")[1])


def test_rewound_clients_never_train_on_what_is_forgotten() -> None:
    federation, found = forgotten("[{rounds: 3, forget: {kinds: [mislabelled]}}]")
    back = rewind(federation)
    for run in range(6):
        for client in range(3):
            for number in (1, 4):
                assert np.array_equal(back.rows(run, client, number), federation.rows(run, client, 1))
    assert any(found)


def test_an_unlearner_that_replays_rounds_refuses_windows() -> None:
    then = "[{rounds: 3, forget: {kinds: [typical]}, unlearner: {kind: fed_eraser}}]"
    stored = ("observe.every=1", "save={models: {rounds: [1, 2, 3, 4], levels: [local, global]}}")
    with pytest.raises(ComponentError, match=r"random_pattern\) has a window; leave start and stop out"):
        build.build(parsed(then, THREE, *stored))
    build.build(parsed(then, TWO, *stored))


def test_where_a_phase_starts_from_is_no_part_of_its_hash() -> None:
    federation = built()
    models = (federation.initial,) * 6
    assert digest(start_from(federation, models, Path("a"))) == digest(start_from(federation, models, Path("b")))
    assert start_from(federation, models).before is None
