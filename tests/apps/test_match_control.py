"""Tests of `fedmem/apps/match_control.py`: right, Adam, swapped, and wrong steps."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.apps.attack import AttackResult, Known, attack, target_of
from fedmem.apps.attack_scores import scores
from fedmem.apps.match_control import Client, Match, Optimizer, make_controls, simulate
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


def momentum(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.1, momentum=0.9)


def adam(params: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=1e-3)


def attacked(pair: tuple[Params, Params], known: Known = KNOWN, **more: Any) -> AttackResult:
    return attack(*pair, model=network(), attack=InvertingGradients(steps=60), known=known, **more)


def test_the_right_statement_is_matched() -> None:
    done = attacked(trained(sgd))
    assert done.match.verdict == "good"
    assert done.match.distance == done.found.distance >= 0
    assert done.match.distance <= done.match.limit < min(done.match.failing_distances)


def test_an_update_of_adam_is_not_matched() -> None:
    assert attacked(trained(adam)).match.verdict == "bad"


def test_swapped_files_are_recognised() -> None:
    before, after = trained(sgd)
    assert attacked((after, before)).match.verdict == "swapped"


def test_wrong_steps_are_not_matched_and_right_ones_are() -> None:
    pair = trained(lambda params: torch.optim.SGD(params, lr=2.0), steps=12, batch_size=1)
    assert attacked(pair, replace(KNOWN, lr=2.0)).match.verdict == "bad"
    assert attacked(pair, replace(KNOWN, lr=2.0, steps=12, batch_size=1)).match.verdict != "bad"


def test_a_gradient_with_the_wrong_sign_is_recognised() -> None:
    before, after = trained(sgd)
    gradient = {name: (before[name] - after[name]) / 0.1 for name in before}
    assert attacked((before, gradient), gradient=True).match.verdict == "good"
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
    kinds: tuple[tuple[Any, Optimizer], ...] = ((sgd, "sgd"), (momentum, "momentum"), (adam, "adam"))
    for optimizer, kind in kinds:
        before, after = trained(optimizer, steps, batch_size)
        found = simulate(network(), before, client, INPUTS, LABELS, optimizer=kind)
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
    assert replace(match, distance=0.41, reverse=0.3).verdict == "bad"
    assert replace(match, distance=0.41, reverse=0.5).verdict == "bad"
    assert math.isnan(Match(distance=0.1).limit)


def test_an_attack_that_cannot_tell_seldom_calls_a_match_bad() -> None:
    """Of 10 distances from one distribution, that of the update is the largest in a tenth of 2000 draws."""
    draws = np.random.default_rng(0).random((2000, 10)).tolist()
    found = [Match(distance=d[0], as_stated=tuple(d[1:4]), misstated=tuple(d[4:])).verdict for d in draws]
    assert 0.07 < found.count("bad") / 2000 < 0.13


def test_a_small_gap_between_controls_is_no_good_match() -> None:
    """A client with momentum: its distance is among those as stated, and the others begin just above them."""
    match = Match(distance=0.081, as_stated=(0.078, 0.09, 0.1), misstated=(0.12, 0.3, 0.4))
    assert match.verdict == "undecided"
    assert replace(match, misstated=(0.2, 0.3, 0.4)).verdict == "good"
    assert replace(match, misstated=(0.2, 0.3, 0.4), distance=0.16).verdict == "undecided"
    assert replace(match, misstated=(0.2, 0.3, 0.4), distance=0.2).verdict == "bad"


def test_a_weak_attack_has_no_good_match() -> None:
    """It fails on the inputs of simulated clients that work as stated, so that a small distance is worth nothing."""
    match = Match(distance=0.01, as_stated=(0.01, 0.02, 0.03), misstated=(0.5, 0.6), worked=(False, True, False))
    assert (match.is_weak, match.verdict) == (True, "undecided")
    assert replace(match, worked=(True, True, True)).verdict == "good"


def test_otherwise_trained_updates_that_leak_widen_the_match() -> None:
    match = Match(distance=0.1, as_stated=(0.01, 0.02), misstated=(0.1, 0.5), worked_otherwise=(True, False))
    assert match.verdict == "good"
    assert replace(match, worked_otherwise=(False, False)).verdict == "bad"
    assert replace(match, worked_otherwise=(True, True), distance=0.6).verdict == "undecided"


def test_true_inputs_refute_a_good_distance() -> None:
    match = Match(distance=0.01, as_stated=(0.01, 0.02), misstated=(0.5, 0.6))
    assert replace(match, is_refuted=True).verdict == "undecided"
    far = np.random.default_rng(9).random((3, 16), dtype=np.float32)
    assert attacked(trained(sgd), truth=far).match.verdict == "undecided"
    assert attacked(trained(sgd), truth=INPUTS).match.verdict == "good"


@pytest.mark.nightly
@pytest.mark.statistical
def test_a_good_match_means_that_the_attack_works() -> None:
    """Digits: of plain SGD at least 9 in 10 matches are good; no good one of another client lacks its images."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images, digits = torch.from_numpy((pixels / 16).astype(np.float32)), torch.from_numpy(labels)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    known = Known(input_shape=(64,), num_classes=10, num_images=8, lr=0.05, steps=10)
    clients: dict[str, tuple[Any, int]] = {
        "plain": (lambda params: torch.optim.SGD(params, lr=0.05), 10),
        "momentum": (lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9), 10),
        "decay": (lambda params: torch.optim.SGD(params, lr=0.05, weight_decay=0.1), 10),
        "steps": (lambda params: torch.optim.SGD(params, lr=0.05), 40),
        "adam": (adam, 10),
    }
    found: dict[str, list[tuple[str, bool]]] = {name: [] for name in clients}
    for seed in range(10):
        rows = np.random.default_rng(seed).permutation(1000)[:8]
        for name, (make, steps) in clients.items():
            trained_model = copy.deepcopy(model)
            running = make(trained_model.parameters())
            for _ in range(steps):
                running.zero_grad()
                nn.functional.cross_entropy(trained_model(images[rows]), digits[rows]).backward()  # type: ignore[no-untyped-call]  # PyTorch does not say its types
                running.step()
            after = {key: value.detach() for key, value in trained_model.named_parameters()}
            inverting = InvertingGradients(steps=200)
            done = attack(
                before, after, model=model, attack=inverting, known=known, gallery=images[1000:].numpy(), seed=seed
            )
            near = scores(done.found.inputs, images[rows].numpy(), images[1000:].numpy(), np.random.default_rng(0))
            found[name].append((done.match.verdict, sum(score.margin > 0 for score in near) > 4))
    assert [verdict for verdict, _ in found["plain"]].count("good") >= 9
    assert not [name for name in clients if ("good", False) in found[name]]
    assert "good" not in [verdict for verdict, _ in found["adam"]]


def test_controls_include_momentum_and_other_steps() -> None:
    """Each simulation is done as stated, reversed, with Adam, other steps, and over several steps with momentum."""
    before, _ = trained(sgd)

    def updates_of(steps: int) -> list[Params]:
        known = replace(KNOWN, steps=steps)
        client = Client(lr=0.1, steps=steps, batch_size=3)
        made = make_controls(
            lambda after: target_of(before, after, network(), known), before, client, lambda _: (INPUTS, LABELS), 1
        )
        assert [control.is_as_stated for control in made] == [True] + [False] * (len(made) - 1)
        return [control.target.update or {} for control in made]

    assert len(updates_of(1)) == 4
    updates = updates_of(4)
    assert len(updates) == 5
    expected = [trained(each, steps)[1] for each, steps in ((sgd, 8), (momentum, 4))]
    for update, after in zip(updates[3:], expected, strict=True):
        for name, value in after.items():
            torch.testing.assert_close(update[name].float(), value - before[name], rtol=1e-4, atol=1e-6)
