"""What components declare of themselves decides which scenarios are refused; nothing is recognised by its name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fedmem
from fedmem.clients.dp_sgd import DpSgd
from fedmem.clients.sgd import Sgd
from fedmem.contracts.client import PrivateAlgorithm, Schedule
from fedmem.contracts.needs import needs_of
from fedmem.errors import ComponentError, ScenarioError
from fedmem.probes._cases import Scope, schedule_of
from fedmem.probes._first_step import first_step_of
from fedmem.scenario.catalogue import build, kinds, load
from fedmem.scenario.describe import example
from tests.declaring import Scheduled, Unscheduled
from tests.lab import Lab
from tests.tiny import tiny

ATTACK = {"kind": "inverting_gradients", "steps": 2}
COMPARING: list[dict[str, Any]] = [
    {"kind": "leakage", "attack": ATTACK},
    {"kind": "information"},
    {"kind": "extraction"},
    {"kind": "tests.declaring:Comparing"},
]
KINDS = [str(probe["kind"]) for probe in COMPARING]


def refusal(**changes: Any) -> list[tuple[str, str]]:
    """Path and message of every problem of the tiny scenario with these changes; none where it is accepted."""
    try:
        tiny(**changes)
    except ScenarioError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


# --- comparisons with held-out examples -------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", COMPARING, ids=KINDS)
def test_a_probe_that_compares_with_held_out_examples_needs_masked_copies(probe: dict[str, Any]) -> None:
    kept = [{"kind": "typical", "per_client": 2, "copies": 3, "unmasked": 2}]
    ((path, message),) = refusal(injections=kept, probes=[probe])
    assert path == "injections[0].unmasked"
    assert f"the probe {probe['kind']} compares" in message
    assert "write unmasked: 0" in message
    assert not refusal(injections=[kept[0] | {"unmasked": 0}], probes=[probe])


@pytest.mark.parametrize("probe", COMPARING, ids=KINDS)
def test_a_probe_that_compares_with_held_out_examples_needs_cohorts_that_no_coin_picks(probe: dict[str, Any]) -> None:
    greedy = {"sampler": {"kind": "power_of_choice", "size": 3, "candidates": 4}, "probes": [probe]}
    ((path, message),) = refusal(**greedy, roster="per_run")
    assert path == "probes[0]"
    assert f"{probe['kind']} compares examples that are in with examples that are held out" in message
    assert "power_of_choice" in message
    assert not refusal(**greedy, roster="pilot")
    assert not refusal(probes=[probe], roster="per_run"), "a sampler that reads no coin picks alike in all runs"


@pytest.mark.parametrize("estimator", [{"kind": "audit"}, {"kind": "tests.declaring:Guessing"}])
def test_an_estimator_that_compares_with_held_out_examples_needs_masked_copies(estimator: dict[str, Any]) -> None:
    kept = [{"kind": "typical", "per_client": 2, "copies": 3, "unmasked": 2}]
    ((path, message),) = refusal(injections=kept, estimators=[estimator])
    assert path == "injections[0].unmasked"
    assert f"the estimator {estimator['kind']} compares" in message


def test_what_compares_nothing_is_not_refused() -> None:
    kept = [{"kind": "typical", "per_client": 2, "copies": 3, "unmasked": 2}]
    greedy = {"kind": "power_of_choice", "size": 3, "candidates": 4}
    silent = [{"kind": "utility"}, {"kind": "tests.declaring:Silent"}]
    assert not refusal(injections=kept, probes=silent, sampler=greedy, roster="per_run")
    # what the last copy adds is what its memorisation is
    assert not refusal(injections=kept, estimators=[{"kind": "memorisation"}])


def test_the_shipped_probes_that_have_controls_say_so() -> None:
    needs = {kind: needs_of(build("probe", example("probe", kind))) for kind in kinds("probe")}
    assert all(needs[kind].compares_held_out for kind in ("leakage", "information", "extraction"))
    assert all(needs[kind].reads_gradients for kind in ("leakage", "information"))
    assert not any(needs[kind].compares_held_out or needs[kind].reads_gradients for kind in ("utility", "client_gap"))


# --- estimators over clients and canaries -----------------------------------------------------------------------------

LEFT_OUT = {"injections": [], "leave_out": {"clients": "all"}}


@pytest.mark.parametrize("kind", ["client_influence", "tests.declaring:OverClients"])
def test_an_estimator_over_clients_needs_clients_to_leave_out_and_no_injections(kind: str) -> None:
    estimators = [{"kind": kind}]
    assert not refusal(**LEFT_OUT, estimators=estimators)
    ((path, message),) = refusal(estimators=estimators)
    assert path == "estimators[0]"
    assert f"{kind} compares runs with and without a client" in message
    model = {"model": {"kind": "mlp", "hidden": [8]}, "client": {"kind": "fedper"}}
    assert any(
        f"{kind} compares one aggregate for all" in m for _, m in refusal(**LEFT_OUT, **model, estimators=estimators)
    )


def test_an_estimator_over_clients_of_ones_own_is_run_without_injections(tmp_path: Any) -> None:
    changes = LEFT_OUT | {"observe": {"every": 4, "levels": ["global"]}, "rounds": 2}
    changes["observe"] = {"every": 2, "levels": ["global"]}
    folder = fedmem.run(tiny(**changes, estimators=[{"kind": "tests.declaring:OverClients"}]), out=tmp_path)
    frame = fedmem.read(folder).measurements
    assert "client 0" in set(frame[frame.metric == "client_influence"].subject)


@pytest.mark.parametrize("kind", ["exposure", "exposure_skewnormal", "tests.declaring:Ranking"])
def test_an_estimator_that_ranks_canaries_needs_some(kind: str) -> None:
    found = refusal(injections=[{"kind": "typical", "per_client": 2}], estimators=[{"kind": kind}])
    assert any(path == "estimators[0]" and f"{kind} ranks canaries" in message for path, message in found)


# --- schedules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", [COMPARING[0], COMPARING[1], COMPARING[3]], ids=["leakage", "information", "own"])
def test_a_probe_that_reads_gradients_needs_a_client_that_says_its_schedule(probe: dict[str, Any]) -> None:
    ((path, message),) = refusal(client={"kind": "tests.declaring:Unscheduled"}, probes=[probe])
    assert path == "probes[0]"
    assert "tests.declaring:Unscheduled does not say them" in message
    assert "schedule(round_number, num_steps)" in message
    assert not refusal(client={"kind": "tests.declaring:Scheduled"}, probes=[probe])


def test_every_client_of_ours_says_its_schedule() -> None:
    for kind in kinds("client"):
        assert hasattr(load("client", kind), "schedule"), kind


@pytest.mark.parametrize("client", [Sgd(lr=0.5, decay=0.9, weight_decay=0.1), DpSgd(lr=0.5, decay=0.9)])
def test_the_schedule_of_sgd(client: Sgd | DpSgd) -> None:
    schedule = client.schedule(3, 4)
    np.testing.assert_allclose(schedule.learning_rates, [0.5 * 0.81] * 4, rtol=1e-15)
    assert schedule.weight_decay == (0.1 if isinstance(client, Sgd) else 0.0)


def recovered(client: Any, view: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The gradient that an attack is given of an update of one constant gradient, and this gradient."""
    lab = Lab(client=client)
    before = lab.federation.initial
    true = {name: value.double() * 0 + 0.3 for name, value in before.items()}
    rows = lab.rows(0, 0)
    rates = [client.lr / step for step in range(1, client.num_steps(len(rows)) + 1)]
    one = lab.local(runs=(0,), clients=(0,))[0]
    distance = rates[0] if view == "first_step" else sum(rates)
    sent = {name: (value.double() - distance * true[name]) for name, value in before.items()}
    moved = replace(one, sent=sent)
    if view == "first_step":
        lab.first_step = lambda transition: (sent, lab.batches(0, 2, 0)[0])  # type: ignore[method-assign]
    scope = Scope(runs=1, victims=3, max_images=64, knows=())
    (case,) = scope.cases(view, [moved], lab)
    return case.target.gradient, true


