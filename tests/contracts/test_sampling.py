"""Tests of `fedmem/contracts/sampling.py`."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from fedmem.contracts.sampling import SamplingNetwork


class _Noise(nn.Module):
    def sample(self, count: int, generator: Generator) -> Tensor:
        return torch.rand(count, 2, generator=generator)


def test_a_method_makes_a_network_one_that_samples() -> None:
    assert isinstance(_Noise(), SamplingNetwork)
    assert not isinstance(nn.Linear(2, 2), SamplingNetwork)
