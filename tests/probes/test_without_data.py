"""Tests of `fedmem/probes/_without_data.py`: the moves of a client that depend on no data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import Params
from fedmem.contracts.evidence import Transition
from fedmem.errors import ComponentError
from fedmem.probes._without_data import scale_of, train_without_data
from tests.observation.replay_helpers import looked_at
from tests.probes.dishonest_helpers import BRIEF
from tests.tiny import tiny

CLIENT: dict[str, Any] = {"kind": "sgd", "lr": 0.1, "steps": 3, "batch_size": 8, "weight_decay": 0.2, "momentum": 0.5}


@dataclass(frozen=True, kw_only=True)
class Normalised(Sgd):
    """Divides by the length of the gradient."""

    def step(self, state: Any, gradient: Any) -> Any:
        params = state["params"]
        return {**state, "params": {n: params[n] - g / g.norm() for n, g in gradient(params).items()}}


def moves(client: dict[str, Any], start_of: Any = lambda model: model, **changes: Any) -> list[tuple[Any, ...]]:
    """(payload, start, model without data, model sent) of each message after round 0."""
    seen = []

    def look(transition: Transition, context: Any) -> None:
        if transition.round:
            start = start_of(transition.before)
            _, payload = context.batches_and_payload(transition)
            steps = context.client.num_steps(transition.num_examples)
            seen.append((payload, start, train_without_data(transition, start, steps, context), transition.sent))

    looked_at(tiny(**{**BRIEF, "runs": 2, "client": client, **changes}), look)
    assert seen
    return seen


def test_decay_momentum_and_pull_are_those_of_the_definition() -> None:
    """By a loop: v = m v + mu (w − w_0) + decay w, and w = w − lr v."""
    strategy = {"kind": "feddyn", "alpha": 0.3}
    seen = moves(CLIENT | {"momentum": 0.0}, strategy=strategy, rounds=2)
    seen += moves(CLIENT, strategy={"kind": "fedprox", "mu": 0.4})
    has_linear = []
    for payload, start, alone, _ in seen:
        momentum, mu = (0.5, 0.4) if "mu" in payload and "linear:" not in "".join(payload) else (0.0, 0.3)
        for name, first in start.items():
            w, v = first.double(), torch.zeros_like(first).double()
            linear = payload.get(f"linear:{name}", torch.zeros_like(first)).double()
            has_linear.append(bool(linear.any()))
            for _ in range(3):
                v = momentum * v + linear + mu * (w - first) + 0.2 * w
                w = w - 0.1 * v
            torch.testing.assert_close(alone[name].double(), w, rtol=1e-5, atol=1e-6)
    assert any(has_linear)


def test_plain_steps_do_nothing_without_data() -> None:
    for _, start, alone, sent in moves(BRIEF["client"]):
        assert all(torch.equal(alone[name], value) for name, value in start.items())
        assert any(not torch.equal(sent[name], value) for name, value in start.items())


def test_noise_and_data_are_not_known() -> None:
    """The noise of `dp_sgd` and the rows have no part in it, so that a server does not take them off."""
    client = {"kind": "dp_sgd", "lr": 0.1, "steps": 2, "batch_size": 8, "noise_multiplier": 5.0}
    for _, start, alone, sent in moves(client):
        assert all(torch.equal(alone[name], value) for name, value in start.items())
        assert any(float((sent[name] - value).norm()) > 0.1 for name, value in start.items())


def test_a_client_that_cannot_do_without_data_is_refused() -> None:
    class Context:
        client = Normalised()

        def batches_and_payload(self, sender: Any) -> Any:
            return np.zeros((1, 1)), {}

    start: Params = {"w": torch.ones(2)}
    sender: Any = None
    with pytest.raises(ComponentError, match="Let step\\(\\) accept a gradient of zero, or leave the probe out"):
        train_without_data(sender, start, 1, Context())  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1.0, 0.37, 0.001])
def test_a_scale_is_that_of_units_that_no_row_moved(scale: float) -> None:
    rng = np.random.default_rng(0)
    drifts = 0.1 * rng.normal(size=(9, 5))
    gradients = rng.normal(size=(9, 5)) * (np.arange(9) < 6)[:, None]
    assert scale_of(scale * (drifts + gradients), drifts, np.ones(9)) == pytest.approx(scale)
    # a unit that a row moved along its drift is no majority
    gradients[0] = -0.5 * drifts[0]
    assert scale_of(scale * (drifts + gradients), drifts, np.ones(9)) == pytest.approx(scale)


def test_no_silent_unit_noise_and_no_drift_have_scale_one() -> None:
    rng = np.random.default_rng(1)
    drifts, gradients = rng.normal(size=(2, 6, 5))
    assert scale_of(0.5 * (drifts + gradients), drifts, np.ones(6)) == 1.0
    assert scale_of(0.5 * drifts + 1e-3 * gradients, drifts, np.ones(6)) == 1.0, "noise moves every unit"
    assert scale_of(gradients, np.zeros((6, 5)), np.ones(6)) == 1.0
    assert scale_of(-0.5 * drifts, drifts, np.ones(6)) == 1.0, "no defence turns an update"
