"""FedNova, SCAFFOLD, FedDyn: by hand, on problems with a known minimum, and through the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.errors import ScenarioError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.strategies._rule import Arrays, Round
from fedmem.strategies.fedavg import FedAvg
from fedmem.strategies.feddyn import FedDyn
from fedmem.strategies.fednova import FedNova
from fedmem.strategies.scaffold import Scaffold
from tests.strategies.client_strategies_helpers import CENTRE, CURVATURE, STEPS, trained
from tests.tiny import tiny

# --- quadratics: client k has the loss a_k (w - b_k)^2 / 2 ------------------------------------------------------------

MINIMUM = float((CURVATURE * CENTRE).sum() / CURVATURE.sum())
"""Of the mean of their losses."""


def two_of_four(round_number: int) -> Sequence[int]:
    return sorted(np.random.default_rng(round_number).permutation(4)[:2].tolist())


@pytest.mark.parametrize("who", [lambda round_number: range(4), two_of_four], ids=["everyone", "two of four"])
@pytest.mark.parametrize("strategy", [Scaffold(), FedDyn(alpha=1.0)], ids=lambda s: type(s).__name__)
def test_corrected_clients_find_the_minimum_of_the_mean_loss(strategy: Any, who: Any) -> None:
    """Whatever their numbers of steps, where averaging finds another point, or none."""
    # a client of FedDyn has to come near the minimum of its own loss
    steps = STEPS if isinstance(strategy, Scaffold) else [25] * 4
    found, state = trained(strategy, 120, lr=0.1, who=who, steps=steps)
    assert found == pytest.approx(MINIMUM, abs=1e-3)
    own = CURVATURE * (MINIMUM - CENTRE)
    np.testing.assert_allclose(state["own:w"][0, :, 0], own, atol=0.02)
    averaged, _ = trained(FedAvg(), 30, lr=0.1, who=who, steps=steps)
    assert abs(averaged - MINIMUM) > 0.1


class Backwards(Scaffold):
    """A SCAFFOLD whose correction has the wrong sign."""

    def payload(self, state: Arrays, clients: torch.Tensor) -> Arrays:
        return {name: -value for name, value in super().payload(state, clients).items()}


def test_flipped_correction_misses_the_minimum() -> None:
    found, _ = trained(Backwards(), 60)
    assert not abs(found - MINIMUM) < 0.1


@pytest.mark.parametrize("kind", [Scaffold, FedDyn])
def test_global_control_is_the_mean_of_the_clients_controls(kind: Any) -> None:
    _, state = trained(kind(), 5, who=two_of_four)
    assert state["own:w"].shape == (1, 4, 1)
    assert float(state["own:w"].mean(dim=1)) == pytest.approx(float(state["all:w"]), abs=1e-12)
    assert float(state["all:w"].abs()) > 0.01


@pytest.mark.parametrize("strategy", [Scaffold(), FedDyn(alpha=0.5)], ids=["scaffold", "feddyn"])
def test_control_mean_holds_where_clients_appear_one_by_one(strategy: Any) -> None:
    """In an app of one's own nobody says beforehand how many clients there are, so the tables grow."""
    model = {"w": torch.zeros((1, 2), dtype=torch.float64)}
    state = strategy.state(model, 0)
    for number, cohort in enumerate(([0, 1], [2, 3], [4, 0]), start=1):
        present = torch.ones((1, 2), dtype=torch.bool)
        sent = {"w": model["w"][:, None] + torch.tensor([[[1.0, -2.0], [0.5, number]]], dtype=torch.float64)}
        model, state = strategy.rule(
            state,
            Round(
                number=number,
                before=model,
                sent=sent,
                weights=present.double(),
                present=present,
                clients=torch.tensor([cohort]),
                report={"steps": 2 * present.double(), "lr": 0.1 * present.double()},
            ),
        )
        assert state["own:w"].shape[1] == min(2 * number, 5)
        torch.testing.assert_close(state["all:w"], state["own:w"].mean(dim=1))


# --- FedNova ----------------------------------------------------------------------------------------------------------


# --- in a federation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fednova", "scaffold", "feddyn"])
def test_with_and_without_messages_stacked_and_one_by_one(kind: str) -> None:
    """Clients of different sizes and a decaying learning rate, some of them away."""
    changes: dict[str, Any] = {
        "strategy": {"kind": kind},
        "partition": {"kind": "quantity_skew"},
        "runs": 2,
        "rounds": 3,
        "client": {"kind": "sgd", "lr": 0.2, "decay": 0.8, "batch_size": 8},
    }
    found = {}
    for executor in ("one_by_one", "stacked"):
        for server in ("rule", "messages"):
            scenario = tiny(**changes, speed={"executor": executor, "server": server, "workers": 1})
            found[executor, server] = simulate(scenario, build(scenario)).params
        for one, other in zip(found[executor, "rule"], found[executor, "messages"], strict=True):
            assert all(torch.equal(value, other[name]) for name, value in one.items())
    for one, other in zip(found["one_by_one", "rule"], found["stacked", "rule"], strict=True):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)
    averaging = tiny(**{**changes, "strategy": {"kind": "fedavg"}}, speed={"executor": "stacked"})
    plain = simulate(averaging, build(averaging)).params[0]
    assert not all(torch.allclose(v, plain[n], atol=1e-3) for n, v in found["stacked", "rule"][0].items())


@pytest.mark.parametrize(("kind", "fields"), [("fednova", {}), ("scaffold", {}), ("fednova", {"client_momentum": 0.5})])
def test_a_client_with_another_momentum_is_refused(kind: str, fields: dict[str, Any]) -> None:
    momentum = fields.get("client_momentum", 0.0)
    with pytest.raises(
        ScenarioError, match=rf"client.momentum: strategy {kind} .* reckons with momentum: {momentum:g}"
    ):
        tiny(strategy={"kind": kind, **fields}, client={"kind": "sgd", "momentum": 0.9})
    tiny(strategy={"kind": kind, **fields}, client={"kind": "sgd", "momentum": momentum})


def test_other_clients_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"does not understand .*scaffold"):
        tiny(strategy={"kind": "scaffold"}, client={"kind": "tests.toys:Deaf"})


def test_fednova_and_scaffold_need_the_clients_steps() -> None:
    there = torch.ones((1, 1), dtype=torch.bool)
    w = torch.zeros((1, 1))
    silent = Round(
        number=1, before={"w": w}, sent={"w": w[None]}, weights=there.double(), present=there, clients=there.long()
    )
    for strategy in (FedNova(), Scaffold()):
        with pytest.raises(ValueError, match="needs the steps of every client"):
            strategy.rule(strategy.state({"w": w}, 2), silent)
