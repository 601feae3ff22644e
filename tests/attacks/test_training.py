"""Tests of `fedmem/attacks/_training.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedmem.attacks._problems import Problem
from fedmem.attacks._training import Training
from fedmem.clients.sgd import Sgd
from tests.attacks.unrolled_helpers import CLIENT, made, rows_of, stacked
from tests.lab import network


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
def test_wrong_client_or_order_gives_a_positive_distance(broken: str) -> None:
    target, truth = made(), torch.from_numpy(rows_of(4).inputs).double()[None]
    assert target.batches is not None
    ways: dict[str, dict[str, Any]] = {
        "lr": {"algorithm": replace(CLIENT, lr=5.0)},
        "batches": {"batches": (target.batches + 1) % 4},
    }
    assert Training(stacked([replace(target, **ways[broken])])).cosine(truth).item() > 1e-5
