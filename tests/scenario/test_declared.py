"""What components declare of themselves decides which scenarios are refused; nothing is recognised by its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmem
from fedmem.contracts.client import Schedule
from fedmem.errors import ComponentError
from fedmem.probes._cases import Scope, schedule_of
from tests.declaring import Scheduled, Unscheduled
from tests.lab import Lab
from tests.scenario.declared_helpers import LEFT_OUT
from tests.tiny import tiny

# --- comparisons with held-out examples -------------------------------------------------------------------------------


# --- estimators over clients and canaries -----------------------------------------------------------------------------


def test_own_estimator_over_clients_runs_without_injections(tmp_path: Path) -> None:
    changes = LEFT_OUT | {"observe": {"every": 4, "levels": ["global"]}, "rounds": 2}
    changes["observe"] = {"every": 2, "levels": ["global"]}
    folder = fedmem.run(tiny(**changes, estimators=[{"kind": "tests.declaring:OverClients"}]), out=tmp_path)
    frame = fedmem.read(folder).measurements
    assert "client 0" in set(frame[frame.metric == "client_influence"].subject)


# --- schedules --------------------------------------------------------------------------------------------------------


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
        vars(lab)["first_step"] = lambda transition: (sent, lab.batches(0, 2, 0)[0])
    scope = Scope(runs=1, victims=3, max_images=64, knows=())
    (case,) = scope.cases(view, [moved], lab)
    return case.target.gradient, true


@pytest.mark.parametrize("view", ["message", "first_step"])
def test_update_is_divided_by_the_clients_declared_schedule(view: str) -> None:
    gradient, true = recovered(Scheduled(), view)
    for name, value in true.items():
        np.testing.assert_allclose(gradient[name].numpy(), value.numpy(), rtol=1e-6)


def test_client_with_sgds_field_names_is_not_treated_as_sgd() -> None:
    with pytest.raises(ComponentError, match=r"Unscheduled has no method schedule\("):
        recovered(Unscheduled(), "message")


@pytest.mark.parametrize("rates", [[0.1], [0.1, -0.1, 0.1], [0.1, float("nan"), 0.1]])
def test_a_schedule_that_cannot_be_is_refused(rates: list[float]) -> None:
    class Wrong(Scheduled):
        def schedule(self, round_number: int, num_steps: int) -> Schedule:
            return Schedule(learning_rates=np.array(rates))

    with pytest.raises(ComponentError, match=r"for 3 steps\. It must give one finite number above 0 for each step"):
        schedule_of(2, 15, Lab(client=Wrong()))
