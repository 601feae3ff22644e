"""Tests of `fedmem/models/_noise.py`."""

from __future__ import annotations

import torch

from fedmem.models._noise import shared_noise


def test_noise_depends_on_its_purpose_alone() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        first = shared_noise("a", 200, 5)
        torch.default_generator.manual_seed(2)
        assert torch.equal(shared_noise("a", 200, 5), first)
    assert not torch.equal(shared_noise("b", 200, 5), first)
    assert first.dtype == torch.float32
    assert abs(float(first.mean())) < 0.1
    assert abs(float(first.std()) - 1) < 0.1
