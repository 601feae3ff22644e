"""A network of denoising diffusion: the variational bound of its log-density, and its samples."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedmem.contracts.arrays import FloatArray
from fedmem.models._densities import normal_log_p
from fedmem.models._row_noise import RowNoise

NUM_FREQUENCIES = 4
_CELLS = 2**21
"""Noisy entries that are evaluated at once, so that memory has a limit."""


def signal_shares(schedule: str, steps: int) -> FloatArray:
    """(T + 1,) ᾱ_t for t = 0..T: the share of the variance of x_t that is signal. ᾱ_0 is 1, and ᾱ falls with t.

    `linear` (Ho et al., 2020): β from 0.1 / T to 20 / T. `cosine` (Nichol and Dhariwal, 2021): ᾱ is a squared cosine.
    In both β_t = 1 − ᾱ_t / ᾱ_{t−1} is at most 0.999.

    >>> [round(float(signal_shares(schedule, 100)[50]), 2) for schedule in ("linear", "cosine")]
    [0.07, 0.49]
    """
    times = np.arange(steps + 1) / steps
    if schedule == "linear":
        beta = np.linspace(0.1 / steps, 20.0 / steps, steps)
    else:
        share = np.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = 1 - share[1:] / share[:-1]
    return np.concatenate([[1.0], np.cumprod(1 - np.minimum(beta, 0.999))])


def reverse_steps(share: FloatArray, binary: bool) -> FloatArray:
    """(5, T + 1) the numbers of each time that the bound and the samples need, from ᾱ (T + 1,).

    The rows are ᾱ_t, 1 − ᾱ_t, a weight, an offset and the variance σ_t² of the reverse step from t. The step costs
    weight × ‖x_0 − x̂_0‖² + offset × D nats: KL(q(x_{t−1} | x_t, x_0) ‖ N(μ, σ_t²)), where q has the variance β̃_t. For
    binary pixels σ_t² = β̃_t, which fits x_0 that is a point, and the weight is ½ (SNR_{t−1} − SNR_t). Otherwise σ_t² =
    β_t, which fits standard normal x_0. At time 1 the variance is that of the decoder, and the cost is left out.

    >>> table = reverse_steps(signal_shares("cosine", 10), True)
    >>> table.shape, table[3].any()
    ((5, 11), np.False_)
    """
    beta, spread = 1 - share[1:] / share[:-1], 1 - share
    of_q = np.concatenate([[1.0], (spread[:-1] / spread[1:] * beta)[1:]])
    variance = np.where(binary, of_q, beta)
    variance[0] = spread[1]
    weight = share[:-1] * (beta / spread[1:]) ** 2 / (2 * variance)
    offset = 0.5 * (np.log(variance / of_q) + of_q / variance - 1)
    weight[0] = offset[0] = 0.0
    later = np.stack([share[1:], spread[1:], weight, offset, variance])
    return np.concatenate([np.array([[1.0], [0.0], [0.0], [0.0], [0.0]]), later], axis=1)


def spread_times(uniform: Tensor, count: int, steps: int, numbers: Tensor | None = None) -> Tensor:
    """(count, n) times in 1..T, evenly spread from a start (n,) in [0, 1): systematic sampling.

    In expectation each time occurs count / T times, and exactly so where T divides count. With `numbers` (b,), only
    these of the times.

    >>> spread_times(torch.tensor([0.5]), 4, 8).ravel().tolist()
    [2, 4, 6, 8]
    """
    numbers = torch.arange(count, device=uniform.device) if numbers is None else numbers
    places = (numbers[:, None] + uniform) * (steps / count)
    return places.long().clamp(0, steps - 1) + 1


class Denoiser(nn.Module):
    """A perceptron that reads a noisy row and its time, as sines and cosines.

    Args:
        layers: the perceptron, from D + 2 `NUM_FREQUENCIES` numbers to D.
        steps: T.
    """

    features: Tensor

    def __init__(self, layers: nn.Module, steps: int) -> None:
        super().__init__()
        self.layers = layers
        angles = np.arange(steps + 1)[:, None] / steps * (math.pi / 2) * 2.0 ** np.arange(NUM_FREQUENCIES)
        features = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        self.register_buffer("features", torch.from_numpy(features.astype(np.float32)))

    def forward(self, noisy: Tensor, times: Tensor) -> Tensor:
        """(..., D) the output at noisy rows (..., D) and times (...)."""
        inputs = torch.cat([noisy, self.features[times].to(noisy.dtype)], dim=-1)
        outputs: Tensor = self.layers(inputs.flatten(0, -2))
        return outputs.view(noisy.shape)


class DiffusionNetwork(nn.Module):
    """Denoising diffusion; see `Diffusion`."""

    table: Tensor

    def __init__(
        self,
        *,
        denoiser: nn.Module,
        shape: tuple[int, ...],
        steps: int,
        schedule: str,
        samples: int,
        draws: int,
        binary: bool,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.shape, self.steps, self.samples, self.draws, self.binary = shape, steps, samples, draws, binary
        self.noise = RowNoise("diffusion", math.prod(shape))
        table = reverse_steps(signal_shares(schedule, steps), binary)
        self.register_buffer("table", torch.from_numpy(table.astype(np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1): in training minus half the squared error of the noise, otherwise the bound on log p in nats."""
        clean = 2 * x.flatten(1) - 1
        if not self.training:
            return self.bound(clean)[:, None]
        uniform = torch.rand(len(x), device=x.device, dtype=clean.dtype)
        times = spread_times(uniform, self.draws, self.steps)
        noise = torch.randn((*times.shape, clean.shape[1]), device=x.device, dtype=clean.dtype)
        signal, spread = self.levels(times)
        error = clean - self.guess(self.add_noise(clean, times, noise), times)[0]
        return -0.5 * (signal / spread * error.square()).sum(dim=-1).mean(dim=0)[:, None]

    def levels(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """ᾱ_t and 1 − ᾱ_t, each (..., 1), of times (...)."""
        signal, spread = self.table[:2, times][..., None]
        return signal, spread

    def add_noise(self, clean: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """(..., n, D) x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε."""
        signal, spread = self.levels(times)
        return signal.sqrt() * clean + spread.sqrt() * noise

    def guess(self, noisy: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) the guess of x_0, and what the decoder reads: half the log-odds of a 1, or the guess itself."""
        signal, spread = self.levels(times)
        outputs = self.denoiser(noisy, times)
        if self.binary:
            half_odds = outputs + signal.sqrt() / spread * noisy
            return torch.tanh(half_odds), half_odds
        guess = signal.sqrt() * noisy - spread.sqrt() * outputs
        return guess, guess

    def bound(self, clean: Tensor) -> Tensor:
        """(n,) the estimate of the bound, by K pairs of a time and a noise vector that belong to the row."""
        count, size = len(clean), clean.shape[1]
        start, stride, uniform = self.noise.choices(clean)
        total = torch.zeros_like(clean[:, 0])
        block = max(1, _CELLS // max(count * size, 1))
        for first in range(0, self.samples, block):
            numbers = torch.arange(first, min(first + block, self.samples), device=clean.device)
            times = spread_times(uniform, self.samples, self.steps, numbers)
            noise = self.noise.of(start, stride, numbers).to(clean.dtype)
            total = total + self.costs(clean, times, noise).sum(dim=0)
        return -self.prior_cost(clean) - total * (self.steps / self.samples)

    def prior_cost(self, clean: Tensor) -> Tensor:
        """(n,) KL(q(x_T | x_0) ‖ N(0, I)) in nats."""
        signal, spread = self.table[:2, -1]
        cost: Tensor = 0.5 * (signal * clean.square() - signal - spread.log()).sum(dim=-1)
        return cost

    def costs(self, clean: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """(..., n) the term of each time (..., n), in nats: KL of a reverse step, and at time 1 −log p(x | x_1)."""
        guess, read = self.guess(self.add_noise(clean, times, noise), times)
        weight, offset = self.table[2:4, times]
        step = weight * (clean - guess).square().sum(dim=-1) + offset * clean.shape[-1]
        if self.binary:
            decoder = F.logsigmoid(2 * clean * read).sum(dim=-1)
        else:
            decoder = normal_log_p(clean, read, 0.5 * self.table[4, 1].log()) + clean.shape[-1] * math.log(2)
        return torch.where(times == 1, -decoder, step)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, *shape) samples: x_T from the prior, then T reverse steps."""
        dtype = self.table.dtype
        noisy = torch.randn((count, math.prod(self.shape)), generator=generator, dtype=dtype)
        for time in range(self.steps, 0, -1):
            guess, read = self.guess(noisy, torch.full((count,), time))
            if time == 1 and self.binary:
                uniform = torch.rand(noisy.shape, generator=generator, dtype=dtype)
                return (uniform < torch.sigmoid(2 * read)).to(dtype).view(count, *self.shape)
            of_clean, of_noisy = self.factors(time)
            noise = torch.randn(noisy.shape, generator=generator, dtype=dtype)
            noisy = of_clean * guess + of_noisy * noisy + self.table[4, time].sqrt() * noise
        return ((noisy + 1) / 2).view(count, *self.shape)

    def factors(self, time: int) -> tuple[Tensor, Tensor]:
        """The factors of x_0 and x_t in the mean of q(x_{t−1} | x_t, x_0); at time 1 they are 1 and 0."""
        (before, signal), (spread_before, spread) = self.table[:2, time - 1 : time + 1]
        kept = signal / before
        return before.sqrt() * (1 - kept) / spread, kept.sqrt() * spread_before / spread
