"""Tests of `fedmem/models/independent_pixels.py`: every value has a closed form."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.clients.dp_sgd import DpSgd
from fedmem.clients.sgd import Sgd
from fedmem.contracts.data import Examples
from fedmem.models.independent_pixels import IndependentPixels
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import Stacked, Task

STEPS = 600


def test_probabilities_of_all_images_sum_to_one() -> None:
    network: Any = IndependentPixels().build((2, 2), 1)
    with torch.no_grad():
        network.logits.copy_(torch.tensor([0.3, -2.0, 1.0, 0.0]))
    images = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4))).view(-1, 2, 2)
    log_p = network(images)
    assert log_p.shape == (16, 1)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
    p = torch.sigmoid(network.logits)
    assert log_p[-1].item() == pytest.approx(p.log().sum().item(), rel=1e-5)


def test_samples_have_the_probabilities_of_pixels() -> None:
    network: Any = IndependentPixels().build((1, 1, 3), 1)
    with torch.no_grad():
        network.logits.copy_(torch.tensor([-1.0, 0.0, 2.0]))
        samples = network.sample(4000, torch.Generator().manual_seed(0))
        again = network.sample(4000, torch.Generator().manual_seed(0))
    assert torch.equal(samples, again)
    assert samples.shape == (4000, 1, 1, 3)
    assert set(samples.unique().tolist()) == {0.0, 1.0}
    np.testing.assert_allclose(samples.mean(0).flatten(), torch.sigmoid(network.logits.detach()), atol=0.03)


@pytest.mark.parametrize("executor", [OneByOne, Stacked])
def test_leaving_one_out_has_its_closed_form(executor: type[OneByOne] | type[Stacked]) -> None:
    """Trained with and without an image, log p of it differs by terms of Beta-Bernoulli.

    An image without ink and one of ink alone are trained on too. The best p of a pixel is then (n_1 + 1) / (n + 2), the
    mean of its posterior under a uniform prior.
    """
    rng = np.random.default_rng(0)
    n, size = 6, 9
    images = (rng.random((n, size)) < 0.4).astype(np.float32)
    inputs = np.concatenate([images, np.zeros((1, size), np.float32), np.ones((1, size), np.float32)])
    store = Examples(inputs=inputs, targets=np.zeros(n + 2, np.int64), ids=np.arange(n + 2))
    network, client = IndependentPixels().build((size,), 1), Sgd(lr=4.0, steps=STEPS, batch_size=n + 2)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    every = np.arange(n + 2)
    rows_of_runs = [every, *(np.delete(every, j) for j in range(n))]
    tasks = []
    for run, rows in enumerate(rows_of_runs):
        batches = np.full((STEPS, n + 2), -1)
        batches[:, : len(rows)] = np.arange(len(rows))
        tasks.append(Task(run=run, round=1, client=0, before=before, rows=rows, batches=batches))
    trained = executor(network, client, store)
    models = [done.outcome.sent for done in trained.train(tasks)]
    log_p = trained.logits(models, images)[..., 0]
    gains = log_p[0] - np.array([log_p[1 + j, j] for j in range(n)])
    ink = images.sum(axis=0)
    inside = np.where(images == 1, (ink + 1) / (n + 2), (n - ink + 1) / (n + 2))
    outside = np.where(images == 1, ink / (n + 1), (n - ink) / (n + 1))
    np.testing.assert_allclose(log_p[0], np.log(inside).sum(axis=1), atol=1e-4)
    np.testing.assert_allclose(gains, np.log(inside / outside).sum(axis=1), atol=1e-3)
    assert gains.min() > 0


@pytest.mark.slow  # Opacus is loaded
def test_clipped_gradients_are_the_same_alone_and_stacked() -> None:
    """The gradient of one image is x − p; each is clipped alone."""
    rng = np.random.default_rng(1)
    inputs = (rng.random((6, 9)) < 0.4).astype(np.float32)
    store = Examples(inputs=inputs, targets=np.zeros(6, np.int64), ids=np.arange(6))
    network: Any = IndependentPixels().build((9,), 1)
    before = {"logits": network.logits.detach().clone()}
    client = DpSgd(lr=1.0, clip=0.7, noise_multiplier=0.0, batch_size=6, steps=1)
    task = Task(run=0, round=1, client=0, before=before, rows=np.arange(6), batches=np.arange(6)[None])
    gradients = inputs - torch.sigmoid(before["logits"]).numpy()
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    step = (gradients * np.minimum(1, 0.7 / norms)).sum(axis=0)
    for executor in (OneByOne, Stacked):
        (done,) = executor(network, client, store).train([task])
        moved = (done.outcome.sent["logits"] - before["logits"]).numpy()
        np.testing.assert_allclose(moved / np.linalg.norm(moved), step / np.linalg.norm(step), atol=1e-5)
        assert done.loss == pytest.approx(-network(torch.from_numpy(inputs)).mean().item(), rel=1e-5)
