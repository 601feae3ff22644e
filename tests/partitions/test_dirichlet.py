"""Tests of `fedmem/partitions/dirichlet.py`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.errors import ComponentError
from fedmem.partitions import dirichlet
from fedmem.partitions.dirichlet import Dirichlet
from tests.partitions.partitions_helpers import labelled, shares


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    clients=st.integers(1, 12),
    alpha=st.floats(0.3, 100),
    min_rows=st.integers(1, 5),
    reserve=st.integers(0, 50),
)
def test_dirichlet_loses_nothing_and_repeats_itself(
    seed: int, clients: int, alpha: float, min_rows: int, reserve: int
) -> None:
    rng = np.random.default_rng(seed)
    data = labelled(rng.integers(6, size=400))
    rows = np.sort(rng.choice(400, size=400 - reserve, replace=False))
    partition = Dirichlet(alpha=alpha, min_rows=min_rows)
    parts, again = (partition.assign(data, rows, clients, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), rows)
    assert min(len(part) for part in parts) >= min_rows
    for one, other in zip(parts, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_large_alpha_gives_everyone_the_global_labels() -> None:
    """The last client and the last class too: a prior that is used up or reset on the way shows here."""
    targets = np.repeat(np.arange(5), [1000, 2000, 500, 1500, 3000])
    assert shares(Dirichlet(alpha=1e6), targets, 10, 0) == pytest.approx(np.full((10, 5), 0.1), abs=0.005)


def test_small_alpha_gives_a_class_to_few() -> None:
    targets = np.repeat(np.arange(10), 500)
    largest = shares(Dirichlet(alpha=0.05), targets, 10, 0).max(0).mean()
    assert largest > 0.6 > 0.2 > shares(Dirichlet(alpha=100.0), targets, 10, 0).max(0).mean()


@pytest.mark.statistical
def test_dirichlet_shares_have_dirichlet_moments() -> None:
    """Mean 1/N and variance (1/N)(1-1/N)/(N alpha+1) whichever the client, the class and its size."""
    clients, alpha, repetitions = 5, 0.7, 3000
    targets = np.repeat(np.arange(4), [400, 100, 800, 200])
    draws = np.stack(
        [shares(Dirichlet(alpha=alpha, min_rows=1), targets, clients, seed) for seed in range(repetitions)]
    )
    variance = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    error = 4.5 * np.sqrt(variance / repetitions)
    assert np.abs(draws.mean(0) - 1 / clients).max() < error
    assert draws.var(0) == pytest.approx(np.full((clients, 4), variance), rel=0.12)
    # The same bounds reject another concentration, and boundaries that are rounded down.
    wrong = (1 / clients) * (1 - 1 / clients) / (clients * 1.0 + 1)
    assert not np.allclose(draws.var(0), wrong, rtol=0.12)
    few = np.repeat(np.arange(4), 10)
    floored = []
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        bounds = np.floor(np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1] * 10)
        floored.append((10 - bounds[-1]) / 10)
    assert np.mean(floored) - 1 / clients > error
    rounded = np.stack([shares(Dirichlet(alpha=alpha, min_rows=1), few, clients, s) for s in range(repetitions)])
    assert np.abs(rounded.mean(0) - 1 / clients).max() < 2 * error


@pytest.mark.statistical
def test_relabelling_the_classes_changes_nothing_in_distribution() -> None:
    """Concentration of a class must not depend on whether it is split first or last."""
    targets = np.repeat(np.arange(8), 100)
    squares = [(shares(Dirichlet(alpha=0.2, min_rows=1), targets, 6, seed) ** 2).sum(0) for seed in range(1000)]
    mean, error = np.mean(squares, axis=0), np.std(squares, axis=0) / np.sqrt(1000)
    assert np.abs(mean - mean.mean()).max() < 4 * error.max()


def test_dirichlet_stops_after_1000_draws_with_a_fix() -> None:
    data = labelled(np.repeat(np.arange(10), 20))
    with pytest.raises(ComponentError, match=r"1000 draws of alpha 0\.02 .*20 clients 5 of 200 rows.*raise alpha"):
        Dirichlet(alpha=0.02, min_rows=5).assign(data, np.arange(200), 20, np.random.default_rng(0))


def test_dirichlet_gives_up_sooner_where_a_draw_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dirichlet, "_DRAWN", 200 * 30)
    data = labelled(np.repeat(np.arange(10), 20))
    with pytest.raises(ComponentError, match=r"none of 30 draws"):
        Dirichlet(alpha=0.02, min_rows=5).assign(data, np.arange(200), 20, np.random.default_rng(0))
