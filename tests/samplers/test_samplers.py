"""Inclusion probabilities are what the samplers say, and the tests would notice if they were not."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedmem.contracts.sampler import History, Sampler
from fedmem.errors import ComponentError
from fedmem.samplers.atypical import Atypical
from fedmem.samplers.by_size import BySize
from fedmem.samplers.cyclic import Cyclic
from fedmem.samplers.everyone import Everyone
from fedmem.samplers.min_separation import MinSeparation
from fedmem.samplers.poisson import Poisson
from fedmem.samplers.uniform import Uniform


def history(clients: int) -> History:
    return History.start([30] * clients)


def participation(sampler: Sampler, known: int | History, rounds: int) -> np.ndarray:
    """(rounds, clients) who took part, one round after the other."""
    rng = np.random.default_rng(0)
    known = history(known) if isinstance(known, int) else known
    took = np.zeros((rounds, known.num_clients), dtype=bool)
    for round_number in range(rounds):
        cohort = sampler.cohort(round_number + 1, known, rng)
        took[round_number, cohort] = True
        last_round = known.last_round.copy()
        last_round[cohort] = round_number + 1
        known = replace(known, last_round=last_round)
    return took


def agree(counts: Sequence[float], rounds: int, truth: Sequence[float]) -> bool:
    """Whether these counts out of so many rounds fit these probabilities, all together."""
    return min(stats.binomtest(int(c), rounds, p).pvalue for c, p in zip(counts, truth, strict=True)) > 1e-4


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


# --- cyclic -----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(clients=st.integers(1, 12), data=st.data(), rounds=st.integers(1, 40), seed=st.integers(0, 9))
def test_cyclic_gives_everybody_the_same_number_of_turns(
    clients: int, data: st.DataObject, rounds: int, seed: int
) -> None:
    size = data.draw(st.integers(1, clients))
    known = History.start([1] * clients, order=np.random.default_rng(seed).permutation(clients))
    took = participation(Cyclic(size=size), known, rounds)
    assert set(took.sum(1).tolist()) == {size}
    assert took.sum(0).min() >= rounds * size // clients
    assert took.sum(0).max() <= -(-rounds * size // clients)


def test_cyclic_blocks_follow_the_order_and_wrap() -> None:
    known = History.start([1] * 5, order=[4, 2, 0, 1, 3])
    found = [
        Cyclic(size=2).cohort(round_number, known, np.random.default_rng(round_number)).tolist()
        for round_number in range(1, 7)
    ]
    assert found == [[2, 4], [0, 1], [3, 4], [0, 2], [1, 3], [2, 4]]


# --- by size ----------------------------------------------------------------------------------------------------------


def test_by_size_includes_in_proportion_to_rows_exactly() -> None:
    """Every start of the marks, for every order: inclusion is K n_k / n with no rounding at all."""
    sizes = [1, 2, 4, 5]

    class Every:
        """A generator that gives one order and one start, so that all can be enumerated."""

        def __init__(self, order: Sequence[int], start: int) -> None:
            self.order, self.start = list(order), start

        def permutation(self, clients: np.ndarray) -> np.ndarray:
            return clients[self.order]

        def integers(self, high: int) -> int:
            assert high == sum(sizes)
            return self.start

    counts, cases = np.zeros(4, dtype=int), 0
    for order in permutations(range(4)):
        for start in range(sum(sizes)):
            cohort = BySize(size=2).cohort(1, History.start(sizes), Every(order, start))  # type: ignore[arg-type]
            assert len(set(cohort.tolist())) == 2
            counts[cohort] += 1
            cases += 1
    assert (counts * sum(sizes)).tolist() == [2 * size * cases for size in sizes]


def test_by_size_would_be_told_from_drawing_one_after_the_other() -> None:
    """Successive draws with the same weights include the small too often; the test above is not blind to it."""
    sizes, rounds = np.array([1, 2, 4, 5]), 4000
    truth = (2 * sizes / 12).tolist()
    rng = np.random.default_rng(1)
    one_by_one = np.zeros(4)
    for _ in range(rounds):
        one_by_one[rng.choice(4, 2, replace=False, p=sizes / 12)] += 1
    assert agree(participation(BySize(size=2), History.start(sizes), rounds).sum(0).tolist(), rounds, truth)
    assert not agree(one_by_one.tolist(), rounds, truth)


def test_by_size_takes_the_very_large_for_sure_and_shares_out_the_rest() -> None:
    took = participation(BySize(size=3), History.start([100, 20, 3, 4, 5, 0]), 4000)
    assert took[:, 0].all()
    # 20 of the 32 rows that are left are more than half, so two places hold it for sure
    assert took[:, 1].all()
    assert not took[:, 5].any()
    assert agree(took.sum(0)[2:5].tolist(), 4000, [3 / 12, 4 / 12, 5 / 12])
    assert set(took.sum(1).tolist()) == {3}


def test_by_size_with_equal_rows_is_uniform_over_sets() -> None:
    took = participation(BySize(size=3), 6, 3000)
    pairs = (took.T.astype(int) @ took.astype(int))[np.triu_indices(6, 1)]
    assert agree(pairs.tolist(), 3000, [0.2] * 15)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 10_000), min_size=1, max_size=12), data=st.data(), seed=st.integers(0, 99))
def test_by_size_always_fills_its_cohort(sizes: list[int], data: st.DataObject, seed: int) -> None:
    able = sum(size > 0 for size in sizes)
    if not able:
        with pytest.raises(ComponentError, match="0 of"):
            BySize(size=1).cohort(1, History.start(sizes), np.random.default_rng(0))
        return
    size = data.draw(st.integers(1, able))
    cohort = BySize(size=size).cohort(1, History.start(sizes), np.random.default_rng(seed))
    assert len(cohort) == size
    assert np.all(np.diff(cohort) > 0)
    assert all(sizes[client] for client in cohort)


def by_sorting(sizes: np.ndarray, places: int, rng: np.random.Generator) -> list[int]:
    """`by_size` with everything sorted and every mark a whole number."""
    certain: list[int] = []
    left = int(sizes.sum())
    for client in np.argsort(-sizes, kind="stable")[:places].tolist():
        if (places - len(certain)) * int(sizes[client]) < left:
            break
        certain.append(client)
        left -= int(sizes[client])
    others = rng.permutation(np.array([k for k in np.flatnonzero(sizes > 0) if k not in certain], dtype=np.int64))
    marks = places - len(certain)
    ends = np.cumsum(sizes[others])
    start = int(rng.integers(ends[-1])) if marks else 0
    for mark in range(marks):
        at = start + mark * int(ends[-1])
        certain.append(int(others[next(i for i, end in enumerate(ends.tolist()) if end * marks > at)]))
    return sorted(certain)


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 2, 3, 7, 50]), min_size=1, max_size=12),
    data=st.data(),
    seed=st.integers(0, 9),
)
def test_by_size_is_what_sorting_everybody_would_give(sizes: list[int], data: st.DataObject, seed: int) -> None:
    able = sum(size > 0 for size in sizes)
    if able:
        places = data.draw(st.integers(1, able))
        cohort = BySize(size=places).cohort(1, History.start(sizes), np.random.default_rng(seed))
        assert cohort.tolist() == by_sorting(np.array(sizes), places, np.random.default_rng(seed))


# --- minimum separation -----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 4), separation=st.integers(1, 5), spare=st.integers(0, 5))
def test_min_separation_keeps_turns_apart(size: int, separation: int, spare: int) -> None:
    took = participation(MinSeparation(size=size, separation=separation), size * separation + spare, 25)
    assert set(took.sum(1).tolist()) == {size}
    gaps = [np.diff(np.flatnonzero(client)) for client in took.T]
    assert min((int(gap.min()) for gap in gaps if len(gap)), default=separation) >= separation
    if not spare:
        assert all((gap == separation).all() for gap in gaps)


def test_min_separation_of_one_is_uniform_and_of_two_is_not() -> None:
    took = participation(MinSeparation(size=2, separation=1), 6, 3000)
    again = (took[1:] & took[:-1]).sum()
    assert stats.binomtest(int(again), 6 * 2999, 1 / 9).pvalue > 1e-3
    apart = participation(MinSeparation(size=2, separation=2), 6, 3000)
    assert not (apart[1:] & apart[:-1]).any()
    assert agree(apart.sum(0).tolist(), 3000, [1 / 3] * 6)


def test_min_separation_says_what_cannot_be() -> None:
    with pytest.raises(ComponentError, match=r"3 in each of 2 rounds are 6 different clients, but there are 5"):
        MinSeparation(size=3, separation=2).cohort(1, history(5), np.random.default_rng(0))


# --- atypical ---------------------------------------------------------------------------------------------------------


def successive(weights: np.ndarray, size: int) -> np.ndarray:
    """Inclusion probabilities of drawing one after the other without replacement, by enumeration."""
    found = np.zeros(len(weights))
    for order in permutations(range(len(weights)), size):
        left, chance = weights.sum(), 1.0
        for client in order:
            chance *= weights[client] / left
            left -= weights[client]
        found[list(order)] += chance
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
def test_atypical_includes_as_successive_draws_with_the_stated_weights_do(size: int) -> None:
    slots = np.array([0, 0, 1, 3, 6])
    weights = np.exp(0.8 * (slots - slots.mean()) / slots.std())
    counts = participation(Atypical(size=size, beta=0.8), History.start([9] * 5, slots), 4000).sum(0).tolist()
    assert agree(counts, 4000, successive(weights, size).tolist())
    assert not agree(counts, 4000, successive(1 / weights, size).tolist())
    assert not agree(counts, 4000, successive(np.ones(5), size).tolist())


@pytest.mark.parametrize("size", [1, 3, 8])
def test_atypical_takes_the_largest_sums_as_sorting_would(size: int) -> None:
    known = History.start([9] * 8, atypical=[0, 0, 1, 5, 2, 2, 0, 9])
    for seed in range(20):
        keys = np.random.default_rng(seed).gumbel(size=8)
        keys += 1.5 * (known.atypical - known.atypical.mean()) / known.atypical.std()
        cohort = Atypical(size=size, beta=1.5).cohort(1, known, np.random.default_rng(seed))
        assert cohort.tolist() == sorted(np.argsort(-keys)[:size].tolist())


def test_atypical_prefers_more_slots_and_more_so_with_beta() -> None:
    known = History.start([9] * 6, [0, 1, 2, 3, 4, 5])
    shares = [participation(Atypical(size=2, beta=beta), known, 4000).mean(0) for beta in (0.0, 0.5, 1.0, 2.0)]
    assert all(np.all(np.diff(share) > 0) for share in shares[1:])
    assert np.all(np.diff([share[5] for share in shares]) > 0)
    assert np.all(np.diff([share[0] for share in shares]) < 0)


def test_atypical_at_zero_or_with_equal_slots_does_not_see_them() -> None:
    for beta, slots in ((0.0, [0, 7, 2, 90, 1, 1]), (3.0, [4] * 6), (3.0, [0] * 6)):
        sampler, known = Atypical(size=3, beta=beta), History.start([9] * 6, slots)
        plain = History.start([9] * 6)
        for seed in range(30):
            drawn, blind = (sampler.cohort(1, h, np.random.default_rng(seed)).tolist() for h in (known, plain))
            assert drawn == blind
        took = participation(sampler, known, 3000)
        pairs = (took.T.astype(int) @ took.astype(int))[np.triu_indices(6, 1)]
        assert agree(pairs.tolist(), 3000, [0.2] * 15)


def test_atypical_does_not_hang_on_the_number_of_slots() -> None:
    """Standardised: ten times the copies draw the same cohorts."""
    few, many = (History.start([9] * 6, np.array([0, 1, 2, 3, 4, 5]) * factor) for factor in (1, 10))
    for seed in range(30):
        one, other = (Atypical(size=2).cohort(1, h, np.random.default_rng(seed)).tolist() for h in (few, many))
        assert one == other


@pytest.mark.parametrize("sampler", [Cyclic(size=6), BySize(size=6), Atypical(size=6), MinSeparation(size=6)])
def test_more_than_there_are_cannot_be_drawn(sampler: Sampler) -> None:
    with pytest.raises(ComponentError, match=r"sampler\.size"):
        sampler.cohort(1, history(5), np.random.default_rng(0))
