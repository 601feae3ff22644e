"""Inversion of many local steps: against a plain loop, and against what must fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fedmem.attacks._problems import Problem, starts
from fedmem.attacks._training import Training
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.attacks.unrolled import Unrolled
from fedmem.clients.dp_sgd import DpSgd
from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.contracts.data import Examples
from fedmem.errors import TargetError
from fedmem.modalities.numbers import psnr, squared_errors
from fedmem.modalities.pairing import assign
from fedmem.modalities.undescribed import modality_of_shape
from fedmem.seeding import stream
from tests.lab import digits, gradient_of, network, parameters


def streams(count: int) -> list[np.random.Generator]:
    return [stream(0, "x", client=t) for t in range(count)]


def rows_of(size: int, first: int = 0) -> Examples:
    rows = digits().take(np.arange(first, first + size))
    return rows.take(np.argsort(rows.targets, kind="stable"))


def worked(client: Sgd, rows: Examples, batches: IntArray, model: nn.Module) -> GradientTarget:
    """What a real client sends after its steps, computed as `tests.lab` does, in float32, batch by batch."""
    before = params = parameters(model)
    velocity = {name: torch.zeros_like(value) for name, value in params.items()}
    for places in batches:
        own = places[places >= 0]
        gradient = gradient_of(model, params, rows.inputs[own], rows.targets[own])
        velocity = {name: client.momentum * velocity[name] + g for name, g in gradient.items()}
        params = {name: value - client.lr * velocity[name] for name, value in params.items()}
    update = {name: params[name].double() - value.double() for name, value in before.items()}
    return GradientTarget(
        model=model,
        params=before,
        update=update,
        gradient={name: -value / (client.lr * len(batches)) for name, value in update.items()},
        num_images=len(rows),
        input_shape=rows.inputs.shape[1:],
        num_classes=10,
        modality=modality_of_shape(rows.inputs.shape[1:]),
        knows="",
        labels=rows.targets,
        algorithm=client,
        batches=batches,
    )


CLIENT = Sgd(lr=0.5, epochs=3, batch_size=2)


def made(size: int = 4, first: int = 0, client: Sgd = CLIENT, seed: int = 0, model: Any = None) -> GradientTarget:
    batches = client.batches(size, np.random.default_rng(seed))
    return worked(client, rows_of(size, first), batches, model or network(nn.Tanh))


def quality(found: Reconstruction, rows: Examples) -> FloatArray:
    errors = squared_errors(found.inputs, rows.inputs)
    return np.asarray(psnr(errors[assign(errors), np.arange(len(rows))]))


# The simulation


def plain(problem: Problem, images: torch.Tensor) -> torch.Tensor:
    """The reference: one client, one step after the other, with autograd alone; one minus the cosine."""
    target, client = problem.target, problem.target.algorithm
    assert isinstance(client, Sgd)
    assert problem.batches is not None
    assert target.update is not None
    model = target.model.double()
    before = {name: value.double() for name, value in target.params.items()}
    params = {name: value.clone().requires_grad_() for name, value in before.items()}
    velocity = {name: torch.zeros_like(value) for name, value in before.items()}
    labels = torch.from_numpy(problem.labels)
    for places in problem.batches:
        own = torch.from_numpy(places[places >= 0])
        loss = functional.cross_entropy(torch.func.functional_call(model, params, (images[own],)), labels[own])
        gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        for (name, value), gradient in zip(list(params.items()), gradients, strict=True):
            velocity[name] = client.momentum * velocity[name] + gradient
            params[name] = value - client.lr * velocity[name]
    mine = torch.cat([(params[name] - before[name]).flatten() for name in before])
    seen = torch.cat([target.update[name].flatten() for name in before])
    return 1 - functional.cosine_similarity(mine, seen, dim=0)


def stacked(targets: Sequence[GradientTarget]) -> list[Problem]:
    return [replace(one, batches=one.target.batches) for one in starts(targets, streams(len(targets)), 1)]


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_the_stack_trains_as_a_plain_loop_does_and_has_its_slope(momentum: float) -> None:
    """Three problems with other numbers of images, of steps, and short batches."""
    client, model = Sgd(lr=0.5, epochs=2, batch_size=2, momentum=momentum), network(nn.Tanh)
    problems = stacked([made(size, 10 * size, client, size, model) for size in (3, 5, 1)])
    stack = Training(problems)
    images = stack.starts.clone().requires_grad_()
    distances = stack.cosine(images)
    (slope,) = torch.autograd.grad(distances.sum(), images)
    for i, problem in enumerate(problems):
        count = len(problem.labels)
        own = torch.from_numpy(problem.inputs).double().requires_grad_()
        expected = plain(problem, own)
        torch.testing.assert_close(distances[i], expected, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(slope[i, :count], torch.autograd.grad(expected, own)[0], atol=1e-9, rtol=1e-6)
        assert not slope[i, count:].any()


def test_the_true_images_lead_to_the_true_update() -> None:
    target, rows = made(), rows_of(4)
    stack = Training(stacked([target]))
    assert stack.cosine(torch.from_numpy(rows.inputs).double()[None]).item() < 1e-9
    assert stack.cosine(stack.starts).item() > 1e-3
    turned = replace(target, update={n: -u for n, u in (target.update or {}).items()})
    assert Training(stacked([turned])).cosine(torch.from_numpy(rows.inputs).double()[None]).item() > 1.9


@pytest.mark.parametrize("broken", ["lr", "batches"])
def test_a_wrong_client_or_a_wrong_order_is_noticed(broken: str) -> None:
    target, truth = made(), torch.from_numpy(rows_of(4).inputs).double()[None]
    assert target.batches is not None
    ways: dict[str, dict[str, Any]] = {
        "lr": {"algorithm": replace(CLIENT, lr=5.0)},
        "batches": {"batches": (target.batches + 1) % 4},
    }
    assert Training(stacked([replace(target, **ways[broken])])).cosine(truth).item() > 1e-5


def test_everything_that_the_client_does_is_done_again() -> None:
    """Clipping, a pull towards the start, weight decay and a learning rate that has decayed, as `sgd` has them."""
    client = Sgd(lr=0.5, steps=3, batch_size=4, clip=0.3, weight_decay=0.01, decay=0.5)
    offer: Params = {"round": torch.tensor(2), "mu": torch.tensor(0.3)}
    model, rows = network(nn.Tanh), rows_of(4)
    batches = client.batches(4, np.random.default_rng(0))
    before = parameters(model)
    state = client.init(before, offer, {})
    for places in batches:
        x, y = rows.inputs[places], rows.targets[places]
        state = client.step(state, partial(gradient_of, model, inputs=x, targets=y))
    sent = client.final(state, before).sent
    update = {name: sent[name].double() - value.double() for name, value in before.items()}
    target = replace(worked(client, rows, batches, model), update=update, payload=offer)
    truth = torch.from_numpy(rows.inputs).double()[None]
    assert Training(stacked([target])).cosine(truth).item() < 1e-9
    assert Training(stacked([replace(target, payload={**offer, "mu": torch.tensor(9.0)})])).cosine(truth).item() > 1e-5


# The attack


def test_many_steps_are_inverted_and_are_not_by_who_takes_them_for_one() -> None:
    rows = rows_of(4)
    (found,) = Unrolled(steps=150, tv=0.0).reconstruct([made()], streams(1))
    (naive,) = InvertingGradients(steps=150, tv=0.0).reconstruct([made()], streams(1))
    assert found.labels.tolist() == rows.targets.tolist()
    assert np.median(quality(found, rows)) > 25
    assert np.median(quality(found, rows)) > np.median(quality(naive, rows)) + 6
    assert found.distance < 1e-4


def test_with_the_wrong_sign_nothing_is_found() -> None:
    target = made()
    turned = {name: -value for name, value in (target.update or {}).items()}
    wrong = replace(target, update=turned)
    (found,) = Unrolled(steps=80, tv=0.0, labels="known").reconstruct([wrong], streams(1))
    assert np.median(quality(found, rows_of(4))) < 12
    assert found.distance > 0.5


def test_one_step_on_all_images_is_what_inverting_gradients_does() -> None:
    target = made(client=Sgd(lr=0.5, steps=1, batch_size=4))
    problems = stacked([target])
    from fedmem.attacks._matching import Matching

    stack, matching = Training(problems), Matching(problems, torch.float64)
    torch.testing.assert_close(stack.cosine(stack.starts), matching.cosine(stack.starts), atol=1e-9, rtol=1e-7)


def test_an_order_that_is_drawn_asks_for_no_batches_and_does_worse() -> None:
    attack = Unrolled(steps=80, tv=0.0, labels="known", order="drawn", restarts=2)
    assert attack.knows == ("labels", "algorithm")
    assert Unrolled().knows == ("labels", "algorithm", "batches")
    target, rows = made(), rows_of(4)
    (blind,) = attack.reconstruct([target.grant(attack.knows)], streams(1))
    (seeing,) = replace(attack, order="known", restarts=1).reconstruct([target], streams(1))
    assert np.median(quality(seeing, rows)) > np.median(quality(blind, rows)) + 3
    assert seeing.distance < blind.distance


def test_without_labels_the_batches_do_not_tell_whose_label_is_whose() -> None:
    """Places go by label; who is granted no labels finds the same images whatever the labels of a batch are."""
    attack, target = Unrolled(steps=60, tv=0.0, labels="inferred"), made()
    assert target.batches is not None
    other = replace(target, batches=np.array([2, 0, 3, 1])[target.batches])
    one, two = (shown.grant(attack.knows) for shown in (target, other))
    assert one.batches is not None
    assert two.batches is not None
    assert one.batches.tolist() == two.batches.tolist()
    assert one.batches[:2].ravel().tolist() == [0, 1, 2, 3]
    (knowing,) = replace(attack, labels="known").reconstruct([target], streams(1))
    rows, rngs = rows_of(4), [stream(1, "x", client=t) for t in range(4)]
    blind = attack.reconstruct([one] * 4, rngs)
    assert np.median(quality(knowing, rows)) > np.mean([np.median(quality(found, rows)) for found in blind]) + 3


def test_targets_beside_it_do_not_matter_and_one_without_a_direction_is_nan() -> None:
    model = network(nn.Tanh)
    given = [made(3, 20, model=model), made(4, 40, model=model)]
    blank = replace(given[0], update={n: torch.zeros_like(u) for n, u in (given[0].update or {}).items()})
    attack = Unrolled(steps=15, labels="known")
    (alone,) = attack.reconstruct(given[1:], streams(2)[1:])
    _, beside, lost = attack.reconstruct([*given, blank], streams(3))
    assert np.allclose(alone.inputs, beside.inputs, atol=1e-4)
    assert np.isnan(lost.distance)
    assert np.isfinite(lost.inputs).all()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"clients": 5}, r"work of 5; .*levels: \[local\]"),
        ({"update": None}, "a gradient alone is of no use"),
        ({"algorithm": None}, "client's algorithm"),
        ({"algorithm": DpSgd(batch_size=2)}, "DpSgd clips the gradient of each record"),
        ({"batches": None}, "order: drawn"),
    ],
)
def test_what_it_cannot_do_without_is_said(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(TargetError, match=said):
        Unrolled(steps=1).reconstruct([replace(made(), **changed)], streams(1))
