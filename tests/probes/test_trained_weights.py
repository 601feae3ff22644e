"""Tests of `fedmem/probes/trained_weights.py`."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.attacks.grey import Grey
from fedmem.attacks.kkt import Kkt
from fedmem.contracts.evidence import TrainedBank
from fedmem.contracts.probe import BuiltNetwork
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.probes.trained_weights import TrainedWeights, candidate_spread
from tests.lab import Lab
from tests.probes.leakage_helpers import Asks, ins, outs
from tests.tiny import tiny

QUICK = {"kind": "kkt", "steps": 20, "restarts": 1}


def bank_of(attack: dict[str, Any] = QUICK, **changes: Any) -> TrainedBank:
    settings: dict[str, Any] = {
        "runs": 4, "rounds": 1, "model": {"kind": "mlp", "hidden": [6], "biases": "first"},
        "injections": [{"kind": "typical", "per_client": 4}], "observe": {"every": 1, "levels": ["local", "global"]},
        "sampler": {"kind": "everyone"}, "dataset": {"kind": "synthetic", "rows": 100, "test": 20},
        "probes": [{"kind": "trained_weights", "attack": attack}],
    }  # fmt: skip
    scenario = tiny(**{**settings, **changes})
    return simulate(scenario, build(scenario))


def values(bank: TrainedBank, metric: str, level: str, coin: str | None = None) -> list[float]:
    return [
        row.reading.value
        for row in bank.measurements
        if row.run is not None
        and row.reading.metric == metric
        and row.level == level
        and row.reading.labels.get("coin") == coin
    ]


def test_an_attack_is_shown_weights_and_no_update() -> None:
    lab, shown = Lab(), list[Any]()
    (transition, *_) = transitions = lab.local()
    TrainedWeights(attack=Asks((), shown), rounds=(transition.round,)).observe(transitions, lab)
    assert shown
    sent = [{name: value.double() for name, value in other.sent.items()} for other in transitions]
    for target in shown:
        assert (target.update, dict(target.gradient), target.knows, target.labels) == (None, {}, "count", None)
        assert any(
            all(torch.allclose(target.params[name].double(), value) for name, value in other.items()) for other in sent
        )


def test_victims_and_controls_are_scored_alike() -> None:
    lab = Lab()
    transitions = lab.local()
    readings = TrainedWeights(attack=Kkt(steps=3, restarts=1), rounds=(transitions[0].round,)).observe(transitions, lab)
    assert {one.metric for one in ins(readings)} == {one.metric for one in outs(readings)}
    assert {one.labels.get("view") for _, one in readings} == {"model"}
    assert {one.labels.get("knows") for _, one in readings} == {"count+labels"}


def test_owner_and_aggregate_have_differences_and_residuals() -> None:
    bank = bank_of()
    for level in ("local", "global"):
        assert all(0 < value <= 1 for value in values(bank, "kkt_residual", level))
        assert min(values(bank, "candidate_spread", level)) > 0
        rows = {
            (row.reading.metric, row.reading.labels.get("coin")): row.reading
            for row in bank.measurements
            if row.scope == "summary" and row.level == level
        }
        difference = rows["identified.difference", None]
        assert difference.n == rows["identified", None].n + rows["identified", "out"].n > 0
        assert difference.low <= difference.value <= difference.high
    assert len(values(bank, "kkt_residual", "global")) == 4


@pytest.mark.parametrize("attack", [{"kind": "grey"}, {"kind": "class_inversion", "steps": 5}])
def test_controls_that_read_no_update_can_be_attacks(attack: dict[str, Any]) -> None:
    assert values(bank_of(attack), "identified", "local")


def test_without_training_out_is_as_in() -> None:
    """The null: one tiny step leaves nothing of any row in the weights."""
    bank = bank_of(client={"kind": "sgd", "lr": 1e-6, "steps": 1, "batch_size": 8}, runs=8)
    (row,) = [
        row.reading
        for row in bank.measurements
        if row.scope == "summary" and row.level == "local" and row.reading.metric == "psnr.difference"
    ]
    assert row.low <= 0 <= row.high
    assert min(values(bank, "kkt_residual", "local")) > 0.5, "and rows do not explain the weights"


def test_weight_decay_to_a_stationary_point_has_a_small_residual() -> None:
    """A positive control of the residual: theta is minus the gradient of the loss, divided by the decay."""
    client = {"kind": "sgd", "lr": 0.5, "steps": 1500, "batch_size": 500, "weight_decay": 0.05}
    attack = {"kind": "kkt", "steps": 2, "restarts": 1}
    two = {"kind": "synthetic", "rows": 100, "test": 20, "classes": 2}
    bank = bank_of(attack, client=client, runs=2, model={"kind": "logistic"}, dataset=two)
    assert max(values(bank, "kkt_residual", "local")) < 0.01
    assert max(values(bank, "distance", "local")) > 0.05, "two steps are no search"


def test_diverged_models_count_as_unknown() -> None:
    client = {"kind": "sgd", "lr": 1e38, "steps": 6, "batch_size": 500, "weight_decay": 0.1}
    bank = bank_of(client=client, model={"kind": "logistic"}, tolerate={"not_finite": True}, runs=2)
    for metric in ("kkt_residual", "loss_gradient", "least_margin", "distance"):
        assert all(math.isnan(value) for value in values(bank, metric, "local"))


@pytest.mark.parametrize(
    ("fields", "attacked"),
    [({}, {3}), ({"rounds": (1, 2)}, {1, 2}), ({"every": 2}, {2, 3}), ({"every": 1}, {1, 2, 3})],
)
def test_rounds_and_every_choose_what_is_attacked(fields: dict[str, Any], attacked: set[int]) -> None:
    lab, probe = Lab(), TrainedWeights(attack=Grey(), **fields)
    transitions = [dataclasses.replace(one, round=0) for one in lab.local()]
    lab.observed_rounds = (0, 1, 2, 3)
    found = {
        number
        for number in lab.observed_rounds
        if probe.observe([dataclasses.replace(one, round=number) for one in transitions], lab)
    }
    assert found == attacked


def test_a_network_without_margins_is_refused() -> None:
    def problems(network: torch.nn.Module) -> list[str]:
        built = BuiltNetwork(network=network, initial={}, shape=(3,), token_inputs=False, personal=(), population=0)
        return [problem.message for problem in TrainedWeights(attack=Grey()).network_problems(built)]

    assert problems(torch.nn.Linear(3, 2)) == []
    assert "outputs of one row have the shape (1,)" in problems(torch.nn.Linear(3, 1))[0]
    assert len(problems(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Flatten(0)))) == 1


def test_spread_of_collapsed_candidates_is_zero() -> None:
    assert candidate_spread(np.full((3, 2, 2), 0.4)) == 0
    assert math.isnan(candidate_spread(np.zeros((1, 4))))
    assert candidate_spread(np.array([[0.0, 0.0], [1.0, 1.0]])) == 1
