"""What the machine can do: the second convolution of W2 alone, forward and backward, on every core at once."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.contender import Setting, Trained, main
from benchmarks.plan import Plan

REPEATS = 30


def train(plan: Plan, setting: Setting) -> Trained:
    """GFLOP/s of `setting.workers` processes together; each takes the better of two memory formats."""
    side, (channels, filters) = plan.network["side"] - 2, plan.network["channels"]
    shapes = ((plan.batches.shape[4], channels, side, side), (filters, channels, 3, 3))
    with multiprocessing.get_context("spawn").Pool(setting.workers) as pool:
        rates = pool.map(_rate, [shapes] * setting.workers, chunksize=1)
    return Trained(params={}, value=sum(rates))


def _rate(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> float:
    torch.set_num_threads(1)
    return max(_rate_in(form, *shapes) for form in (torch.contiguous_format, torch.channels_last))


def _rate_in(form: Any, images: tuple[int, ...], filters: tuple[int, ...]) -> float:
    inputs = torch.rand(images).to(memory_format=form).requires_grad_()
    weight = torch.rand(filters).to(memory_format=form).requires_grad_()
    outputs = F.conv2d(inputs, weight)
    upstream = torch.rand_like(outputs)
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        torch.autograd.grad(F.conv2d(inputs, weight), (inputs, weight), upstream)
        seconds.append(time.perf_counter() - started)
    # one multiplication and one addition, for the outputs and for the two gradients
    operations = 6 * outputs.numel() * weight[0].numel()
    return operations / statistics.median(seconds) / 1e9


if __name__ == "__main__":
    main(train)
