"""Networks that map inputs to their log-densities, (n, 1) in nats, and draw samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedmem.models._noise import shared_noise

LOG_TWO_PI = math.log(2 * math.pi)


def bernoulli_log_p(x: Tensor, logits: Tensor) -> Tensor:
    """(...) log p of binary pixels (..., D) under the logits (..., D) of their being 1.

    >>> bernoulli_log_p(torch.ones(2), torch.tensor([0.0, 100.0])).exp().item()
    0.5
    """
    return (x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum(dim=-1)


def normal_log_p(x: Tensor, mean: Tensor, log_sd: Tensor) -> Tensor:
    """(...) log density of numbers (..., D), independent and normal, in nats.

    >>> round(normal_log_p(torch.zeros(1), torch.zeros(1), torch.zeros(())).exp().item(), 4)
    0.3989
    """
    standard = (x - mean) * torch.exp(-log_sd)
    return (-0.5 * standard.square() - log_sd - 0.5 * LOG_TWO_PI).sum(dim=-1)


class IndependentNetwork(nn.Module):
    """Independent binary pixels; see `IndependentPixels`."""

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.logits = nn.Parameter(torch.empty(size).uniform_(-0.1, 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1) log p."""
        return bernoulli_log_p(x.flatten(1), self.logits)[:, None]

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, *shape) samples."""
        p = torch.sigmoid(self.logits)
        uniform = torch.rand((count, len(p)), generator=generator, dtype=p.dtype)
        return (uniform < p).to(p.dtype).view(count, *self.shape)


class VaeNetwork(nn.Module):
    """A variational autoencoder; see `Vae`."""

    epsilon: Tensor

    def __init__(
        self,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        shape: tuple[int, ...],
        latent: int,
        samples: int,
        gaussian: bool,
        mean_of_logs: bool,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.shape, self.latent, self.mean_of_logs = shape, latent, mean_of_logs
        self.log_sd = nn.Parameter(torch.full((), math.log(0.3))) if gaussian else None
        self.register_buffer("epsilon", shared_noise("latent values", samples, latent))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1): in training a draw of the evidence lower bound, otherwise the estimate of log p."""
        x = x.flatten(1)
        mean, log_sd = self.encoder(x).chunk(2, dim=1)
        if self.training:
            z = mean + log_sd.exp() * torch.randn_like(mean)
            return (self._likelihood(x, z) - _divergence(mean, log_sd))[:, None]
        log_w = self.log_weights(x, mean, log_sd)
        if self.mean_of_logs:
            return log_w.mean(dim=0)[:, None]
        return (log_w.logsumexp(dim=0) - math.log(len(self.epsilon)))[:, None]

    def log_weights(self, x: Tensor, mean: Tensor, log_sd: Tensor) -> Tensor:
        """(K, n) log p(x | z) p(z) / q(z | x) at K values of z for each row."""
        epsilon = self.epsilon[:, None].to(mean.dtype)
        z = mean + log_sd.exp() * epsilon
        prior = (-0.5 * z.square() - 0.5 * LOG_TWO_PI).sum(dim=-1)
        posterior = (-0.5 * epsilon.square() - log_sd - 0.5 * LOG_TWO_PI).sum(dim=-1)
        return self._likelihood(x, z) + prior - posterior

    def _likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """(..., n) log p(x | z) of rows (n, D) at latent values (..., n, latent)."""
        outputs = self.decoder(z.reshape(-1, self.latent)).view(*z.shape[:-1], x.shape[-1])
        return bernoulli_log_p(x, outputs) if self.log_sd is None else normal_log_p(x, outputs, self.log_sd)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, *shape) samples: z from the prior, then each pixel from the likelihood."""
        dtype = next(self.parameters()).dtype
        outputs = self.decoder(torch.randn((count, self.latent), generator=generator, dtype=dtype))
        if self.log_sd is None:
            uniform = torch.rand(outputs.shape, generator=generator, dtype=dtype)
            x = (uniform < torch.sigmoid(outputs)).to(dtype)
        else:
            x = outputs + self.log_sd.exp() * torch.randn(outputs.shape, generator=generator, dtype=dtype)
        return x.view(count, *self.shape)


def _divergence(mean: Tensor, log_sd: Tensor) -> Tensor:
    """(n,) KL(N(mean, diag sd²) ‖ N(0, I)) in nats, 0 where both are the same."""
    return 0.5 * (mean.square() + (2 * log_sd).exp() - 1 - 2 * log_sd).sum(dim=1)
