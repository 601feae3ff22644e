"""Tests of `fedmem/models/diffusion.py`: the bound against closed forms, and a denoiser that memorises."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from fedmem.contracts.arrays import FloatArray
from fedmem.models._denoising import signal_shares
from fedmem.models._row_noise import NUM_VECTORS
from fedmem.models.diffusion import Diffusion


class Given(nn.Module):
    """A denoiser that is a function of the noisy row and the time."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, noisy: Tensor, times: Tensor) -> Tensor:
        return self.function(noisy, times)


def network_of(size: int, denoiser: Callable[[Tensor, Tensor], Tensor] | None = None, **fields: Any) -> Any:
    """A network in float64 in evaluation mode, with random noise of its own and perhaps another denoiser."""
    network: Any = Diffusion(hidden=(4,), **fields).build((size,), 1).double().eval()
    if denoiser is not None:
        network.denoiser = Given(denoiser)
    return network


def linear_chain(gains: FloatArray, share: FloatArray) -> float:
    """The variance of x_0 under reverse steps whose guess of x_0 is gains[t] x_t, by recursion from x_T ~ N(0, 1)."""
    variance = 1.0
    for time in range(len(share) - 1, 1, -1):
        kept = share[time] / share[time - 1]
        slope = np.sqrt(share[time - 1]) * (1 - kept) / (1 - share[time]) * gains[time]
        slope += np.sqrt(kept) * (1 - share[time - 1]) / (1 - share[time])
        variance = slope**2 * variance + 1 - kept
    return float(gains[1] ** 2 * variance + 1 - share[1])


def gaussian_case(sd: float, steps: int, **fields: Any) -> tuple[Any, FloatArray, FloatArray]:
    """A network for one pixel with x_0 ~ N(0, sd²) and the best linear guess, the gains of x_t in it, and ᾱ."""
    share = signal_shares("cosine", steps)
    gains = np.sqrt(share) * sd**2 / (share * sd**2 + 1 - share)
    with np.errstate(divide="ignore", invalid="ignore"):  # time 0 is never asked for
        slopes = torch.from_numpy((np.sqrt(share) - gains) / np.sqrt(1 - share))  # of v in x_t
    network = network_of(
        1, lambda noisy, times: slopes[times][..., None] * noisy, likelihood="gaussian", steps=steps, **fields
    )
    return network, gains, share


def expected_bound(clean: FloatArray, gains: FloatArray, share: FloatArray) -> FloatArray:
    """(n,) the bound of one pixel in closed form: the error of a linear guess has a mean and a variance."""
    spread = 1 - share
    error = ((1 - gains * np.sqrt(share)) * clean[:, None]) ** 2 + gains**2 * spread
    ratio = share[1:] / spread[1:]
    by_q = spread[1:-1] / spread[2:]  # the variance of q relative to that of the reverse step
    terms = 0.5 * ((ratio[:-1] - ratio[1:]) * by_q * error[:, 2:] + by_q - 1 - np.log(by_q))
    prior = 0.5 * (share[-1] * clean**2 + spread[-1] - 1 - np.log(spread[-1]))
    decoder = -0.5 * error[:, 1] / spread[1] - 0.5 * np.log(2 * np.pi * spread[1]) + np.log(2)
    return np.asarray(decoder - terms.sum(axis=1) - prior)


