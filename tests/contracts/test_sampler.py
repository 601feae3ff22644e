"""What every sampler promises, for every file in the folder."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.federation import Federation
from fedmem.contracts.sampler import Availability, History, KnownProbabilities, Sampler, sampler_declaration
from fedmem.errors import ComponentError
from fedmem.execution.bank import simulate
from fedmem.federation import build as federations
from fedmem.federation.build import build
from fedmem.federation.roster import Roster
from fedmem.scenario import catalogue
from fedmem.scenario.scenario import Scenario
from tests.narrowing import present
from tests.tiny import sampled, tiny

every_sampler = pytest.mark.parametrize("kind", catalogue.kinds("sampler"))

WITH_PROBABILITIES = [
    kind for kind in catalogue.kinds("sampler") if hasattr(catalogue.load("sampler", kind), "probabilities")
]
VARYING: dict[str, dict[str, Any]] = {
    "poisson": {"rate": 0.05},
    "optimal": {"expected": 0.3},
    "availability": {"size": 2, "arrive": 0.05, "leave": 0.95},
    "dropout": {"rate": 0.9},
    "clustered": {"size": 2},
}
"""Samplers whose cohorts vary in size, set so that they are small."""
FEW = {"listed": {0}}
"""The only clients that a sampler ever picks, by default."""


def make(kind: str, **changes: Any) -> Sampler:
    component = catalogue.load("sampler", kind)(**changes)
    assert isinstance(component, Sampler)
    return component


def small(kind: str, size: int = 2, **changes: Any) -> Sampler:
    """Of so many clients in a round, where it has a size."""
    known = {item.name for item in fields(catalogue.load("sampler", kind))}
    names = {"size": size, "expected": float(size), "candidates": min(size + 1, 5)}
    return make(kind, **{name: value for name, value in names.items() if name in known} | changes)


def fixed_size(kind: str, sampler: Sampler, clients: int) -> int | None:
    """The size of every cohort, as declared; None where cohorts vary."""
    declared = sampler_declaration(sampler)
    return clients if declared.law == "everyone" else None if kind in VARYING else declared.size


def history(clients: int) -> History:
    """Nobody has trained yet: the first round has to work like any other."""
    return History.start([30] * clients, atypical=list(range(clients)))


def uneven(state: str) -> History:
    """Six clients that differ in everything, of whom all, some or none have trained."""
    known = History.start(
        [5, 40, 12, 30, 60, 9], [0, 1, 0, 3, 0, 9], [3, 0, 5, 1, 4, 2], [0.9, 0.1, 0.5, 0.3, 0.7, 0.2]
    )
    last_round = np.array([4, 1, 2, 3, 5, 1])
    loss, norm = np.array([2.0, 0.1, 0.7, 1.5, 0.4, 0.9]), np.array([0.5, 3.0, 0.2, 1.0, 1.0, 0.1])
    gone = {"all": [], "some": [1, 3], "none": [0, 1, 2, 3, 4, 5]}[state]
    last_round[gone], loss[gone], norm[gone] = 0, np.nan, np.nan
    there = np.array([True, True, False, True, True, False])
    return replace(known, last_round=last_round, last_loss=loss, last_norm=norm, available=there)


HISTORIES = {state: uneven(state) for state in ("all", "some", "none")} | {"alike": history(6)}
every_history = pytest.mark.parametrize("state", HISTORIES)


def scenario(kind: str, **changes: object) -> Scenario:
    """Six rounds among five clients, who hold 0 to 4 atypical examples."""
    return tiny(**{**sampled(kind), "rounds": 6, **changes})


def cohorts(of: Scenario, federation: Federation, run: int = 0) -> list[tuple[int, ...]]:
    roster = Roster(of, federation, run)
    return [roster.cohort(round_number) for round_number in range(1, 7)]


@every_sampler
@pytest.mark.parametrize("round_number", [1, 2, 40])
def test_cohorts_are_sorted_distinct_clients(kind: str, round_number: int) -> None:
    for seed in range(20):
        cohort = make(kind).cohort(round_number, history(20), np.random.default_rng(seed))
        assert cohort.dtype == np.int64
        assert np.all(np.diff(cohort) > 0)
        assert set(cohort.tolist()) <= set(range(20))


@every_sampler
@every_history
def test_any_history_gives_a_sorted_cohort_of_the_requested_size(kind: str, state: str) -> None:
    for seed in range(30):
        for size in (1, 2, 3):
            sampler = small(kind, size)
            cohort = sampler.cohort(7, HISTORIES[state], np.random.default_rng(seed))
            assert cohort.dtype == np.int64
            assert np.all(np.diff(cohort) > 0)
            assert set(cohort.tolist()) <= set(range(6))
            if fixed_size(kind, sampler, 6) is not None:
                assert len(cohort) == fixed_size(kind, sampler, 6)


@every_sampler
@every_history
def test_equal_histories_and_generators_give_equal_cohorts(kind: str, state: str) -> None:
    arrays: dict[str, Any] = {n: np.array(a) for n, a in vars(HISTORIES[state]).items() if n != "num_clients"}
    copy = replace(HISTORIES[state], **arrays)
    for seed in range(10):
        one, other = (small(kind).cohort(7, h, np.random.default_rng(seed)) for h in (HISTORIES[state], copy))
        np.testing.assert_array_equal(one, other)


@every_sampler
def test_draws_from_its_generator_alone(kind: str) -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002 (the global generator must stay untouched)
    first, second = (make(kind).cohort(1, history(20), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(before, np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002


@every_sampler
def test_every_client_is_picked_in_some_of_200_rounds(kind: str) -> None:
    seen: set[int] = set()
    for seed in range(200):
        seen |= set(make(kind).cohort(seed + 1, history(20), np.random.default_rng(seed)).tolist())
    assert seen == FEW.get(kind, set(range(20)))


@every_sampler
def test_changes_nothing_in_the_history(kind: str) -> None:
    given = history(20)
    arrays = [array for name, array in vars(given).items() if name != "num_clients"]
    before = [array.copy() for array in arrays]
    sampler = make(kind)
    sampler.cohort(3, given, np.random.default_rng(0))
    if isinstance(sampler, Availability):
        sampler.reachable_clients(3, given, np.random.default_rng(0))
    if isinstance(sampler, KnownProbabilities):
        sampler.probabilities(3, given)
    for one, other in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(one, other)


@every_sampler
def test_a_single_client_is_a_federation(kind: str) -> None:
    alone = History.start([7])
    options = {
        name: 1 for name in ("candidates", "separation") if name in present(catalogue.field_names("sampler", kind))
    }
    for round_number in (1, 2, 9):
        sampler = small(kind, 1, **options)
        cohort = sampler.cohort(round_number, alone, np.random.default_rng(round_number))
        assert cohort.tolist() in ([0], [])
        assert len(cohort) == 1 or fixed_size(kind, sampler, 1) is None


@every_sampler
def test_cohort_larger_than_the_clients_is_an_error_with_both(kind: str) -> None:
    sizes = [
        name for name in ("candidates", "size", "expected") if name in present(catalogue.field_names("sampler", kind))
    ]
    if not sizes:
        return
    options: dict[str, Any] = {"size": 7, "candidates": 7} if kind == "power_of_choice" else {sizes[0]: 7}
    with pytest.raises(ComponentError, match=r"7.*6") as caught:
        make(kind, **options).cohort(1, history(6), np.random.default_rng(0))
    assert caught.value.path == f"sampler.{sizes[0]}"


# --- inclusion probabilities ------------------------------------------------------------------------------------------


def often(sampler: Sampler, round_number: int, known: History, times: int) -> IntArray:
    """How often each client is picked in one and the same round."""
    rng, counts = np.random.default_rng(5), np.zeros(known.num_clients, dtype=np.int64)
    for _ in range(times):
        counts[sampler.cohort(round_number, known, rng)] += 1
    return counts


def fits(counts: IntArray, times: int, truth: Any) -> bool:
    """Whether these counts out of so many fit these probabilities, all together."""
    tests = [stats.binomtest(int(count), times, float(p)).pvalue for count, p in zip(counts, truth, strict=True)]
    return min(tests) > 1e-4


@pytest.mark.parametrize("kind", WITH_PROBABILITIES)
@every_history
@pytest.mark.parametrize("round_number", [1, 7])
def test_clients_are_picked_with_the_declared_probabilities(kind: str, state: str, round_number: int) -> None:
    known, times = HISTORIES[state], 3000
    if round_number == 1:
        known = replace(known, last_round=np.zeros(6, dtype=np.int64))
    sampler = small(kind, 3)
    assert isinstance(sampler, KnownProbabilities)
    chances = sampler.probabilities(round_number, known)
    assert chances is not None
    assert chances.shape == (6,)
    assert chances.dtype == np.float64
    assert chances.min() >= 0
    assert chances.max() <= 1
    counts = often(sampler, round_number, known, times)
    assert fits(counts, times, chances)
    # the test can fail
    wrong = np.clip(chances + np.where(chances > 0.5, -0.1, 0.1), 0, 1)
    assert not fits(counts, times, wrong)


@pytest.mark.parametrize("kind", WITH_PROBABILITIES)
@every_history
def test_probabilities_add_up_to_the_expected_cohort(kind: str, state: str) -> None:
    sampler = small(kind, 3)
    assert isinstance(sampler, KnownProbabilities)
    total = present(sampler.probabilities(7, HISTORIES[state])).sum()
    declared = sampler_declaration(sampler)
    if kind != "clustered" and (declared.size is not None or declared.expected is not None):
        assert total == pytest.approx(3)
    if kind == "clustered":
        assert 1 <= total <= 3


def test_a_sampler_without_probabilities_declares_no_law() -> None:
    """The law of each other sampler gives them."""
    for kind in set(catalogue.kinds("sampler")) - set(WITH_PROBABILITIES):
        assert sampler_declaration(make(kind)).law is None, f"{kind} has a law, so it can have probabilities"


# --- in a run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", VARYING)
def test_empty_cohorts_are_legal(kind: str) -> None:
    options = VARYING[kind] | ({"size": 1} if kind == "clustered" else {})
    asked = tiny(**{**sampled(kind), "sampler": {"kind": kind, **options}}, rounds=12, observe={}, probes=[])
    done = simulate(asked, federations.build(asked), watch=False)
    rounds = {part.round for part in done.bank.participation}
    assert (len(rounds) < 12) == (kind != "clustered")
    assert len(done.params) == 4


@every_sampler
def test_no_coin_changes_a_cohort(kind: str) -> None:
    """The roster of a federation whose coins are all turned over is the same, and so is that of every run."""
    asked = scenario(kind)
    federation = build(asked)
    turned = replace(federation, audit=replace(federation.audit, is_in=~federation.audit.is_in))
    expected = cohorts(asked, federation)
    assert cohorts(asked, turned) == expected
    assert cohorts(asked, federation, run=3) == expected


@every_sampler
@pytest.mark.parametrize("roster", ["together", "per_run"])
def test_the_roster_is_a_function_of_seed_and_round(kind: str, roster: str) -> None:
    """Whatever is asked first, and however often."""
    asked = scenario(kind, **({"roster": "per_run"} if roster == "per_run" else {}))
    federation = build(asked)
    expected = cohorts(asked, federation, run=1)
    other = Roster(asked, federation, 1)
    assert [other.cohort(round_number) for round_number in (6, 2, 2, 1)] == [
        expected[round_number - 1] for round_number in (6, 2, 2, 1)
    ]
