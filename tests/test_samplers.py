"""Inclusion probabilities are what the samplers say, and the tests would notice if they were not."""

import numpy as np
import pytest
from scipy import stats

from fedmem.components import History, Sampler
from fedmem.errors import ComponentError
from fedmem.samplers.everyone import Everyone
from fedmem.samplers.poisson import Poisson
from fedmem.samplers.uniform import Uniform


def history(clients: int) -> History:
    never = np.full(clients, np.nan)
    return History(num_clients=clients, sizes=np.full(clients, 30), last_loss=never, last_norm=never)


def participation(sampler: Sampler, clients: int, rounds: int) -> np.ndarray:
    """(rounds, clients) who took part."""
    rng = np.random.default_rng(0)
    took = np.zeros((rounds, clients), dtype=bool)
    for round in range(rounds):
        took[round, sampler.cohort(round + 1, history(clients), rng)] = True
    return took


@pytest.mark.parametrize(("sampler", "truth"), [(Uniform(size=3), 0.3), (Poisson(rate=0.3), 0.3)])
def test_every_client_takes_part_as_often_as_stated(sampler: Sampler, truth: float) -> None:
    counts = participation(sampler, 10, 3000).sum(0)
    assert min(stats.binomtest(int(count), 3000, truth).pvalue for count in counts) > 1e-3
    assert max(stats.binomtest(int(count), 3000, truth + 0.1).pvalue for count in counts) < 1e-3


def test_uniform_sizes_are_fixed_and_pairs_are_equally_likely() -> None:
    took = participation(Uniform(size=3), 6, 3000)
    assert set(took.sum(1).tolist()) == {3}
    pairs = (took.T.astype(int) @ took.astype(int))[np.triu_indices(6, 1)]
    # P(both) = K (K - 1) / (N (N - 1)) = 0.2
    assert min(stats.binomtest(int(count), 3000, 0.2).pvalue for count in pairs) > 1e-3
    assert max(stats.binomtest(int(count), 3000, 0.25).pvalue for count in pairs) < 1e-3


def test_poisson_clients_decide_independently() -> None:
    took = participation(Poisson(rate=0.3), 6, 3000)
    pairs = (took.T.astype(int) @ took.astype(int))[np.triu_indices(6, 1)]
    assert min(stats.binomtest(int(count), 3000, 0.09).pvalue for count in pairs) > 1e-3
    assert took.sum(1).var() == pytest.approx(6 * 0.3 * 0.7, rel=0.1)


def test_poisson_cohorts_may_be_empty() -> None:
    empty = (participation(Poisson(rate=0.1), 5, 2000).sum(1) == 0).sum()
    assert stats.binomtest(int(empty), 2000, 0.9**5).pvalue > 1e-3
    cohort = Poisson(rate=1e-12).cohort(1, history(5), np.random.default_rng(0))
    assert cohort.shape == (0,)
    assert cohort.dtype == np.int64


def test_everyone_is_everyone() -> None:
    assert Everyone().cohort(7, history(1), np.random.default_rng(0)).tolist() == [0]
    assert participation(Everyone(), 5, 3).all()


def test_uniform_can_take_all_but_no_more() -> None:
    assert Uniform(size=4).cohort(1, history(4), np.random.default_rng(0)).tolist() == [0, 1, 2, 3]
    with pytest.raises(ComponentError, match="a cohort of 5 out of 4 clients; use at most 4, or raise clients to 5"):
        Uniform(size=5).cohort(1, history(4), np.random.default_rng(0))