@pytest.mark.parametrize("view", ["message", "first_step"])
def test_an_update_is_divided_by_the_schedule_that_the_client_declares(view: str) -> None:
    gradient, true = recovered(Scheduled(), view)
    for name, value in true.items():
        np.testing.assert_allclose(gradient[name].numpy(), value.numpy(), rtol=1e-6)


def test_a_client_with_fields_of_the_usual_names_is_not_taken_for_sgd() -> None:
    with pytest.raises(ComponentError, match=r"Unscheduled has no method schedule\("):
        recovered(Unscheduled(), "message")


@pytest.mark.parametrize("rates", [[0.1], [0.1, -0.1, 0.1], [0.1, float("nan"), 0.1]])
def test_a_schedule_that_cannot_be_is_refused(rates: list[float]) -> None:
    class Wrong(Scheduled):
        def schedule(self, round_number: int, num_steps: int) -> Schedule:
            return Schedule(learning_rates=np.array(rates))

    with pytest.raises(ComponentError, match="for 3 steps; it must give one finite number above 0 for each step"):
        schedule_of(2, 15, Lab(client=Wrong()))


def test_the_first_step_of_any_client_is_its_first_batch_alone() -> None:
    for client in (Sgd(batch_size=4, epochs=3), Scheduled(batch_size=4), DpSgd(batch_size=4)):
        first = first_step_of(client)
        own, whole = (one.batches(10, np.random.default_rng(5)) for one in (first, client))
        assert first.num_steps(10) == 1
        assert first.num_steps(0) == 0
        np.testing.assert_array_equal(own, whole[:1])
        assert isinstance(first, PrivateAlgorithm) == isinstance(client, DpSgd), "attacks still see that it hides"