@pytest.mark.parametrize("samples", [9, 40, 200])
def test_bound_of_gaussian_data_has_its_closed_form(samples: int) -> None:
    """The mean over the noise vectors, for numbers of pairs below, at and above T."""
    network, gains, share = gaussian_case(0.6, 40, samples=samples)
    pixels = torch.full((1, 1), 0.7, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    values: list[float] = []
    for _ in range(2500):
        choices = torch.randint(NUM_VECTORS, (2, 1), generator=generator)
        uniform = torch.rand(1, generator=generator, dtype=torch.float64)
        network.noise.choices = lambda rows, c=choices, u=uniform: (c[0], c[1] | 1, u)
        if len(values) % 50 == 0:
            network.noise.vectors = torch.randn((NUM_VECTORS, 1), generator=generator, dtype=torch.float64)
        values.append(float(network(pixels)))
    exact = expected_bound(np.array([0.4]), gains, share)[0]
    error = np.std(values) / np.sqrt(len(values))
    assert error < 0.15
    assert abs(np.mean(values) - exact) < 4 * error


def test_estimate_is_the_sum_of_its_terms() -> None:
    """Recomputed with loops in numpy, as noise errors and posterior means, from the noise vectors of each row."""
    network = network_of(3, steps=11, schedule="linear", likelihood="gaussian", samples=11)
    x = np.random.default_rng(0).random((4, 3))
    share = signal_shares("linear", 11)
    clean = 2 * x - 1
    start, stride, _ = (value.numpy() for value in network.noise.choices(torch.from_numpy(clean)))
    expected = np.zeros(4)
    for row, time in itertools.product(range(4), range(1, 12)):
        noise = network.noise.vectors[(start[row] + (time - 1) * stride[row]) % NUM_VECTORS].numpy()
        noisy = np.sqrt(share[time]) * clean[row] + np.sqrt(1 - share[time]) * noise
        with torch.no_grad():
            v = network.denoiser(torch.from_numpy(noisy)[None], torch.tensor([time]))[0].numpy()
        guess = np.sqrt(share[time]) * noisy - np.sqrt(1 - share[time]) * v
        if time == 1:
            expected[row] += stats.norm.logpdf(x[row], (guess + 1) / 2, np.sqrt(1 - share[1]) / 2).sum()
            continue
        guessed_noise = (noisy - np.sqrt(share[time]) * guess) / np.sqrt(1 - share[time])
        beta = 1 - share[time] / share[time - 1]
        weight = beta / (2 * (1 - beta) * (1 - share[time]))  # of equation 12 of Ho et al., with σ_t² = β_t
        by_q = (1 - share[time - 1]) / (1 - share[time])
        expected[row] -= weight * ((noise - guessed_noise) ** 2).sum() + 1.5 * (by_q - 1 - np.log(by_q))
    variance = 1 - share[-1]
    expected -= 0.5 * (share[-1] * clean**2 + variance - 1 - np.log(variance)).sum(axis=1)
    np.testing.assert_allclose(network(torch.from_numpy(x))[:, 0].detach(), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("sd", [0.4, 0.8, 1.5])
def test_bound_is_below_the_density_of_its_own_chain(sd: float) -> None:
    """The reverse steps are linear, so that x_0 is normal with a variance that is known."""
    clean = np.linspace(-2, 2, 9) * sd
    gaps = []
    for steps in (10, 100, 1000):
        _, gains, share = gaussian_case(sd, steps)
        log_p = stats.norm.logpdf(clean, 0, np.sqrt(linear_chain(gains, share))) + np.log(2)
        gap = log_p - expected_bound(clean, gains, share)
        assert (gap > 0).all()
        gaps.append(gap.mean())
    assert gaps[0] > gaps[1] > gaps[2]


@pytest.mark.parametrize("steps", [2, 10, 100])
def test_bound_of_standard_normal_pixels_is_exact(steps: int) -> None:
    """The reverse steps are then those of the process itself, so that nothing is lost for any T."""
    _, gains, share = gaussian_case(1.0, steps)
    clean = np.linspace(-2, 2, 9)
    np.testing.assert_allclose(expected_bound(clean, gains, share), stats.norm.logpdf(clean) + np.log(2), atol=1e-9)


def test_independent_bits_have_their_probability() -> None:
    """A constant output is half the log-odds of independent pixels; the bound is below their log p, and near it."""
    p = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    odds = 0.5 * torch.log(p / (1 - p))
    x = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)), dtype=torch.float64)
    exact = (x * p.log() + (1 - x) * (1 - p).log()).sum(1)
    gaps = []
    for steps in (20, 1000):
        network = network_of(3, lambda noisy, times: odds.expand_as(noisy), steps=steps, samples=1000)
        gaps.append(float((exact.exp() * (exact - network(x)[:, 0])).sum()))
    assert 0 < gaps[1] < gaps[0]
    assert gaps[1] < 0.1


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_a_memorising_denoiser_knows_its_rows(likelihood: str) -> None:
    """Bayes' guess for three images that are equally probable: each has about log ⅓, if pixels are bits."""
    rng = np.random.default_rng(1)
    rows = torch.from_numpy((rng.random((6, 16)) < 0.5).astype(float))
    known = 2 * rows[:3] - 1
    share = torch.from_numpy(signal_shares("cosine", 100))

    def denoise(noisy: Tensor, times: Tensor) -> Tensor:
        signal, spread = share[times][..., None], 1 - share[times][..., None]
        squares = (noisy[..., None, :] - signal[..., None].sqrt() * known).square().sum(-1)
        guess = torch.softmax(-0.5 * squares / spread, dim=-1) @ known
        if likelihood == "gaussian":
            return (signal.sqrt() * noisy - guess) / spread.sqrt()
        return torch.atanh(guess.clamp(-1 + 1e-12, 1 - 1e-12)) - signal.sqrt() / spread * noisy

    network = network_of(16, denoise, likelihood=likelihood, samples=1000)
    log_p = network(rows)[:, 0]
    assert log_p[:3].min() > log_p[3:].max() + 10
    if likelihood == "bernoulli":
        np.testing.assert_allclose(log_p[:3], np.log(1 / 3), atol=0.4)
    samples = network.float().sample(60, torch.Generator().manual_seed(0)).double()
    nearest = (samples[:, None] - rows).abs().mean(-1).argmin(1)
    assert nearest.max() <= 2
    assert len(set(nearest.tolist())) == 3


