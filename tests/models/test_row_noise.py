"""Tests of `fedmem/models/_row_noise.py`."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from fedmem.models._row_noise import NUM_VECTORS, RowNoise


def images(count: int, size: int) -> torch.Tensor:
    return torch.from_numpy((np.random.default_rng(0).random((count, size)) < 0.4).astype(np.float32))


def test_noise_follows_from_the_row_in_any_batch() -> None:
    rows = images(50, 20)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        first = RowNoise("a", 20)
        torch.default_generator.manual_seed(2)
        again = RowNoise("a", 20)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    for one, other in zip(first.choices(rows), again.choices(rows[order]), strict=True):
        assert torch.equal(one[order], other)
    for one, other in zip(first.choices(rows), first.double().choices(rows.double()), strict=True):
        assert torch.equal(one.double(), other.double())
    assert not torch.equal(RowNoise("b", 20).choices(rows)[0], first.choices(rows)[0])


def test_rows_are_spread_evenly() -> None:
    """One changed pixel is enough for other noise; starts and numbers are uniform."""
    start, stride, uniform = RowNoise("a", 60).choices(images(4000, 60))
    assert stats.kstest(uniform, "uniform").pvalue > 0.01
    assert stats.chisquare(np.bincount(start.numpy() // 64, minlength=16)).pvalue > 0.01
    assert (stride % 2 == 1).all()
    flipped = torch.eye(60)
    assert len(set(RowNoise("a", 60).choices(flipped)[0].tolist())) > 50


def test_a_row_has_vectors_that_differ() -> None:
    noise = RowNoise("a", 5)
    start, stride, _ = noise.choices(images(7, 5))
    vectors = noise.of(start, stride, torch.arange(NUM_VECTORS))
    assert vectors.shape == (NUM_VECTORS, 7, 5)
    for row in range(7):
        assert len(torch.unique(vectors[:, row], dim=0)) == NUM_VECTORS
    assert abs(float(vectors.mean())) < 0.1


def test_hashes_work_for_single_rows_of_a_vectorised_map() -> None:
    noise, rows = RowNoise("a", 5), images(7, 5)
    mapped = torch.func.vmap(lambda row: noise.choices(row[None])[0])(rows)
    assert torch.equal(mapped[:, 0], noise.choices(rows)[0])
