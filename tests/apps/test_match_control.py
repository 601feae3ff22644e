"""Tests of `fedmem/apps/match_control.py`: right, Adam, swapped, and wrong steps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.apps.attack import AttackResult, Known, attack
from fedmem.apps.match_control import Client, Match, simulate
from fedmem.attacks.grey import Grey
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.contracts.arrays import Params
from fedmem.errors import TargetError

KNOWN = Known(input_shape=(16,), num_classes=4, num_images=3, lr=0.1)
INPUTS = np.random.default_rng(0).random((3, 16), dtype=np.float32)
LABELS = np.array([0, 2, 3])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4))


def trained(optimizer: Any, steps: int = 1, batch_size: int = 3) -> tuple[Params, Params]:
    """Parameters before and after training by an optimiser of torch."""
    model = network()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    running = optimizer(model.parameters())
    batches = torch.split(torch.arange(3), batch_size)
    for step in range(steps):
        rows = batches[step % len(batches)]
        loss = nn.functional.cross_entropy(model(torch.from_numpy(INPUTS)[rows]), torch.from_numpy(LABELS)[rows])
        for value, gradient in zip(
            model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            value.grad = gradient
        running.step()
    return before, {name: value.detach().clone() for name, value in model.named_parameters()}


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.1)


def adam(params: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=1e-3)


def attacked(pair: tuple[Params, Params], known: Known = KNOWN, **more: Any) -> AttackResult:
    return attack(*pair, model=network(), attack=InvertingGradients(steps=60), known=known, **more)


def test_the_right_statement_is_matched() -> None:
    done = attacked(trained(sgd))
    assert done.match.verdict == "matched"
    assert done.match.distance == done.found.distance >= 0
    assert max(done.match.as_stated) < done.match.limit < min(done.match.misstated)


def test_an_update_of_adam_is_not_matched() -> None:
    assert attacked(trained(adam)).match.verdict == "unmatched"


def test_swapped_files_are_recognised() -> None:
    before, after = trained(sgd)
    assert attacked((after, before)).match.verdict == "swapped"


def test_wrong_steps_are_not_matched_and_right_ones_are() -> None:
    pair = trained(lambda params: torch.optim.SGD(params, lr=2.0), steps=12, batch_size=1)
    assert attacked(pair, replace(KNOWN, lr=2.0)).match.verdict == "unmatched"
    assert attacked(pair, replace(KNOWN, lr=2.0, steps=12, batch_size=1)).match.verdict != "unmatched"


def test_a_gradient_with_the_wrong_sign_is_recognised() -> None:
    before, after = trained(sgd)
    gradient = {name: (before[name] - after[name]) / 0.1 for name in before}
    assert attacked((before, gradient), gradient=True).match.verdict == "matched"
    wrong = {name: -value for name, value in gradient.items()}
    assert attacked((before, wrong), gradient=True).match.verdict == "swapped"


def test_controls_change_nothing_of_the_reconstruction() -> None:
    pair = trained(sgd)
    with_controls, without = attacked(pair, controls=2), attacked(pair, controls=0)
    np.testing.assert_array_equal(with_controls.found.inputs, without.found.inputs)
    assert without.match.verdict == "not checked"
    assert len(with_controls.match.as_stated) == 2
    with pytest.raises(TargetError, match="controls must be at least 0"):
        attacked(pair, controls=-1)


def test_an_attack_that_matches_nothing_is_not_checked() -> None:
    match = attack(*trained(sgd), model=network(), attack=Grey(), known=KNOWN).match
    assert (match.verdict, match.as_stated) == ("not checked", ())


@pytest.mark.parametrize(("steps", "batch_size"), [(1, 3), (5, 2)])
def test_simulated_clients_are_those_of_torch(steps: int, batch_size: int) -> None:
    client = Client(lr=0.1, steps=steps, batch_size=batch_size)
    for optimizer, is_adam in ((sgd, False), (adam, True)):
        before, after = trained(optimizer, steps, batch_size)
        found = simulate(network(), before, client, INPUTS, LABELS, adam=is_adam)
        for name, value in after.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_the_update_of_several_clients_is_their_mean() -> None:
    before, _ = trained(sgd)
    one = Client(lr=0.1, steps=2, batch_size=3)
    found = simulate(network(), before, replace(one, clients=3), INPUTS, LABELS)
    alone = [simulate(network(), before, one, INPUTS[[i]], LABELS[[i]]) for i in range(3)]
    for name, value in found.items():
        torch.testing.assert_close(value, sum(part[name] for part in alone) / 3)


def test_overlapping_controls_decide_nothing() -> None:
    match = Match(distance=0.1, as_stated=(0.05, 0.3), misstated=(0.2, 0.4), reverse=0.05)
    assert match.verdict == "undecided"
    assert replace(match, distance=0.31, reverse=0.5).verdict == "undecided"
    assert replace(match, distance=0.41).verdict == "swapped"
    assert replace(match, distance=0.41, reverse=0.3).verdict == "unmatched"
    assert replace(match, distance=0.41, reverse=0.5).verdict == "unmatched"
    assert math.isnan(Match(distance=0.1).limit)


def test_an_attack_that_cannot_tell_seldom_calls_a_match_bad() -> None:
    """Of 10 distances from one distribution, that of the update is the largest in a tenth of 2000 draws."""
    draws = np.random.default_rng(0).random((2000, 10)).tolist()
    found = [Match(distance=d[0], as_stated=tuple(d[1:4]), misstated=tuple(d[4:])).verdict for d in draws]
    assert 0.07 < found.count("unmatched") / 2000 < 0.13
