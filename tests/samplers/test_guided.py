"""Samplers that read losses, norms, clusters, who is there and who is lost: against naive laws, by enumeration."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.contracts.sampler import History, Sampler
from fedmem.errors import ComponentError, ScenarioError
from fedmem.federation.build import build
from fedmem.federation.roster import Roster
from fedmem.samplers.availability import Availability
from fedmem.samplers.clustered import Clustered
from fedmem.samplers.cyclic import Cyclic
from fedmem.samplers.dropout import Dropout
from fedmem.samplers.oort import Oort
from fedmem.samplers.optimal import Optimal
from fedmem.samplers.power_of_choice import PowerOfChoice
from fedmem.samplers.uniform import Uniform
from fedmem.samplers.update_aware import UpdateAware
from tests.narrowing import present
from tests.samplers.test_samplers import agree
from tests.tiny import tiny

SIZES = [1, 2, 4, 5]
LOSS = np.array([0.9, 0.2, np.nan, 0.5])


def known(sizes: list[int] = SIZES, **arrays: Any) -> History:
    given: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    return replace(History.start(sizes), **given)


def counts(sampler: Sampler, history: History, times: int = 4000, round_number: int = 5) -> list[int]:
    """How often each client is picked in one and the same round."""
    rng, found = np.random.default_rng(0), np.zeros(history.num_clients, dtype=np.int64)
    for _ in range(times):
        found[sampler.cohort(round_number, history, rng)] += 1
    return found.tolist()


def sets_in_proportion(weights: list[int], size: int) -> dict[tuple[int, ...], float]:
    """The probability of each set that is drawn one after the other."""
    found = dict.fromkeys(combinations(range(len(weights)), size), 0.0)
    for order in permutations(range(len(weights)), size):
        left, chance = sum(weights), 1.0
        for client in order:
            chance *= weights[client] / left
            left -= weights[client]
        found[tuple(sorted(order))] += chance
    return found


# --- power of choice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "candidates"), [(1, 2), (2, 3), (1, 3), (2, 2), (2, 4)])
def test_power_of_choice_is_the_highest_losses_among_candidates_by_size(size: int, candidates: int) -> None:
    truth, blind = np.zeros(4), np.zeros(4)
    keys = np.where(np.isnan(LOSS), np.inf, LOSS)
    for drawn, chance in sets_in_proportion(SIZES, candidates).items():
        truth[sorted(drawn, key=lambda client: -keys[client])[:size]] += chance
        blind[list(drawn)] += chance * size / candidates
    found = counts(PowerOfChoice(size=size, candidates=candidates), known(last_loss=LOSS))
    assert agree(found, 4000, truth.round(12).tolist())
    assert agree(found, 4000, blind.round(12).tolist()) == (size == candidates)


def test_power_of_choice_refuses_to_choose_more_than_it_looks_at() -> None:
    with pytest.raises(ComponentError, match="use at least 5, or lower size to at most 4"):
        PowerOfChoice(size=5, candidates=4)
    with pytest.raises(ScenarioError, match=r"sampler\.candidates"):
        tiny(sampler={"kind": "power_of_choice", "size": 3, "candidates": 2}, roster="pilot")
    with pytest.raises(ComponentError, match="3 of 4 clients have rows"):
        PowerOfChoice(size=1, candidates=4).cohort(1, known([1, 0, 2, 3]), np.random.default_rng(0))


# --- largest updates --------------------------------------------------------------------------------------------------


def test_update_aware_takes_new_clients_then_the_largest() -> None:
    norms = [0.1, np.nan, 3.0, 2.0, np.nan, 0.0]
    for size, truth in ((2, {1, 4}), (3, {1, 4, 2}), (4, {1, 4, 2, 3}), (5, {1, 4, 2, 3, 0})):
        cohort = UpdateAware(size=size).cohort(9, known([5] * 6, last_norm=norms), np.random.default_rng(0))
        assert set(cohort.tolist()) == truth
    ties = counts(UpdateAware(size=2), known([5] * 4, last_norm=[1.0, 2.0, 1.0, 1.0]))
    assert agree(ties, 4000, [1 / 3, 1.0, 1 / 3, 1 / 3])


# --- least variance ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data(), clients=st.integers(1, 9), seed=st.integers(0, 99))
def test_optimal_has_the_least_variance_of_all_with_its_expected_cohort(
    data: st.DataObject, clients: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    expected = data.draw(st.floats(0.1, float(clients)))
    sizes, norms = rng.integers(1, 50, clients), rng.lognormal(sigma=1.5, size=clients)
    chances = Optimal(expected=expected).probabilities(2, known(sizes.tolist(), last_norm=norms))
    assert chances.sum() == pytest.approx(expected)
    weights = sizes * norms

    def variance(p: np.ndarray) -> float:
        return float((weights**2 * (1 / p - 1)).sum())

    for _ in range(20):
        other = rng.dirichlet(np.ones(clients)) * expected
        for _ in range(clients):  # what exceeds 1 goes to the others
            free = other < 1
            excess = (other[~free] - 1).sum()
            other = np.minimum(other, 1)
            if free.any():
                other[free] += excess / free.sum()
        mixed = 0.9 * chances + 0.1 * np.minimum(other, 1)
        if mixed.sum() <= expected + 1e-9:
            assert variance(chances) <= variance(mixed) * (1 + 1e-9) + 1e-9


def test_optimal_gives_the_unknown_the_mean_and_everybody_something_where_nothing_moved() -> None:
    chances = Optimal(expected=1.5).probabilities(2, known([10] * 4, last_norm=[1.0, np.nan, 3.0, 2.0]))
    assert chances[1] == pytest.approx(chances[3])
    assert Optimal(expected=1.5).probabilities(1, known([10] * 4)).tolist() == [0.375] * 4
    still = Optimal(expected=2.0).probabilities(2, known([10] * 4, last_norm=[0.0, 0.0, 7.0, 0.0]))
    assert still.tolist() == pytest.approx([1 / 3, 1 / 3, 1, 1 / 3])
    with pytest.raises(ScenarioError, match="a cohort of 6 cannot be drawn from 5 clients"):
        tiny(sampler={"kind": "optimal", "expected": 6}, roster="pilot")


# --- guided selection -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("round_number", "new"), [(1, 6), (2, 5), (4, 3), (60, 2)])
def test_oort_explores_a_share_that_falls(round_number: int, new: int) -> None:
    """0.8^(r-1) of 6 places, at least a third; ten clients have trained, ten have not."""
    loss = np.r_[np.linspace(0.1, 1, 10), np.full(10, np.nan)]
    history = known([5] * 20, last_loss=loss, last_round=np.r_[np.ones(10, int), np.zeros(10, int)])
    sampler = Oort(size=6, exploration=1.0, decay=0.8, min_exploration=1 / 3)
    for seed in range(20):
        cohort = sampler.cohort(round_number, history, np.random.default_rng(seed))
        assert (cohort >= 10).sum() == new
        assert len(cohort) == 6


def test_oort_exploits_in_proportion_to_utility_above_its_cut() -> None:
    """One place: whoever has 95 % of the best utility may get it; rows times loss, scaled, and time since."""
    options: dict[str, Any] = {"size": 1, "exploration": 0.0, "min_exploration": 0.0}
    alike = known([10] * 4, last_loss=[1.0, 1.0, 1.0, 0.2], last_round=[1] * 4)
    assert agree(counts(Oort(**options), alike), 4000, [1 / 3, 1 / 3, 1 / 3, 0.0])
    larger = known([10, 10, 30, 10], last_loss=[1.0, 1.0, 0.5, 0.2], last_round=[1] * 4)
    assert counts(Oort(**options), larger) == [0, 0, 4000, 0], "rows count as well as losses"
    stale = known([10] * 3, last_loss=[1.0, 1.0, 1.0], last_round=[5, 1, 5])
    assert counts(Oort(**options), stale, round_number=6) == [0, 4000, 0]
    two = counts(Oort(**{**options, "size": 2}), known([10] * 3, last_loss=[1.0, 1.0, 0.0], last_round=[1] * 3))
    assert two == [4000, 4000, 0]


def test_oort_does_not_run_after_outliers() -> None:
    """Utilities above the 95 % quantile count alike: of a hundred, the two largest are as good as the third."""
    loss = np.r_[np.full(94, 0.01), np.full(4, 1.0), 1e6, 1e9]
    history = known([10] * 100, last_loss=loss, last_round=np.ones(100, int))
    found = np.array(counts(Oort(size=1, exploration=0.0, min_exploration=0.0), history, times=3000))
    assert found[:94].sum() == 0
    assert agree(found[94:].tolist(), 3000, [1 / 6] * 6)


# --- coming and going -------------------------------------------------------------------------------------------------


def chain(rounds: int, **options: Any) -> np.ndarray:
    """(rounds, clients) who is there, as the roster keeps it."""
    asked = tiny(sampler={"kind": "availability", "size": 3, **options}, clients=5)
    roster, seen = Roster(asked, build(asked), 0), []
    for round_number in range(1, rounds + 1):
        cohort = roster.cohort(round_number)
        seen.append(roster._draws.history.available.copy())  # type: ignore[union-attr]
        assert len(cohort) == min(3, int(seen[-1].sum()))
        assert seen[-1][list(cohort)].all()
    return np.array(seen)


@pytest.mark.parametrize(("arrive", "leave"), [(0.2, 0.1), (0.5, 0.5), (0.9, 0.3)])
def test_availability_is_a_chain_with_these_steps(arrive: float, leave: float) -> None:
    there = chain(3000, arrive=arrive, leave=leave)
    before, after = there[:-1].ravel(), there[1:].ravel()
    for state, truth in ((True, 1 - leave), (False, arrive)):
        moved = after[before == state]
        assert agree([int(moved.sum())], len(moved), [truth])
        assert not agree([int(moved.sum())], len(moved), [truth - 0.05])
    # five chains whose draws hang together for about 2 / (a + b) rounds
    assert there.mean() == pytest.approx(arrive / (arrive + leave), abs=0.04)


def test_availability_starts_as_it_goes_on() -> None:
    first = [
        Availability(arrive=0.2, leave=0.6).reachable_clients(1, known([5] * 2000), np.random.default_rng(0)).sum()
    ]
    assert agree([int(first[0])], 2000, [0.25])
    assert chain(5, arrive=1.0, leave=0.0).all()


# --- those that are lost ----------------------------------------------------------------------------------------------


def test_dropout_loses_each_with_its_rate() -> None:
    history = known([5] * 6)
    assert agree(counts(Dropout(rate=0.3), history), 4000, [0.7] * 6)
    assert agree(counts(Dropout(sampler=Uniform(size=2), rate=0.3), history), 4000, [0.7 / 3] * 6)
    for seed in range(20):
        plain, same = (
            sampler.cohort(1, history, np.random.default_rng(seed)).tolist()
            for sampler in (Uniform(size=2), Dropout(sampler=Uniform(size=2), rate=0.0))
        )
        assert plain == same


@pytest.mark.parametrize("concentration", [0.5, 2.0, 20.0])
def test_rates_follow_the_beta_law_and_stay_with_their_clients(concentration: float) -> None:
    lots = np.random.default_rng(0).random(4000)
    history = replace(History.start([5] * 4000, uniforms=lots), last_round=np.arange(4000))
    sampler = Dropout(rate=0.3, concentration=concentration)
    rates = 1 - present(sampler.probabilities(1, history))
    assert rates.mean() == pytest.approx(0.3, abs=0.02)
    assert rates.var() == pytest.approx(0.3 * 0.7 / (concentration + 1), rel=0.1)
    np.testing.assert_array_equal(1 - present(sampler.probabilities(9, history)), rates)
    assert np.corrcoef(rates, lots)[0, 1] > 0.8


def test_dropout_says_where_its_inner_sampler_is_wrong() -> None:
    with pytest.raises(ComponentError) as caught:
        Dropout(sampler=Cyclic(size=9)).cohort(1, known(), np.random.default_rng(0))
    assert caught.value.path == "sampler.sampler.size"
    with pytest.raises(ScenarioError, match=r"sampler\.sampler\.size: a cohort of 9 cannot be drawn from 5 clients"):
        tiny(sampler={"kind": "dropout", "sampler": {"kind": "uniform", "size": 9}})
    with pytest.raises(ScenarioError, match=r"sampler\.sampler\.separation"):
        tiny(sampler={"kind": "dropout", "sampler": {"kind": "min_separation", "size": 2, "separation": 4}})


def test_dropout_passes_on_who_can_be_reached() -> None:
    inner = {"kind": "availability", "size": 2, "arrive": 0.3, "leave": 0.3}
    plain, wrapped = (
        [Roster(asked, build(asked), 0).cohort(round_number) for round_number in range(1, 30)]
        for asked in (tiny(sampler=inner), tiny(sampler={"kind": "dropout", "sampler": inner, "rate": 0.0}))
    )
    assert plain == wrapped
    assert any(len(cohort) < 2 for cohort in plain)


# --- clusters ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=7), data=st.data())
def test_clusters_are_the_rows_laid_end_to_end(sizes: list[int], data: st.DataObject) -> None:
    """Naive: every row as K pieces, one after the other, cut into K parts of n; the share of each client in each."""
    size = data.draw(st.integers(1, len(sizes)))
    order = sorted(range(len(sizes)), key=lambda client: -sizes[client])
    pieces = np.array([client for client in order for _ in range(sizes[client] * size)])
    shares = np.array([[np.mean(part == k) for k in range(len(sizes))] for part in np.split(pieces, size)])
    np.testing.assert_allclose(shares.sum(0), size * np.array(sizes) / sum(sizes), atol=1e-12)
    truth = 1 - np.prod(1 - shares, axis=0)
    np.testing.assert_allclose(Clustered(size=size).probabilities(1, known(sizes)), truth, atol=1e-12)


def test_one_of_each_cluster_takes_part() -> None:
    """Four clusters of two clients each: never both of a pair, which K draws with replacement would give."""
    history = known([8, 7, 6, 5, 4, 3, 2, 1])
    even = known([5] * 8)
    for seed in range(50):
        assert len(Clustered(size=3).cohort(1, history, np.random.default_rng(seed))) <= 3
        cohort = Clustered(size=4).cohort(1, even, np.random.default_rng(seed))
        assert sorted(client // 2 for client in cohort.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(("arrive", "leave"), [(0.02, 0.08), (0.08, 0.02)])
def test_slow_chains_are_as_full_in_the_first_rounds_as_ever(arrive: float, leave: float) -> None:
    """Chains that began with everybody, nobody or one half would need some 20 rounds to get to their law."""
    sampler, history = Availability(arrive=arrive, leave=leave), known([5] * 4000)
    rng = np.random.default_rng(1)
    for round_number in range(1, 6):
        there = sampler.reachable_clients(round_number, history, rng)
        history.available[:] = there
        assert agree([int(there.sum())], 4000, [arrive / (arrive + leave)])


def test_the_chance_of_who_is_there_counts_those_who_are_there() -> None:
    there = np.array([True, False, True, True, False])
    history = replace(known([5] * 5), available=there)
    for size, chance in ((1, 1 / 3), (2, 2 / 3), (3, 1.0), (4, 1.0)):
        sampler = Availability(size=size)
        stated = sampler.probabilities(2, history)
        assert stated.tolist() == pytest.approx(np.where(there, chance, 0.0).tolist())
        assert agree(counts(sampler, history), 4000, stated.tolist())