def test_evaluation_noise_is_of_the_row_and_not_of_the_network() -> None:
    networks: list[Any] = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            networks.append(Diffusion(hidden=(4,), steps=10, samples=5).build((1, 2, 2), 1).eval())
    first, second = networks
    assert not torch.equal(next(first.parameters()), next(second.parameters()))
    x = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]]).view(2, 1, 2, 2)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(dict(first.named_parameters()), strict=False)
    assert torch.equal(first(x), second(x))
    torch.testing.assert_close(first(x.flip(0)), first(x).flip(0))
    assert not torch.equal(first.train()(x), first(x))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_training_minimises_the_error_of_the_noise(likelihood: Any) -> None:
    """For v = 0 and unit normal pixels, or for equal odds of bits, the mean is known from draws of the same formula."""
    network: Any = Diffusion(hidden=(), likelihood=likelihood, steps=10, draws=3).build((2,), 1).double()
    with torch.no_grad():
        for value in network.parameters():
            value.zero_()
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(4000, 2)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        draws = network.train()(x)[:, 0].numpy()
    share, rng = signal_shares("cosine", 10)[1:, None], np.random.default_rng(0)
    noise = rng.normal(size=(10, 20000))
    noisy = np.sqrt(share) + np.sqrt(1 - share) * noise
    guess = np.sqrt(share) * noisy if likelihood == "gaussian" else np.tanh(np.sqrt(share) / (1 - share) * noisy)
    guessed_noise = (noisy - np.sqrt(share) * guess) / np.sqrt(1 - share)
    expected = -0.5 * 2 * ((noise - guessed_noise) ** 2).mean()  # two pixels, each as probable by symmetry
    assert draws.mean() == pytest.approx(expected, abs=5 * draws.std() / np.sqrt(4000))


@pytest.mark.parametrize(("likelihood", "binary"), [("bernoulli", True), ("gaussian", False)])
def test_samples_are_inputs_of_the_data(likelihood: Any, binary: bool) -> None:
    component = Diffusion(hidden=(4,), steps=10, likelihood=likelihood)
    network: Any = component.build((1, 3, 3), 1)
    assert component.binary_inputs is binary
    with torch.no_grad():
        samples = network.sample(200, torch.Generator().manual_seed(0))
        assert torch.equal(samples, network.sample(200, torch.Generator().manual_seed(0)))
    assert samples.shape == (200, 1, 3, 3)
    assert ((samples == 0) | (samples == 1)).all().item() is binary


def test_samples_of_gaussian_data_have_its_variance() -> None:
    network, gains, share = gaussian_case(0.6, 40)
    with torch.no_grad():
        samples = network.sample(20000, torch.Generator().manual_seed(0))
    expected = np.sqrt(linear_chain(gains, share)) / 2
    assert samples.std().item() == pytest.approx(expected, rel=0.03)
    assert samples.mean().item() == pytest.approx(0.5, abs=0.01)
