"""Tests of `fedmem/probes/activation_membership.py`: a unit that fires for one example alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.errors import ScenarioError
from fedmem.probes import activation_membership
from fedmem.probes.activation_membership import inverse_covariance, unit_for
from tests.probes.dishonest_helpers import measured, values

PROBE: dict[str, Any] = {"kind": "activation_membership", "runs": 4, "victims": 4}
WHOLE: dict[str, Any] = {"kind": "sgd", "lr": 0.1, "epochs": 2, "batch_size": 8}
DECAYED: dict[str, Any] = {**WHOLE, "weight_decay": 0.1}
CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "decay": {"client": DECAYED},
    "momentum": {"client": {**DECAYED, "momentum": 0.9}},
    "proximal": {"client": DECAYED, "strategy": {"kind": "fedprox", "mu": 0.5}},
    "clip": {"client": DECAYED, "defences": [{"kind": "clip", "norm": 0.01}]},
    "scaffold": {"client": DECAYED, "strategy": {"kind": "scaffold"}, "rounds": 2},
    "feddyn": {"client": WHOLE, "strategy": {"kind": "feddyn"}, "rounds": 2},
}


def rates(rows: list[Any], place: str = "owner") -> tuple[float, float]:
    """The true and the false positive rate."""
    return tuple(np.mean(values(rows, "activation", place=place, coin=coin)) for coin in (None, "out"))  # type: ignore[return-value]


def test_a_unit_fires_for_its_example_and_hardly_for_others() -> None:
    rng = np.random.default_rng(0)
    population, others = rng.standard_normal((2, 500, 20)) * np.linspace(0.5, 2, 20)
    mean, inverse = population.mean(0), inverse_covariance(population)
    false = []
    for example in others[:50]:
        weight, bias = unit_for(example, mean, inverse, 0.9)
        assert weight @ example + bias == pytest.approx(0.1)
        assert weight @ mean + bias == pytest.approx(-0.9)
        false.append((others @ weight + bias > 0).sum() - 1)
    assert np.mean(false) < 1
    assert unit_for(mean, mean, inverse, 0.9)[1] == -1.0, "no unit fires for the mean alone"


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_member_is_detected_after_many_steps(changes: dict[str, Any]) -> None:
    """What changes all weights alike says nothing about members, and does not hide them."""
    rows = measured(PROBE, **{"client": WHOLE} | changes)
    true, false = rates(rows)
    assert true == 1.0
    assert false < 0.25
    stranger = rates(rows, "others")
    assert abs(stranger[0] - stranger[1]) < 0.25


@pytest.mark.parametrize("kind", ["scaffold", "feddyn"])
def test_corrections_are_taken_off(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A server that forgets what it asked of its clients takes every unit for moved."""
    monkeypatch.setattr(activation_membership, "train_without_data", lambda sender, start, steps, context: start)
    assert rates(measured({**PROBE, "rounds": [2]}, **CHANGES[kind])) == (1.0, 1.0)


def test_noise_moves_every_unit() -> None:
    defences = [{"kind": "clip", "norm": 1.0}, {"kind": "noise", "multiplier": 0.01, "norm": 1.0}]
    assert rates(measured(PROBE, client=WHOLE, defences=defences)) == (1.0, 1.0)


@pytest.mark.parametrize("broken", ["threshold", "sign"])
def test_a_broken_unit_has_no_advantage(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def unit(example: Any, mean: Any, inverse: Any, margin: float) -> Any:
        weight, bias = unit_for(example, mean, inverse, margin)
        return (weight, 10.0) if broken == "threshold" else (-weight, bias)

    monkeypatch.setattr(activation_membership, "unit_for", unit)
    true, false = rates(measured(PROBE, client=WHOLE))
    assert abs(true - false) < 0.25


def test_it_needs_a_population() -> None:
    with pytest.raises(ScenarioError, match=r"the population has 0 rows. Set population: 200"):
        measured(PROBE, population=0)
