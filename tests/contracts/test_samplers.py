"""What every sampler promises, for every file in the folder."""

import numpy as np
import pytest

from fedmem import catalogue
from fedmem.components import History, Sampler

every_sampler = pytest.mark.parametrize("kind", catalogue.kinds("sampler"))


def make(kind: str) -> Sampler:
    component = catalogue.load("sampler", kind)()
    assert isinstance(component, Sampler)
    return component


def history(clients: int) -> History:
    """Nobody has trained yet: the first round has to work like any other."""
    never = np.full(clients, np.nan)
    return History(num_clients=clients, sizes=np.full(clients, 30), last_loss=never, last_norm=never)


@every_sampler
@pytest.mark.parametrize("round", [1, 2, 40])
def test_cohorts_are_sorted_distinct_clients(kind: str, round: int) -> None:
    for seed in range(20):
        cohort = make(kind).cohort(round, history(20), np.random.default_rng(seed))
        assert cohort.dtype == np.int64
        assert np.all(np.diff(cohort) > 0)
        assert set(cohort.tolist()) <= set(range(20))


@every_sampler
def test_draws_from_its_generator_alone(kind: str) -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002 (the global generator must stay untouched)
    first, second = (make(kind).cohort(1, history(20), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(before, np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002


@every_sampler
def test_nobody_is_left_out_for_ever(kind: str) -> None:
    seen: set[int] = set()
    for seed in range(200):
        seen |= set(make(kind).cohort(seed + 1, history(20), np.random.default_rng(seed)).tolist())
    assert seen == set(range(20))
