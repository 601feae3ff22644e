"""Tests of `fedmem/models/_denoising.py`: identities of schedules, times, reverse steps and their terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from fedmem.models._denoising import reverse_steps, signal_shares, spread_times
from fedmem.models.diffusion import Diffusion


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [2, 10, 100, 1000])
def test_schedules_lose_the_signal(schedule: str, steps: int) -> None:
    share = signal_shares(schedule, steps)
    assert share.shape == (steps + 1,)
    assert share[0] == 1
    assert (np.diff(share) < 0).all()
    assert 0 < share[-1] < 2e-3
    assert (1 - share[1:] / share[:-1] <= 0.999 + 1e-12).all()


def test_linear_schedule_is_that_of_its_paper() -> None:
    """With 1000 steps β goes from 1e-4 to 0.02."""
    share = signal_shares("linear", 1000)
    beta = 1 - share[1:] / share[:-1]
    np.testing.assert_allclose(beta, np.linspace(1e-4, 0.02, 1000), rtol=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_reverse_steps_are_conditionals_of_the_forward_process(schedule: Any) -> None:
    """The mean and the variance of x_{t−1} given x_t and x_0 by Bayes' rule, and their divergences."""
    network: Any = Diffusion(steps=20, schedule=schedule, hidden=()).build((3,), 1)
    share = signal_shares(schedule, 20)
    alpha, ratio = share[1:] / share[:-1], share[1:] / (1 - share[1:])
    bits, numbers = (reverse_steps(share, binary) for binary in (True, False))
    for time in range(2, 21):
        before, kept = share[time - 1], alpha[time - 1]
        precision = kept / (1 - kept) + 1 / (1 - before)
        of_clean, of_noisy = (float(value) for value in network.factors(time))
        assert of_clean == pytest.approx(np.sqrt(before) / (1 - before) / precision, rel=1e-3)
        assert of_noisy == pytest.approx(np.sqrt(kept) / (1 - kept) / precision, rel=1e-3)
        assert bits[2:, time] == pytest.approx((0.5 * (ratio[time - 2] - ratio[time - 1]), 0, 1 / precision), rel=1e-6)
        grid = np.linspace(-12, 12, 20001) / np.sqrt(precision)
        of_q = stats.norm.logpdf(grid, 0, precision**-0.5)
        of_step = stats.norm.logpdf(grid, 0.3, np.sqrt(1 - kept))
        kl = np.trapezoid(np.exp(of_q) * (of_q - of_step), grid)
        weight, offset, variance = numbers[2:, time]
        assert variance == pytest.approx(1 - kept)
        error = 0.3 * precision * (1 - before) / np.sqrt(before)  # of x_0, for means that are 0.3 apart
        assert weight * error**2 + offset == pytest.approx(kl, rel=1e-5)
    assert float(network.factors(1)[0]) == pytest.approx(1, rel=1e-4)
    assert float(network.factors(1)[1]) == 0


@pytest.mark.parametrize(("count", "steps"), [(1, 7), (3, 7), (7, 7), (10, 7), (21, 7)])
def test_times_are_visited_equally_often_in_expectation(count: int, steps: int) -> None:
    uniform = (torch.arange(7000, dtype=torch.float64) + 0.5) / 7000
    times = spread_times(uniform, count, steps)
    assert times.shape == (count, 7000)
    visits = np.bincount(times.ravel().numpy(), minlength=steps + 1) / 7000
    assert visits[0] == 0
    np.testing.assert_allclose(visits[1:], count / steps, rtol=1e-3)
    if count % steps == 0:
        assert (np.sort(times.numpy(), axis=0) == np.repeat(np.arange(1, steps + 1), count // steps)[:, None]).all()


def test_blocks_of_times_are_those_of_the_whole() -> None:
    uniform = torch.rand(5, generator=torch.Generator().manual_seed(0))
    whole = spread_times(uniform, 12, 100)
    parts = [spread_times(uniform, 12, 100, torch.arange(first, min(first + 5, 12))) for first in (0, 5, 10)]
    assert torch.equal(torch.cat(parts), whole)


def test_signal_that_is_left_at_the_end_costs_nats() -> None:
    """With no other cost the bound is minus the divergence of x_T from the prior."""
    network: Any = Diffusion(hidden=(), steps=5).build((3,), 1).eval()
    network.table[:2, -1] = torch.tensor([0.3, 0.7])
    network.costs = lambda clean, times, noise: torch.zeros(times.shape)
    x = torch.tensor([[0.0, 1.0, 0.5]])
    mean = np.sqrt(0.3) * np.array([-1.0, 1.0, 0.0])
    kl = 0.5 * (mean**2 + 0.7 - 1 - np.log(0.7)).sum()
    assert network(x).item() == pytest.approx(-kl, rel=1e-5)
