"""Tests of `fedmem/models/vae.py`, against probabilistic PCA, quadrature and exact divergences."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from fedmem.models._noise import shared_noise
from fedmem.models.vae import Vae

SD = 0.5


def ppca(rng: np.random.Generator, **fields: Any) -> tuple[Any, Any]:
    """A linear Gaussian network in float64 whose encoder gives the exact posterior, and the distribution of x."""
    network: Any = Vae(hidden=(), latent=2, likelihood="gaussian", **fields).build((5,), 1).double()
    loadings = np.linalg.qr(rng.normal(size=(5, 2)))[0] * [2.0, 0.7]  # orthogonal, so that the posterior is diagonal
    mean = rng.normal(size=5)
    squares = (loadings**2).sum(axis=0) + SD**2
    projection = loadings.T / squares[:, None]
    with torch.no_grad():
        network.log_sd.fill_(np.log(SD))
        network.decoder.output.weight.copy_(torch.tensor(loadings))
        network.decoder.output.bias.copy_(torch.tensor(mean))
        network.encoder.output.weight.copy_(torch.tensor(np.concatenate([projection, np.zeros((2, 5))])))
        spread = 0.5 * np.log(SD**2 / squares)
        network.encoder.output.bias.copy_(torch.tensor(np.concatenate([-projection @ mean, spread])))
    return network, stats.multivariate_normal(mean, loadings @ loadings.T + SD**2 * np.eye(5))


@pytest.mark.parametrize("bound", ["iwae", "elbo"])
def test_ppca_with_its_posterior_has_the_exact_likelihood(bound: str) -> None:
    """With q equal to the posterior every importance weight is p(x), whatever the noise."""
    rng = np.random.default_rng(0)
    network, truth = ppca(rng, bound=bound, samples=3)
    x = rng.normal(size=(6, 5))
    found = network.eval()(torch.tensor(x))
    assert found.shape == (6, 1)
    np.testing.assert_allclose(found[:, 0].detach(), truth.logpdf(x), rtol=1e-5)


def test_training_draws_have_the_bound_as_their_mean() -> None:
    rng = np.random.default_rng(1)
    network, truth = ppca(rng)
    x = np.repeat(rng.normal(size=(1, 5)), 20000, axis=0)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        draws = network.train()(torch.tensor(x))[:, 0].numpy()
    error = draws.std() / np.sqrt(len(draws))
    assert error < 0.05
    assert abs(draws.mean() - truth.logpdf(x[0])) < 4 * error


def test_gap_of_the_bound_is_the_divergence_of_the_encoder() -> None:
    rng = np.random.default_rng(2)
    network, truth = ppca(rng, bound="elbo", samples=1024)
    shift, factor = torch.tensor([0.4, -0.2]), 1.3
    squares = network.decoder.output.weight.detach().square().sum(0) + SD**2
    variance = SD**2 / squares
    with torch.no_grad():
        network.encoder.output.bias[:2] += shift
        network.encoder.output.bias[2:] += np.log(factor)
    x = rng.normal(size=(4, 5))
    gap = float((0.5 * (shift**2 / variance + factor**2 - 1 - 2 * np.log(factor))).sum())
    elbo = network.eval()(torch.tensor(x))[:, 0].detach().numpy()
    np.testing.assert_allclose(truth.logpdf(x) - elbo, gap, atol=0.12)
    network.mean_of_logs = False
    iwae = network(torch.tensor(x))[:, 0].detach().numpy()
    assert (iwae > elbo).all()
    np.testing.assert_allclose(iwae, truth.logpdf(x), atol=0.12)


def test_binary_images_have_probabilities_that_sum_to_one() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        network: Any = Vae(hidden=(4,), latent=1).build((2, 2), 1).double().eval()
    images = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64).view(-1, 2, 2)
    with torch.no_grad():
        network.encoder.output.bias[1] += 0.5  # as wide as the posterior, so that weights have a small variance
        network.epsilon = shared_noise("latent values", 20000, 1)
        found = network(images)[:, 0]
        z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
        p = torch.sigmoid(network.decoder(z[:, None]))
        weights = torch.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
        bits = images.view(16, 1, 4)
        exact = (torch.where(bits == 1, p, 1 - p).prod(dim=2) * weights).sum(dim=1)
    np.testing.assert_allclose(found, exact.log(), atol=0.005)
    assert found.exp().sum().item() == pytest.approx(1, abs=0.005)


def test_evaluation_noise_is_common_to_all_networks() -> None:
    networks = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            networks.append(Vae(hidden=(4,), latent=3, samples=8).build((1, 2, 2), 1).eval())
    first, second = networks
    assert not torch.equal(next(first.parameters()), next(second.parameters()))
    second.load_state_dict(dict(first.named_parameters()), strict=False)
    x = torch.ones(1, 1, 2, 2)
    assert torch.equal(first(x), second(x))
    assert torch.equal(first(x), first(x))
    assert not torch.equal(first.train()(x), first(x))


@pytest.mark.parametrize(("likelihood", "binary"), [("bernoulli", True), ("gaussian", False)])
def test_samples_are_inputs_of_the_data(likelihood: Any, binary: bool) -> None:
    component = Vae(hidden=(4,), latent=2, likelihood=likelihood)
    network: Any = component.build((1, 3, 3), 1)
    assert component.binary_inputs is binary
    with torch.no_grad():
        samples = network.sample(500, torch.Generator().manual_seed(0))
        assert torch.equal(samples, network.sample(500, torch.Generator().manual_seed(0)))
    assert samples.shape == (500, 1, 3, 3)
    assert ((samples == 0) | (samples == 1)).all().item() is binary


def test_samples_of_ppca_have_its_moments() -> None:
    network, truth = ppca(np.random.default_rng(4))
    with torch.no_grad():
        samples = network.sample(20000, torch.Generator().manual_seed(0)).numpy()
    np.testing.assert_allclose(samples.mean(0), truth.mean, atol=0.08)
    np.testing.assert_allclose(np.cov(samples.T), truth.cov, atol=0.15)
